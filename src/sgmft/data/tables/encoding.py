"""The character encoding of a text file."""

import codecs
import re
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from sgmft.errors import TEXTS, Message, SgmftError, warn

SAMPLE = 2**18  # bytes from which an encoding is guessed
_NEVER = {"\0", "\ufffd"}  # in texts
_GUESSED = ["gb18030", "big5"]  # with more to choose from, short Chinese is taken for Korean
_PRIVATE = re.compile("[\ue000-\uf8ff]")  # what Big5 or Shift-JIS often is in GB18030, and no text


class TextEncoding(NamedTuple):
    """How to open a text file."""

    encoding: str
    errors: str


def detect_encoding(path: Path) -> TextEncoding:
    """Find the encoding of a file: UTF-16, UTF-8, Windows-1252, GB18030 or Big5.

    All but the first two, and UTF-16 without its mark, come with an `SgmftWarning`. An encoding
    fits when it decodes more of the lines that are not ASCII than it fails (not all: GB18030 would
    turn every text of a UTF-8 file with one damaged line into another); errors="surrogateescape"
    then lets the damaged lines be seen. SgmftError where none fits.
    """
    if utf16 := detect_utf16(path):
        return TextEncoding(utf16, "strict")
    good, bad, first_bad = _count(path, "utf-8", None)
    if not bad or good > bad:
        return TextEncoding("utf-8-sig", "surrogateescape" if bad else "strict")
    encoding = _guess(path)
    good, bad, _ = _count(path, encoding, _PRIVATE)
    if bad and good <= bad:
        raise SgmftError(TEXTS["no encoding"], name=path, line=first_bad)
    _warn(path, encoding)
    return TextEncoding(encoding, "surrogateescape" if bad else "strict")


def detect_utf16(path: Path) -> str | None:
    """Return which UTF-16 a file is in, None if in none; without a mark, with an `SgmftWarning`."""
    with path.open("rb") as file:
        start = file.read(SAMPLE)
    if start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        return "utf-16"
    if start.startswith(codecs.BOM_UTF8):  # whatever zeros its texts hold
        return None
    with suppress(UnicodeDecodeError):
        if not codecs.getincrementaldecoder("utf-8")().decode(start).isascii():
            return None
    for encoding, high in (("utf-16-le", 1), ("utf-16-be", 0)):
        zeros = start[high::2].count(0)  # of the letters, marks and line ends that are ASCII
        text = start.decode(encoding, "replace")[: None if len(start) < SAMPLE else -1]
        right, wrong = (sum(map(text.count, marks)) for marks in ('\n"', "\u0a00\u2200"))
        if zeros > max(3, len(start) // 1000) and right > 4 * wrong and _NEVER.isdisjoint(text):
            _warn(path, encoding)
            return encoding
    return None


def _guess(path: Path) -> str:
    from charset_normalizer import from_bytes

    with path.open("rb") as file:
        lines = file.readlines(SAMPLE)
    sample = b"".join(line for line in lines if not line.isascii())[:SAMPLE]
    alone = [len(run) == 1 for run in re.findall(rb"[\x80-\xff]+", sample)]
    if len(alone) > 1 and sum(alone) > 0.9 * len(alone):
        return "windows-1252"  # é and curly quotes among letters that are ASCII
    second = re.findall(rb"(?s)[\x81-\xfe](.)", sample)
    if 10 * sum(b"@" <= byte <= b"~" for byte in second) < len(second):
        return "gb18030"  # of Big5 they would be a third; of simplified script none are such
    best = from_bytes(sample, cp_isolation=_GUESSED).best()
    return "gb18030" if best is None else best.encoding


def _warn(path: Path, encoding: str) -> None:
    warn(Message(TEXTS["other encoding"], path=path, name=encoding.upper().replace("_", "-")))


def has_undecoded(text: str) -> bool:
    """Return whether `text`, decoded with surrogateescape, holds bytes that were no characters."""
    return not text.isascii() and re.search("[\udc80-\udcff]", text) is not None


def _count(path: Path, encoding: str, forbidden: re.Pattern[str] | None) -> tuple[int, int, int]:
    """Count lines beyond ASCII that decode without `forbidden`, and others; find the first such."""
    good, bad, first_bad = 0, 0, 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.isascii():
                continue
            fits = False
            with suppress(UnicodeDecodeError):
                text = line.decode(encoding)
                fits = forbidden is None or not forbidden.search(text)
            good, bad = good + fits, bad + (not fits)
            first_bad = first_bad or number * (not fits)
    return good, bad, first_bad
