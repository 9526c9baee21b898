"""Text preprocessing: markup, cleaning, segmentation (paper, section 4.2), windows and n-grams."""

import html
import json
import re
import unicodedata
import zlib
from ast import literal_eval
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from functools import cache, lru_cache
from itertools import islice, product
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from sgmft.errors import TEXTS, Message, SgmftError, check_name
from sgmft.utils.files import load_patterns
from sgmft.utils.runtime import silence_libraries

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


MAX_CHARACTERS = 5000  # longer texts are cut before any work; Weibo's own limit is 2000

BUCKETS = 2**24  # hash values of n-grams
NGRAM_CHARACTERS = 1_000  # of a text; n-grams of the rest are ignored
UNSPACED, SPACED = range(1, 4), range(2, 6)  # lengths n
SHORTEST, LONGEST = 8, 32  # words of a window
MAX_WINDOWS = 64  # of one text, about: where it needs more, they hold more words

# First ends of sentences, but not "3.5", "t.cn/A6?b=1", and a mark before another or a bracket.
_ENDS = PATTERNS["sentence_end"], PATTERNS["clause_end"]
# Words of the English stop list that are kept, as they tell where an author is.
PLACE_WORDS = frozenset({"home", "room", "rooms", "work", "worked", "working", "works"})


@dataclass(frozen=True)
class Cleaning:
    """The steps that `clean_text` and `split_words` take; by default all, the paper's cleaning.

    Whatever the steps, a text is cut to `MAX_CHARACTERS`, brought to Unicode NFKC (full-width
    letters and marks become ordinary ones), freed of control and zero-width characters (the
    joiners inside an emoji stay with it), and its white space becomes single spaces.
    """

    # Undo what pages and wrong encodings add (see `sgmft.data.preprocessing.text`): HTML,
    # "...全文", "O网页链接", UTF-8 read as Latin-1. A text without letters and digits, those of
    # emoji and emoticons aside, becomes "".
    markup: bool = True
    simplify: bool = True  # write traditional characters as simplified ones, by OpenCC
    urls: bool = True  # remove links, also short ones without a scheme ("t.cn/A6xYz")
    # Remove "//", "//@name:", "RT @name:", a bare "转发微博" or "分享图片".
    retweets: bool = True
    # Remove "@name", "@name:" and "回复@name:"; an e-mail address is no mention.
    mentions: bool = True
    hashtags: bool = True  # remove the marks of "#…#" and "#…"; the words stay
    emoticons: bool = True  # remove Weibo's "[二哈]"; "[2020]" and long clauses stay
    emoji: bool = True  # remove emoji
    # Replace every punctuation mark and symbol, emoji among them, by a space.
    punctuation: bool = True
    segment: bool = True  # find words with jieba; otherwise words are what spaces separate
    # Drop Chinese and English stop words (stopwords-iso, except `PLACE_WORDS`).
    stop_words: bool = True


CLEANINGS: dict[str, Cleaning] = {  # all but the first leave sentences whole, for encoders
    "paper": Cleaning(),
    "light": Cleaning(emoticons=False, emoji=False, punctuation=False, stop_words=False),
    "none": Cleaning(**{field.name: field.name == "segment" for field in fields(Cleaning)}),
}

_REMOVED = {"url": "urls", "bare_repost": "retweets", "retweet": "retweets"}  # in this order
_REMOVED |= {"mention": "mentions", "hash": "hashtags", "emoticon": "emoticons"}
_JOINERS = frozenset("\u200d\ufe0f") | {chr(code) for code in range(0xE0020, 0xE0080)}
_BLANKS = frozenset("\u034f\u115f\u1160\u2800\u3164\uffa0")
_BLANKS |= {chr(code) for code in (*range(0xFE00, 0xFE0F), *range(0xE0100, 0xE01F0))}


def get_cleaning(name_or_steps: str | Cleaning) -> Cleaning:
    """Return the cleaning of that name, or the given one; SgmftError where there is none."""
    if isinstance(name_or_steps, Cleaning):
        return name_or_steps
    check_name(name_or_steps, CLEANINGS, "there is no cleaning")
    return CLEANINGS[name_or_steps]


def clean_text(text: str, cleaning: Cleaning) -> str:
    """Return the text as one string for a sentence encoder; "" when nothing is left.

    With `stop_words` the result is the kept words, joined without a space between two Chinese
    words and with one space otherwise. Without it, cleaning twice gives the same as once.
    """
    if not cleaning.stop_words:
        return _scrub(text, cleaning)
    joined = ""
    for word in _kept_words(text, cleaning):
        together = not joined or (PATTERNS["han"].match(joined[-1]) and PATTERNS["han"].match(word))
        joined += word if together else f" {word}"
    return joined


def describe_repair(text: str, cleaning: Cleaning) -> Message | None:
    """Return in which wrong encoding a text was read, where that is mended, or that it is cut."""
    text = text[: 4 * MAX_CHARACTERS]
    found = repair_encoding(text)[1] if cleaning.markup and is_marked(text) else None
    if found is None and 4 * len(PATTERNS["lost"].findall(text)) > len(text):
        return Message(TEXTS["lost letters"])
    if found is None and PATTERNS["cut"].search(text[-200:]):
        return Message(TEXTS["cut at its end"])
    was, wrong = found or ("", "")
    return found and Message(f"the text was {was} read as {{encoding}}; repaired", encoding=wrong)


def split_words(text: str, cleaning: Cleaning, limit: int | None = None) -> list[str]:
    """Return words of the cleaned text, by jieba (paper, section 4.2), at most `limit`."""
    if limit is not None and limit < 0:
        raise SgmftError(f"the limit of words is {limit}; give 0 or more, or None for all")
    return list(islice(_kept_words(text, cleaning), limit))


def _scrub(text: str, cleaning: Cleaning) -> str:
    """Apply every step that works on characters, until none changes anything."""
    before = None
    while text != before:
        before, text = text, _visible(unmark(text, cleaning))
        # Links and emoji go first: NFKC makes "，" a comma, which a link may hold, and 🈚 a 無.
        if cleaning.urls:
            text = PATTERNS["url"].sub(" ", text)
        if cleaning.emoji:
            text = _emoji().replace_emoji(text, " ")
        text = unicodedata.normalize("NFKC", text)
        if cleaning.simplify:
            text = simplify(text)
        for pattern, step in _REMOVED.items():
            if getattr(cleaning, step):
                text = PATTERNS[pattern].sub(" ", text)
        if cleaning.punctuation:
            text = "".join(c if unicodedata.category(c)[0] in "LNM" else " " for c in text)
        text = " ".join(text.split())[:MAX_CHARACTERS].rstrip()
    return "" if cleaning.markup and _is_bare(text) else text


def unmark(text: str, cleaning: Cleaning) -> str:
    """Return the beginning of a text, without what pages and encodings add if that is cleaned."""
    marked = text[: 4 * MAX_CHARACTERS]
    if not (cleaning.markup and is_marked(marked)):
        return text[:MAX_CHARACTERS]
    return strip_markup(_visible(repair_encoding(marked)[0]))


def simplify(text: str) -> str:
    """Write traditional Chinese characters as simplified ones."""
    traditional, convert = _opencc()
    return text if traditional.isdisjoint(text) else convert(text)


def _is_bare(text: str) -> bool:
    """Return whether nothing but marks, emoji and emoticons is in a text."""
    if "[" in text:
        text = PATTERNS["emoticon"].sub("", text)
    if "\u20e3" in text:  # of a key cap, an emoji with a digit
        text = _emoji().replace_emoji(text, "")
    return not any(map(str.isalnum, text))


def _visible(text: str) -> str:
    """Remove control, zero-width and lone surrogate characters; keep joiners inside an emoji."""
    if not (text.isprintable() and _BLANKS.isdisjoint(text)):
        others = {c for c in text if not c.isspace()} - _JOINERS
        hidden = {c for c in others if unicodedata.category(c) in ("Cc", "Cf", "Cs")} | _BLANKS
        text = "".join(c for c in text if c not in hidden)
    if _JOINERS.isdisjoint(text):
        return text
    drop = str.maketrans(dict.fromkeys(_JOINERS))
    return "".join(x if emoji else x.translate(drop) for x, emoji in _split_at_emoji(text))


def _split_at_emoji(text: str) -> Iterator[tuple[str, bool]]:
    """Yield the pieces of a text in order, each with whether it is one emoji."""
    start = 0
    for found in _emoji().emoji_list(text):
        yield text[start : found["match_start"]], False
        yield found["emoji"], True
        start = found["match_end"]
    yield text[start:], False


def _kept_words(text: str, cleaning: Cleaning) -> Iterator[str]:
    text = _scrub(text, cleaning)
    for word in _segment(text) if cleaning.segment else text.split():
        if not (cleaning.stop_words and word.casefold() in _stop_words()):
            yield word


def _segment(text: str) -> Iterator[str]:
    for piece, is_emoji in _split_at_emoji(text):
        if is_emoji:
            yield piece
            continue
        for index, part in enumerate(PATTERNS["unknown_word"].split(piece)):
            found = [part] if index % 2 else _jieba().cut(part)
            yield from (word for word in found if word and not word.isspace())


def window_of(texts: Sequence[str], cleaning: Cleaning) -> int:
    """Return the size of windows in words, into which 99 of 100 of 1,000 of these texts fit."""
    some = [text for text in texts if text.strip()]
    some = some[:: -(-len(some) // 1000) or 1]
    counts = sorted(len(split_words(text, cleaning, LONGEST)) for text in some)
    return max(SHORTEST, counts[len(counts) * 99 // 100]) if counts else LONGEST


def split_windows(text: str, cleaning: Cleaning, window: int = LONGEST) -> list[str]:
    """Cut a text into windows that together are its first `MAX_CHARACTERS`, without markup.

    Whole sentences of at most `window` words together, or a part of a longer one.
    """
    text = unmark(text, cleaning)[:MAX_CHARACTERS]
    if len(PATTERNS["word_at_most"].findall(text)) <= window:
        return [text]
    if (words := len(split_words(text, cleaning))) <= window:
        return [text]
    most = max(window, 2 * words // (MAX_WINDOWS - 1) + 1)  # two neighbours hold more than one may

    def cut(pieces: Sequence[str], ends: Sequence[re.Pattern[str]]) -> Iterator[tuple[str, int]]:
        """Yield pieces that hold no more, with their numbers, cut as far as they must be."""
        for piece in pieces:
            if (count := len(split_words(piece, cleaning))) > most and ends:
                yield from cut(ends[0].split(piece), ends[1:])
                continue
            parts = -(-count // most) or 1  # of equal lengths
            for i in range(parts):
                yield piece[len(piece) * i // parts : len(piece) * (i + 1) // parts], count // parts

    windows, held = [""], 0
    for piece, count in cut(_ENDS[0].split(text), _ENDS[1:]):
        if held and held + count > most:
            windows, held = [*windows, ""], 0
        windows[-1] += piece
        held += count
    return windows


def hash_ngrams(text: str) -> NDArray[np.int32]:
    """Hash the n-grams of a text to 0..2^24-1, in order, repeats kept: (g,).

    Case is ignored. Runs of scripts without spaces give every 1 to 3 characters; of other
    words, with a space at both ends, every 2 to 5. The hash is a CRC-32 of the UTF-8 bytes.
    """
    runs = list[tuple[str, range]]()
    parts = PATTERNS["unspaced"].split(text[:NGRAM_CHARACTERS].casefold())
    for i, part in enumerate(parts):  # odd: such a run
        runs += [(part, UNSPACED)] if i % 2 else [(f" {x} ", SPACED) for x in part.split()]
    found = [
        zlib.crc32(gram.encode("utf-8", "surrogatepass")) % BUCKETS
        for run, lengths in runs
        for n in lengths
        for gram in (run[i : i + n] for i in range(len(run) - n + 1))
    ]
    return np.array(found, np.int32)


T = TypeVar("T")
_LOADING = Lock()


def _load_once(load: Callable[[], T]) -> Callable[[], T]:
    """Load a library when it is first used, by one thread, while the others wait for its tables."""
    loaded = cache(load)

    def get() -> T:
        with _LOADING:
            return loaded()

    return get


@_load_once
def _emoji() -> Any:
    import emoji

    emoji.emoji_list("")  # builds its search tree
    return emoji


@_load_once
def _opencc() -> tuple[frozenset[str], Callable[[str], str]]:
    """Return the characters that may be traditional, and what writes a text without them."""
    import opencc

    convert: Callable[[str], str] = opencc.OpenCC("t2s").convert
    characters = [chr(code) for code in range(0x3400, 0xA000)]
    simplified = convert("\n".join(characters)).split("\n")
    return frozenset(x for x, y in zip(characters, simplified, strict=True) if x != y), convert


class _Segmenter:
    """jieba's tokenizer; it reads words of its dictionary, all of which take long, when needed."""

    def __init__(self) -> None:
        with silence_libraries():
            import jieba

            self._tokenizer = jieba.Tokenizer()
            with self._tokenizer.get_dict_file() as file:
                text = file.read().decode()
        # What `initialize` does, without its messages and its cache file in the shared /tmp.
        self._tokenizer.total = sum(map(int, re.findall(r" (\d+) ", text)))
        self._tokenizer.initialized = True
        self._unread: dict[str, str] = {}  # a character, and the lines whose word begins with it
        for run in PATTERNS["same_beginning"].finditer(text):
            self._unread[run[1]] = self._unread.get(run[1], "") + run[0]
        self._reading = Lock()

    def cut(self, text: str) -> Iterator[str]:
        if not self._unread.keys().isdisjoint(text):
            with self._reading:
                counts = self._tokenizer.FREQ
                for character in self._unread.keys() & set(text):
                    for line in self._unread[character].splitlines():
                        word, count, _ = line.split(" ")
                        counts[word] = int(count)
                        for end in range(1, len(word)):  # what only begins a word has 0
                            counts.setdefault(word[:end], 0)
                    del self._unread[character]  # last: until then other threads wait above
        words: Iterator[str] = self._tokenizer.cut(text)
        return words


_jieba = _load_once(_Segmenter)


@_load_once
def _stop_words() -> frozenset[str]:
    import stopwordsiso

    listed = (unicodedata.normalize("NFKC", w) for w in stopwordsiso.stopwords(["zh", "en"]))
    # The list holds punctuation marks too; those are another step's business.
    return frozenset(w.casefold() for w in listed if any(map(str.isalnum, w))) - PLACE_WORDS
