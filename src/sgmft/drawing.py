"""How our figures look: ink, fonts, labels, and SVG text that can stand in a page."""

from __future__ import annotations

import io
import logging
import re
import unicodedata
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK = "#1d2733"  # in SVG text it becomes the page's own text colour, for light and dark pages
LONGEST_LABEL = 24  # in columns of a terminal: a Chinese character takes two


_CJK_FONTS = (
    "Noto Sans CJK SC",
    "Noto Sans SC",
    "Source Han Sans SC",
    "Microsoft YaHei",
    "PingFang SC",
    "Hiragino Sans GB",
    "Heiti SC",
    "SimHei",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Noto Sans CJK JP",
    "Arial Unicode MS",
)


def text_columns(text: str) -> int:
    """Width of a text in columns of a terminal: a Chinese character takes two."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def shorten(label: str) -> str:
    """Cut a long label in its middle, so that labels with a common start stay apart."""
    label = "".join(c if c.isprintable() else " " for c in label)
    if text_columns(label) <= LONGEST_LABEL:
        return label
    head, tail = label, label
    while text_columns(head) > LONGEST_LABEL * 0.55:
        head = head[:-1]
    while text_columns(tail) > LONGEST_LABEL * 0.4:
        tail = tail[1:]
    return f"{head.rstrip()}…{tail.lstrip()}"


def cjk_fonts() -> list[str]:
    """Fonts on this machine that have Chinese characters, best first."""
    from matplotlib.font_manager import fontManager

    known = set(fontManager.get_font_names())
    return [font for font in _CJK_FONTS if font in known]


@contextmanager
def drawing_style(fonts: list[str], salt: str = "sgmft") -> Iterator[None]:
    """Settings of our figures; what has no glyph in any font here is drawn as a box, quietly.

    Args:
        fonts: beside DejaVu Sans.
        salt: of the identifiers in SVG text; figures on one page need one each.
    """
    from matplotlib import rc_context

    inked = ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "grid.color")
    settings: dict[Any, Any] = {
        **dict.fromkeys((*inked, "xtick.color", "ytick.color"), INK),
        "axes.facecolor": "none",
        "font.family": ["DejaVu Sans", *fonts],
        "font.size": 9,
        "svg.fonttype": "none",
        "svg.hashsalt": salt,
        "text.parse_math": False,
    }
    fonts_log = logging.getLogger("matplotlib.font_manager")  # notes each weight a font lacks
    level = fonts_log.level
    with rc_context(settings), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from font")
        fonts_log.setLevel(logging.ERROR)
        try:
            yield
        finally:
            fonts_log.setLevel(level)


def svg_text(figure: Figure) -> str:
    """Render to an <svg> element that can stand in a page beside others: the same every time."""
    out = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(out, format="svg", transparent=True, metadata=nothing)
    text = out.getvalue()
    text = re.sub(r' id="[\w.]+_\d+"', "", text[text.index("<svg") :])  # nothing refers to these
    text = text.replace("*{stroke-linejoin", "svg *{stroke-linejoin")
    text = text.replace("font-family: 'DejaVu Sans'", "font-family: system-ui, sans-serif")
    return re.sub(f"(fill|stroke): {INK}", r"\1: currentColor", text)
