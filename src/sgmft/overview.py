"""What SG-MFT does, in one picture: the drawing of the reports and of the README."""

from __future__ import annotations

from typing import Any

from sgmft.errors import SgmftError
from sgmft.templates import render

_WORDS: dict[str, dict[str, Any]] = {
    "en": {
        "title": "SG-MFT: the text and the picture of a post are encoded, interact under the "
        "guidance of their similarity, are fused, and give a probability for each place",
        "post": "A post",
        "said": ["Lights down,", "popcorn ready!"],
        "text_encoder": ["text", "encoder"],
        "picture_encoder": ["picture", "encoder"],
        "sim": ["Similarity-guided", "interaction (SIM)"],
        "alike": "how alike?",
        "sim_does": ["similarity decides how", "much each side counts"],
        "sfm": ["Similarity-aware", "fusion (SFM)"],
        "sfm_does": ["what both say", "becomes one answer"],
        "where": "Where was it?",
        "places": [("Cinema", 86), ("Home", 8), ("Restaurant", 4), ("Work", 2)],
    },
    "zh": {
        "title": "SG-MFT：分别编码帖子的文字与图片，在相似度引导下交互，再融合，得出每类地点的概率",
        "post": "一条帖子",
        "said": ["灯光暗下来，", "爆米花准备好了！"],
        "text_encoder": ["文本", "编码器"],
        "picture_encoder": ["图像", "编码器"],
        "sim": ["相似度引导的", "交互模块（SIM）"],
        "alike": "有多相似？",
        "sim_does": ["相似度决定", "各方信息的权重"],
        "sfm": ["相似度感知的", "融合模块（SFM）"],
        "sfm_does": ["两种信息合成", "一个判断"],
        "where": "在哪里？",
        "places": [("电影院", 86), ("家", 8), ("餐厅", 4), ("工作场所", 2)],
    },
}


def overview_figure(language: str = "en") -> str:
    """Return the drawing as SVG text; it reads on light and on dark pages.

    The probabilities in it are an illustration, not a result. `docs/overview.svg` and
    `docs/overview.zh.svg` hold what this returns.

    Args:
        language: "en" or "zh".

    Raises:
        SgmftError: another language.
    """
    if language not in _WORDS:
        raise SgmftError(f"the overview speaks {' and '.join(_WORDS)}, not {language!r}")
    return render("overview.svg", words=_WORDS[language])
