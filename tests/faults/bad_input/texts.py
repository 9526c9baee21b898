"""Texts: whatever is written, cleaning gives text, and twice gives the same as once."""

from collections import Counter
from dataclasses import replace

from bad_input.target import Outcome, Target, promise
from bad_input.watch import watched

from sgmft.data.preprocessing.text import (
    CLEANINGS,
    MAX_CHARACTERS,
    Cleaning,
    clean_text,
    split_words,
)

_STEPS = list(Cleaning.__dataclass_fields__)


def text_of(data: bytes) -> str:
    """Decode bytes to any text: UTF-8, with lone surrogates, or else three bytes a character."""
    try:
        return data.decode("utf-8", "surrogatepass")
    except UnicodeDecodeError:
        return "".join(
            chr(int.from_bytes(data[at : at + 3], "little") % 0x110000)
            for at in range(0, min(len(data), 3 * MAX_CHARACTERS), 3)
        )


def cleaning_of(data: bytes) -> Cleaning:
    """Return the cleaning of a case: one of those with a name, or any steps."""
    which = data[0] if data else 0
    if which < 128:
        return list(CLEANINGS.values())[which % len(CLEANINGS)]
    steps = int.from_bytes(data[:2].ljust(2, b"\0"), "big")
    return Cleaning(*(bool(steps >> bit & 1) for bit in range(len(_STEPS))))


def check_text(data: bytes) -> Outcome:
    """Clean the text of all bytes but the first two, which choose the cleaning."""
    text, cleaning = text_of(data[2:]), cleaning_of(data)
    with watched(None):
        cleaned = clean_text(text, cleaning)
        whole = replace(cleaning, stop_words=False)
        once = clean_text(text, whole)
        again = clean_text(once, whole)
        found = split_words(text, cleaning, 50)
    for part in (cleaned, *found):
        part.encode()
    promise(once == again, f"cleaning twice: {once!r:.200} became {again!r:.200}")
    promise(cleaned == " ".join(cleaned.split()), f"spaces: {cleaned!r:.200}")
    promise(len(once) <= MAX_CHARACTERS, f"{len(once)} characters are left")
    promise(len(cleaned) <= 36 * max(len(text), 1), f"{len(text)} became {len(cleaned)}")
    promise(
        all(word and not any(map(str.isspace, word)) for word in found), f"words: {found!r:.200}"
    )
    if cleaning.stop_words and len(found) < 50:
        promise(
            "".join(found) == cleaned.replace(" ", ""),
            f"{found!r:.200} are not the words of {cleaned!r:.200}",
        )
    return Outcome(1) if cleaned else Outcome(refused=Counter(["nothing is left"]))


_TEXTS = (
    "转发微博//@小明:电影院[二哈]//@user_2：学校 http://t.cn/A6abc回家 #北京美食#好吃 回复@a:b",
    "We're at the cinema 😂👨‍👩‍👧 www.example.com/x RT @name: so good!!! a@b.com",
    "ﷺ ½ ｆｕｌｌ　ｗｉｄｔｈ é e\u0301 한국어 ありがとう हिन्दी ไทย Привет",
    "[doge] 😂 http://t.cn/A 的",
    "家" * 300 + "[doge]" * 40 + "@" * 200 + "/" * 200 + "t.cn/" * 50,
)
_WORDS = (
    *"@:：[]#.-/，()'?! \0a1家",
    *("//", "转发微博", "Repost", "回复", "http://", "https://", "t.cn/", "RT ", "www.", ".com/"),
    *("🏽", "🇨", "🇳", "ﷺ", "👨\u200d", "\u200d", "\ufe0f", "\u20e3", "\u0301", "\u3164", "\u034f"),
    *("\u2028", "\u202e", "\ufeff", "\U000e0067", "\U000e0001", "\ud800", "\udc00"),
    *("a." * 300, "www." * 200, "@a." * 200, "[a" * 300, "//@" * 300, "http://" * 200),
    "\u0301" * 800,
)
TEXTS = [
    Target(
        "texts",
        check_text,
        lambda: [
            bytes([way, 0]) + text.encode() for way in (0, 1, 2, 255, 129, 170) for text in _TEXTS
        ],
        [word.encode("utf-8", "surrogatepass") for word in _WORDS],
    )
]
