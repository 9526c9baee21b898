"""Values of any origin as the few kinds every table format knows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from datetime import date
from typing import Any

from sgmft.tables.values import mend


def plain(value: Any) -> Any:
    """Turn a value into None, bool, int, float, str, date, datetime, or lists and dicts of these.

    NaN becomes None, arrays become lists, a lone surrogate U+FFFD, and whatever is left (paths,
    decimals) its text; of bytes those that are no UTF-8 are written as in \\xff.
    """
    if value is None or isinstance(value, (bool, int, date)):
        return value
    if isinstance(value, str):
        return mend(value)
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    if isinstance(value, Mapping):
        return {mend(str(key)): plain(cell) for key, cell in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(cell) for cell in value]
    if hasattr(value, "tolist"):  # NumPy and PyTorch
        return plain(value.tolist())
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    return mend(str(value))


def as_json(value: Any) -> str:
    """Write a plain value as JSON, Chinese as it is, and dates and infinity as text."""
    try:
        return json.dumps(value, ensure_ascii=False, default=str, allow_nan=False)
    except ValueError:  # JSON has no word for infinity
        return json.dumps(_told(value), ensure_ascii=False, default=str)


def _told(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _told(cell) for key, cell in value.items()}
    if isinstance(value, list):
        return [_told(cell) for cell in value]
    return str(value) if isinstance(value, float) and math.isinf(value) else value
