"""Cells of tables as text, as plain values and as JSON."""

import json
import math
from collections.abc import Mapping
from contextlib import suppress
from datetime import date
from typing import Any

from sgmft.errors import TEXTS, Message

MAX_DEPTH = 100  # of lists and objects in a record: deeper could be read, but not written again

NO_LABEL = frozenset({"na", "n/a", "nan", "nat", "null", "<na>", "\\n", "undefined"})
NO_LABEL |= {"nil", "(null)", "[null]", "''", '""'}
# Excel's:
NO_LABEL |= {"#n/a", "#n/a n/a", "#ref!", "#value!", "#name?", "#div/0!", "#num!", "#null!"}
NOTHING = NO_LABEL | {"none", "无", "無"}  # None and 无 may be labels
BLANKS = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\ufeff\u200b\u200e\u202a\u202c"


def replace_surrogates(text: str) -> str:
    """Replace lone surrogates by U+FFFD, so that the text can be encoded; join pairs."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text


def is_missing(value: Any) -> bool:
    """Return whether a cell is empty: None, "", an empty list, or a NaN."""
    if value is None or (isinstance(value, (str, list, tuple)) and not value):
        return True
    return isinstance(value, float) and math.isnan(value)


def says_nothing(value: Any, words: frozenset[str] = NOTHING) -> bool:
    """Return whether a cell is empty, or one of `words` that programs write for nothing."""
    if isinstance(value, str):
        return not value or (len(value) < 20 and value.strip().casefold() in words)
    return is_missing(value)


def is_deep(value: Any, most: int = MAX_DEPTH) -> bool:
    """Return whether lists and objects are nested more than `most` deep."""
    if not isinstance(value, (dict, list, tuple)):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return not most or any(is_deep(cell, most - 1) for cell in inner)


def to_text(value: Any) -> str:
    """Convert a cell to text; ValueError, with a reason for a message, if it is no single value."""
    if isinstance(value, str):
        return replace_surrogates(value)
    if is_missing(value):
        return ""
    match value:
        case bool():
            return "true" if value else "false"  # as in JSON
        case float() if value.is_integer() and abs(value) < 2**53:  # of integers with gaps
            return str(int(value))
        case bytes():
            with suppress(UnicodeDecodeError):
                return value.decode()
            raise ValueError("bytes that are not UTF-8")
        case list() | tuple():
            raise ValueError("a list where one value is needed")
        case dict() if len(value) == 1 and next(iter(value))[:1] == "$":  # of MongoDB
            return to_text(*value.values())
        case dict():
            raise ValueError("an object where one value is needed")
        case _:
            return str(value)


def to_label(value: Any) -> str:
    """Convert a label cell to text as `to_text` does; a list of one label counts as that label."""
    if isinstance(value, str) and value[:2] in ("['", '["', "[]"):
        with suppress(ValueError, RecursionError):
            value = json.loads(value.replace("'", '"'))
    if not isinstance(value, (list, tuple)):
        return to_text(value)
    if len(labels := [label for label in map(to_text, value) if label]) > 1:
        raise ValueError(Message(TEXTS["several labels"], labels=", ".join(labels)))
    return labels[0] if labels else ""


def to_amount(value: Any) -> float:
    """Convert a cell to a number; ValueError, with a reason, unless it is finite and at least 0."""
    with suppress(ValueError, TypeError):
        if 0 <= (number := float(value)) < math.inf:
            return number
    raise ValueError(Message("{value!r} is no number of at least 0", value=value))


def join_texts(title: str, text: str) -> str:
    """Return a text with its title, where it does not begin with that."""
    return text if text.startswith(title) else f"{title}\n{text}" if text else title


def to_plain(value: Any) -> Any:
    """Convert a value to None, bool, int, float, str, date, datetime, or lists and dicts of these.

    NaN becomes None, a lone surrogate U+FFFD, and what is left (paths, decimals) its text.
    """
    if value is None or isinstance(value, (int, date)):
        return value
    if isinstance(value, str):
        return replace_surrogates(value)
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    if isinstance(value, Mapping):
        return {replace_surrogates(str(key)): to_plain(cell) for key, cell in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [to_plain(cell) for cell in value]
    if hasattr(value, "tolist"):  # NumPy and PyTorch
        return to_plain(value.tolist())
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return replace_surrogates(str(value))


def to_json(value: Any) -> str:
    """Write a plain value as JSON, Chinese as it is, and dates and infinity as text."""
    with suppress(ValueError):  # JSON has no infinity
        return json.dumps(value, ensure_ascii=False, default=str, allow_nan=False)
    spelled = json.loads(json.dumps(value, default=str), parse_constant=lambda x: str(float(x)))
    return json.dumps(spelled, ensure_ascii=False)
