"""What every format is read into."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgmft.errors import SgmftError, make_printable

DAMAGED = "holds bytes that are no text in the encoding of the table"
"""The reason given for a damaged row of a table that is otherwise UTF-8 or GB18030."""


@dataclass(frozen=True)
class RawRow:
    """One record as it was read.

    Attributes:
        number: as a spreadsheet or an editor counts: a CSV header is row 1; JSONL lines from 1.
        values: column -> value. What could not be assigned to a column is under "line" (JSONL)
            or "column 7" (a CSV cell without a header).
        error: why the record is damaged, or None.
    """

    number: int
    values: dict[str, Any]
    error: str | None = None


@dataclass(frozen=True)
class RawTable:
    """An open table.

    Attributes:
        name: for messages.
        folder: what the picture paths are relative to.
        columns: the header; None for JSON lines, which have none.
        rows: the records, read as they are asked for.
        label_columns: where the labels are, when the format says so (Label Studio).
        label_studio: whether picture paths may be addresses of Label Studio.
    """

    name: str
    folder: Path
    columns: list[str] | None
    rows: Iterator[RawRow]
    label_columns: tuple[str, ...] = ()
    label_studio: bool = False


def check_header(path: Path, columns: list[str]) -> None:
    """Refuse a table with two columns of one name: one of them would be lost."""
    twice = [name for name, count in Counter(columns).items() if count > 1]
    if twice:
        raise SgmftError(f"{path} has more than one column {twice[0]!r}: rename one of them.")


@contextmanager
def reading(path: str | Path) -> Iterator[None]:
    """Turn the system's refusal to read a file or folder into a sentence.

    Raises:
        SgmftError: naming it, and what the system says.
    """
    try:
        yield
    except FileNotFoundError:
        raise SgmftError(f"There is no file {path}: check its name and folder.") from None
    except OSError as error:
        reason = error.strerror or first_line(error)
        raise SgmftError(f"{path} cannot be read: {reason}.") from error


def first_line(error: Exception) -> str:
    """What a library says, which may be long, or nothing."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return make_printable(lines[0][:300]).rstrip(".")
