"""Accuracy on texts as tools and wrong encodings leave them, against the same texts as written.

    python benchmarks/altered_texts.py MODEL TABLE [--where split=test]

Every text of the table is altered in each way; pictures are left out, so that only texts count.
Rows with an alteration that cannot be undone, such as bytes that a wrong encoding lost, say so by
the share of texts that are cleaned to the same as the original. In the last row traditional
characters are not read as simplified ones.
"""

from __future__ import annotations

import argparse
import html
import random
import re
from collections.abc import Callable

import numpy as np

from sgmft import Post, SemanticLocator, read_posts
from sgmft.data.preprocessing import text as preprocessing
from sgmft.data.preprocessing.text import clean_text, get_cleaning

CARD = (
    ' <a  href="http://weibo.com/p/100101B2094757D06FA2F8" data-hide=""><span class=\'url-icon\'>'
    "<img style='width: 1rem' src='https://h5.sinaimg.cn/u/timeline_card_small_location_default.png'>"
    '</span><span class="surl-text">北京·万达影城</span></a>'
)
FACE = (
    '<span class="url-icon"><img alt={} src="https://h5.sinaimg.cn/m/emoticon/icon/d_doge.png" '
    'style="width:1em; height:1em;" /></span>'
)
LINK = '<a  href="https://m.weibo.cn/search?q=x" data-hide=""><span class="surl-text"></span></a>'


def weibo_html(text: str, draw: random.Random) -> str:
    """Write a text as Weibo's interface does, with what it adds; lines break between sentences."""
    ends = [found.end() for found in re.finditer(r"[。！？…\s]+", text)]
    at = draw.choice([*ends, len(text)])
    first, rest = (
        re.sub(r"\[\w{1,8}\]", lambda face: FACE.format(face[0]), html.escape(part))
        for part in (text[:at], text[at:].replace(" ", "\xa0"))
    )
    end = draw.choice(['...<a href="/status/5012345678901234">全文</a>', CARD, LINK])
    rest = rest.replace("\xa0", "&nbsp;") + end
    return first + draw.choice(["<br />", "<br/><br/>", LINK]) + rest


def weibo_page(text: str, draw: random.Random) -> str:
    """Write a text as copied from a page of Weibo."""
    return text + draw.choice(
        ["\u200b...全文", "\u200b...展开c", "收起d", "O网页链接", " O网页链接 L小王的微博视频"]
    )


def read_as(encoding: str) -> Callable[[str, random.Random], str]:
    """Return what reads the UTF-8 of a text in another encoding."""
    return lambda text, _: text.encode("utf-8", "replace").decode(encoding, "replace")


def traditional(text: str, _: random.Random) -> str:
    """Write a text in traditional characters."""
    from opencc import OpenCC

    return str(OpenCC("s2twp").convert(text))


ALTERED: dict[str, Callable[[str, random.Random], str]] = {
    "as written": lambda text, _: text,
    "Weibo's HTML": weibo_html,
    "copied from Weibo": weibo_page,
    "UTF-8 read as Latin-1": read_as("latin-1"),
    "UTF-8 read as GBK": read_as("gbk"),
    "traditional characters": traditional,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("table")
    parser.add_argument("--where", default="split=test")
    options = parser.parse_args()
    locator = SemanticLocator.from_pretrained(options.model)
    key, value = options.where.split("=", 1)
    posts = [x for x in read_posts(options.table, where={key: value}) if x.text and not x.error]
    truth = np.array([str(post.label) for post in posts])
    cleaning = get_cleaning(locator.encoder.info.cleaning)
    plain = [clean_text(post.text, cleaning) for post in posts]
    print(f"| {len(posts)} texts | accuracy | cleaned to the same |\n|---|---|---|")
    for name, alter in (ALTERED | {"the same, read as they are": traditional}).items():
        if name not in ALTERED:
            preprocessing._opencc = lambda: (frozenset(), str)
        draw = random.Random(0)
        texts = [alter(post.text, draw) for post in posts]
        found = np.array(locator.predict([Post(text) for text in texts]), object)
        same = np.mean([clean_text(x, cleaning) == y for x, y in zip(texts, plain, strict=True)])
        print(f"| {name} | {100 * np.mean(found == truth):.1f} | {100 * same:.1f} % |", flush=True)


if __name__ == "__main__":
    main()
