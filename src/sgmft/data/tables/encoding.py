"""The character encoding of a text file."""

import codecs
import re
import warnings
from pathlib import Path
from typing import NamedTuple

from sgmft.errors import SgmftError, SgmftWarning

_ESCAPED = re.compile("[\udc80-\udcff]")
_PRIVATE = re.compile("[\ue000-\uf8ff]")  # what Big5 or Shift-JIS often is in GB18030, and no text


class TextEncoding(NamedTuple):
    """How to open a text file: ``path.open(encoding=..., errors=...)``."""

    encoding: str
    errors: str


def detect_encoding(path: Path) -> TextEncoding:
    """Find the encoding of a file: UTF-16 with its mark, UTF-8 with or without one, or GB18030.

    GB18030 comes with an `SgmftWarning`, for much of what is in other encodings fits it.

    The whole file is read, a line at a time. An encoding fits when it decodes more of the lines
    that are not ASCII than it fails; errors="surrogateescape" then lets the damaged lines be seen.
    (Asking for every line would take a UTF-8 file with one damaged line for GB18030, which accepts
    most bytes and would turn every text into another.)

    Raises:
        SgmftError: when no encoding fits, naming the first line that is not UTF-8.
    """
    with path.open("rb") as file:
        if has_utf16_bom(file.read(2)):
            return TextEncoding("utf-16", "strict")
    good, bad, first_bad = _count_lines(path, "utf-8")
    if not bad or good > bad:
        return TextEncoding("utf-8-sig", "surrogateescape" if bad else "strict")
    good, bad, _ = _count_lines(path, "gb18030", _PRIVATE)
    if bad and good <= bad:
        raise SgmftError(
            "{name}, line {line}, is neither UTF-8 nor GB18030: save the file as UTF-8.",
            name=path,
            line=first_bad,
        )
    warnings.warn(
        f"{path} is not UTF-8 and is read as GB18030. If texts look wrong, save it as UTF-8.",
        SgmftWarning,
        stacklevel=2,
    )
    return TextEncoding("gb18030", "surrogateescape" if bad else "strict")


def has_utf16_bom(start: bytes) -> bool:
    """Return whether the first bytes of a file are the mark of UTF-16."""
    return start.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))


def has_undecoded(text: str) -> bool:
    """Return whether `text`, decoded with surrogateescape, holds bytes that were no characters."""
    return not text.isascii() and _ESCAPED.search(text) is not None


def _count_lines(
    path: Path, encoding: str, forbidden: re.Pattern[str] | None = None
) -> tuple[int, int, int]:
    """Count the lines that are not ASCII.

    Returns:
        The number of lines that decode, and without `forbidden`; the number of others; and the
        line number, from 1, of the first of those.
    """
    good, bad, first_bad = 0, 0, 0
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if line.isascii():
                continue
            try:
                text = line.decode(encoding)
            except UnicodeDecodeError:
                text = None
            if text is None or (forbidden is not None and forbidden.search(text)):
                bad, first_bad = bad + 1, first_bad or number
            else:
                good += 1
    return good, bad, first_bad
