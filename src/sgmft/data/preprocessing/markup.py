"""What web pages and wrong encodings add to a text: HTML, links that pages show, mojibake."""

import html
import json
import re
from ast import literal_eval
from contextlib import suppress
from functools import lru_cache
from itertools import product
from pathlib import Path

from sgmft.utils.files import load_patterns

PATTERNS = load_patterns(Path(__file__).with_name("patterns.toml"))
_UTF8 = b"".join(map(bytes, product(range(0xE4, 0xEA), range(0x80, 0xC0))))
_LEADS = _UTF8.decode("gbk", "ignore")
_GBK = re.compile(f"[{_LEADS}]")  # each begins the UTF-8 of a Chinese character read as GB18030
_MARKED = re.compile(f"{PATTERNS['marked'].pattern}|{_GBK.pattern}")
_MAYBE = re.compile(f"[<&\\\\全展收网網查评组微话h\u00a1-\u00fe{_LEADS}]")  # what these begin with


def strip_markup(text: str) -> str:
    """Remove HTML, and what pages of Weibo and X show beside a text: cards with their titles."""
    if "<" in text:  # "a < b" stays, as the names of pictures that are emoticons: "[doge]"
        text = PATTERNS["card"].sub(" ", PATTERNS["more"].sub(" ", text))
        text = PATTERNS["block"].sub(" ", PATTERNS["pictured"].sub(r"\1", text))
        text = PATTERNS["inline"].sub("", text)
    for _ in range(3 if "&" in text else 0):  # escaped twice, perhaps
        text = PATTERNS["entity"].sub(lambda found: html.unescape(found[0]), text)
    if "\\n" in text:
        text = PATTERNS["line_end"].sub(" ", text)
    return PATTERNS["fold"].sub(" ", PATTERNS["link"].sub(" ", text))


def is_marked(text: str) -> bool:
    """Return whether there may be anything here to remove or to repair."""
    return _MAYBE.search(text) is not None and _MARKED.search(text) is not None


@lru_cache(1024)
def repair_encoding(text: str) -> tuple[str, tuple[str, str] | None]:
    """Return the text, and its encoding and that in which it was read where both are certain."""
    if (escaped := PATTERNS["escaped"]).search(text):
        return escaped.sub(lambda x: json.loads(f'"{x[0]}"'), text), ("Unicode", "JSON's escapes")
    if PATTERNS["bytes"].fullmatch(text):
        with suppress(ValueError, SyntaxError):
            return literal_eval(text).decode(), ("UTF-8", "Python's bytes")
    mended = text  # ftfy is certain of UTF-8; GB18030 and Big5 must give common Chinese characters
    if PATTERNS["latin"].search(text):
        import ftfy

        mended = str(ftfy.fix_encoding(text))
    if PATTERNS["pairs"].search(mended):
        for wrong, was in product(("latin-1", "cp1252"), ("GB18030", "Big5")):
            with suppress(UnicodeError):
                if _common(repaired := text.encode(wrong).decode(was)) > 0.75:
                    return repaired, (was, "Latin-1")
    if mended != text:
        return mended, ("UTF-8", "Latin-1")
    if len(_GBK.findall(text)) >= max(2, len(text) // 12):
        data = b"\xff".join(part.encode("gb18030", "ignore") for part in text.split("\ufffd"))
        repaired = re.sub("\ufffd+", "\ufffd", data.decode("utf-8", "replace"))
        lost = repaired.count("\ufffd")
        if _common(repaired) > 0.75 and _common(text) < 0.6 and 3 * lost <= len(repaired):
            return repaired.replace("\ufffd", ""), ("UTF-8", "GB18030")
    return text, None


def _common(text: str) -> float:
    """Return the share of Chinese characters that GB2312 or Big5 has in its first level."""
    letters = [c for c in text if "\u3400" <= c <= "\u9fff" or "\ue000" <= c <= "\uf8ff"]
    common = 0
    for c in letters:
        simple, other = c.encode("gb2312", "ignore"), c.encode("big5", "ignore")
        common += b"\xb0" <= simple[:1] <= b"\xd7" or b"\xa4" <= other[:1] <= b"\xc6"
    return common / len(letters) if len(letters) >= 3 else 0.0
