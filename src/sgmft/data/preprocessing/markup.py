"""What web pages and wrong encodings add to a text: HTML, links that pages show, mojibake."""

import html
import re
from contextlib import suppress
from functools import lru_cache
from itertools import product

_BLOCKS = "blockquote|br|dd|div|dl|dt|h[1-6]|hr|li|ol|p|pre|section|table|tbody|td|th|tr|ul|video"
_ATTRIBUTE = r"\s+[\w:-]+(?:\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'<>]+))"
_REST = rf"(?:{_ATTRIBUTE})*(?:\s*/)?\s*>"
_BLOCK = re.compile(rf"</?(?:{_BLOCKS}){_REST}", re.IGNORECASE)
_INLINE = re.compile(  # also scripts, and tags that were cut off or lack a quotation mark
    rf"</?(?:a|abbr|b|em|font|i|img|s|small|span|strong|sub|sup|u){_REST}|<!--.*?-->"
    r"|<(script|style)\b[^<>]*>(?s:.*?)</\1\s*>"
    r"|<[a-z]\w*\s+[\w:-]+\s*=(?:[^<>]{0,500}>|[^\s<>\u2e80-\uffff]*)",
    re.IGNORECASE,
)
_PICTURED = re.compile(r"<img\s[^<>]*?\balt\s*=\s*[\"']?(\[[^\[\]<>\"']{1,20}\])[^<>]*>")
_CARD = re.compile(  # what Weibo shows for a place, a link, a video, with its icon; 超话 is a topic
    r"<a\s[^<>]*>(?:(?!</a>).)*?timeline_card_small_(?!super)(?:(?!</a>).)*</a>", re.IGNORECASE
)
_MORE = re.compile(r"(?:\.{3,}|…+)?\s*<a\s[^<>]*>\s*(?:全文|展开|收起)\s*</a>", re.IGNORECASE)
_ENTITY = re.compile(r"&(?:#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6}|[A-Za-z][A-Za-z0-9]{1,31});")
_LINE_END = re.compile(r"(?:\\r)?\\n(?![A-Za-z])")  # written out

_END = r"\s*(?=$|//@)"
_FOLD = re.compile(  # "展开c": the letter is an arrow in the page's font
    rf"(?:(?:\.{{3,}}|…+)\s*(?:全文|展开全文|展开|收起)[a-z]?|(?:展开|收起)(?:全文)?[cd]){_END}"
)
_LINK = re.compile(
    r"\[话题\]|O\s?网页链接|(?<!\w)(?:网页链接|網頁連結|查看图片|查看动图|评论配图)(?!\w)"
    r"|(?<![的个发开击条看])网页链接\s*$|\[组图共\d+张\](?:\s*原图)?|\bhttps?:?/{0,2}…"
    r"|(?<![A-Za-z])L[^\s]{1,30}?的微博视频|(?<!\S)\S{1,30}的微博视频\s*$"
)

_LEADS = "".join(
    bytes([lead, trail]).decode("gbk", "ignore")
    for lead in range(0xE4, 0xEA)
    for trail in range(0x80, 0xC0)
    if trail != 0x7F
)
_SECOND = (  # a later byte of UTF-8 read as Latin-1 or Windows-1252
    "\u0080-\u00bf\u0152-\u0178\u017d\u017e\u0192\u02c6\u02dc\u2013-\u203a\u20ac\u2122"
)
_PAIRS = "(?:[\u00a1-\u00fe][@-\u00fe]){3}"  # Chinese in two bytes read as Latin-1
_LATIN = re.compile(f"[\u00c2-\u00f4][{_SECOND}]")
_GBK = re.compile(f"[{_LEADS}]")  # each begins the UTF-8 of a Chinese character read as GB18030
_WORDS = "全文|展开|收起|网页链接|網頁連結|查看[图动]|评论配|组图共|微博视|话题\\]|https?:?/{0,2}…"
_MARKED = re.compile(rf"[<&]|\\n|{_WORDS}|{_LATIN.pattern}|{_GBK.pattern}|{_PAIRS}")
_MAYBE = re.compile(f"[<&\\\\全展收网網查评组微话h\u00a1-\u00fe{_LEADS}]")  # what these begin with


def strip_markup(text: str) -> str:
    """Remove HTML, and what the pages of Weibo and X show beside a text, cards with their titles.

    "a < b", "&", "展开讨论" and the names of emoticons in pictures ("[doge]") stay.
    """
    if "<" in text:
        text = _CARD.sub(" ", _MORE.sub(" ", text))
        text = _INLINE.sub("", _BLOCK.sub(" ", _PICTURED.sub(r"\1", text)))
    for _ in range(3 if "&" in text else 0):  # escaped twice, perhaps
        text = _ENTITY.sub(lambda found: html.unescape(found[0]), text)
    if "\\n" in text:
        text = _LINE_END.sub(" ", text)
    return _FOLD.sub(" ", _LINK.sub(" ", text))


def is_marked(text: str) -> bool:
    """Return whether there may be anything here to remove or to repair."""
    return _MAYBE.search(text) is not None and _MARKED.search(text) is not None


@lru_cache(1024)
def repair_encoding(text: str) -> tuple[str, tuple[str, str] | None]:
    """Return the text, and its encoding and that in which it was read where both are certain.

    Of UTF-8 ftfy is, of GB18030 and Big5 we are where the text becomes common Chinese characters.
    """
    if re.search(_PAIRS, text):
        for wrong, was in product(("latin-1", "cp1252"), ("GB18030", "Big5")):
            with suppress(UnicodeError):
                if _common(repaired := text.encode(wrong).decode(was)) > 0.75:
                    return repaired, (was, "Latin-1")
    if _LATIN.search(text):
        import ftfy

        repaired = str(ftfy.fix_encoding(text))
        return (repaired, ("UTF-8", "Latin-1")) if repaired != text else (text, None)
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
