"""Which encoding a text file is in, found by trying."""

from __future__ import annotations

import codecs
import re
import warnings
from pathlib import Path
from typing import NamedTuple

from sgmft.errors import SgmftError, SgmftWarning

_ESCAPED = re.compile("[\udc80-\udcff]")
_PRIVATE = re.compile("[\ue000-\uf8ff]")  # what Big5 or Shift-JIS often is in GB18030, and no text


class Encoding(NamedTuple):
    """How to open a text file: ``path.open(encoding=..., errors=...)``."""

    encoding: str
    errors: str


def has_undecoded(text: str) -> bool:
    """Tell whether `text`, decoded with surrogateescape, holds bytes that were no characters."""
    return not text.isascii() and _ESCAPED.search(text) is not None


def has_utf16_bom(start: bytes) -> bool:
    """Tell whether a file that begins with `start` says that it is UTF-16."""
    return start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def detect_encoding(path: Path) -> Encoding:
    """Find the encoding of a file: UTF-16 with its mark, UTF-8 with or without one, or GB18030.

    The last is told in an `SgmftWarning`, for much of what is in other encodings fits it.

    The whole file is read, a line at a time. An encoding fits when it decodes more of the lines
    that are not ASCII than it fails; errors="surrogateescape" then lets the damaged lines be seen.
    (Asking for every line would take a UTF-8 file with one damaged line for GB18030, which accepts
    most bytes and would turn every text into another.)

    Raises:
        SgmftError: when no encoding fits, naming the first line that is not UTF-8.
    """
    with path.open("rb") as file:
        if has_utf16_bom(file.read(2)):
            return Encoding("utf-16", "strict")
    utf8 = _count(path, "utf-8")
    if utf8.fits:
        return Encoding("utf-8-sig", utf8.errors)
    gb18030 = _count(path, "gb18030", _PRIVATE)
    if gb18030.fits:
        told = f"{path} is not UTF-8 and is read as GB18030. If texts look wrong, save it as UTF-8."
        warnings.warn(told, SgmftWarning, stacklevel=2)
        return Encoding("gb18030", gb18030.errors)
    raise SgmftError(
        f"{path}, line {utf8.first_bad}, is neither UTF-8 nor GB18030: save the file as UTF-8."
    )


class _Count(NamedTuple):
    good: int
    bad: int
    first_bad: int

    @property
    def fits(self) -> bool:
        return not self.bad or self.good > self.bad

    @property
    def errors(self) -> str:
        return "surrogateescape" if self.bad else "strict"


def _count(path: Path, encoding: str, never: re.Pattern[str] | None = None) -> _Count:
    """Count the lines that are not ASCII and become text, which has no `never`, or do not."""
    good, bad, first = 0, 0, 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.isascii():
                continue
            try:
                text = line.decode(encoding)
            except UnicodeDecodeError:
                text = None
            if text is None or (never is not None and never.search(text)):
                bad, first = bad + 1, first or number
            else:
                good += 1
    return _Count(good, bad, first)
