"""Types of columns whose values are only known as they come, and Arrow arrays of such values."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Any

from sgmft.tables.plain import as_json

_MAX_EXACT = 2**53  # larger integers may change when they become doubles


class ColumnTypes:
    """The narrowest types that hold all plain values taken so far.

    A column is boolean, 64-bit integer, double, text, date, time stamp, or a list of one of these;
    text while all its values are null. Where values do not fit together, integers become doubles if
    that loses nothing, and anything else becomes text. Objects, and lists of lists, are text.
    """

    def __init__(self) -> None:
        self._joined: dict[str, Any] = {}
        self._big: set[str] = set()

    def take(self, columns: Mapping[str, Sequence[Any]]) -> None:
        """Widen the types so that they hold these values too."""
        import pyarrow as pa

        for name, values in columns.items():
            if any(map(_is_big, values)):
                self._big.add(name)
            self._joined[name] = _join(self._joined.get(name, pa.null()), _infer(values))

    def join(self, types: Mapping[str, Any]) -> None:
        """Widen the types so that they hold what columns of these Arrow types hold too."""
        import pyarrow as pa

        for name, kind in types.items():
            if pa.types.is_integer(kind):
                self._big.add(name)  # perhaps: nobody has looked
            self._joined[name] = _join(self._joined.get(name, pa.null()), kind)

    @property
    def types(self) -> dict[str, Any]:
        """The Arrow type of each column, in the order in which they came."""
        import pyarrow as pa

        settled = {name: _settled(kind) for name, kind in self._joined.items()}
        return {
            name: pa.string() if name in self._big and _is_double(kind) else kind
            for name, kind in settled.items()
        }


def array_of(values: Sequence[Any], kind: Any) -> Any:
    """Plain values as an Arrow array; in a column of text, what is no text is JSON."""
    import pyarrow as pa

    if pa.types.is_string(kind):
        values = [value if value is None else _text(value) for value in values]
    return pa.array(values, kind)


def _infer(values: Sequence[Any]) -> Any:
    """Give the type of all values, null if there are none, and text if they differ."""
    import pyarrow as pa

    cells = (cell for value in values for cell in _members(value))
    if len({(type(day), getattr(day, "tzinfo", None)) for day in cells if _is_day(day)}) > 1:
        return pa.string()  # Arrow would make them one kind, and drop hours or time zones
    try:
        kind = pa.array(values).type
    except (pa.ArrowException, TypeError, ValueError, OverflowError):
        return pa.string()
    inner = kind.value_type if pa.types.is_list(kind) else kind
    return pa.string() if pa.types.is_nested(inner) else kind


def _join(one: Any, other: Any) -> Any:
    """Give the narrowest type that holds the values of both."""
    import pyarrow as pa

    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    if {one, other} == {pa.int64(), pa.float64()}:
        return pa.float64()
    if pa.types.is_list(one) and pa.types.is_list(other):
        inner = {one.value_type, other.value_type} - {pa.null()}
        return pa.list_(inner.pop()) if len(inner) == 1 else pa.string()
    return pa.string()


def _settled(kind: Any) -> Any:
    """Take text for what has no values yet."""
    import pyarrow as pa

    if pa.types.is_list(kind):
        return pa.list_(_settled(kind.value_type))
    return pa.string() if pa.types.is_null(kind) else kind


def _is_double(kind: Any) -> bool:
    import pyarrow as pa

    inner = kind.value_type if pa.types.is_list(kind) else kind
    return bool(pa.types.is_floating(inner))


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return str(value) if _is_day(value) else as_json(value)


def _is_day(value: Any) -> bool:
    return isinstance(value, date)


def _is_big(value: Any) -> bool:
    return any(isinstance(v, int) and abs(v) > _MAX_EXACT for v in _members(value))


def _members(value: Any) -> Iterator[Any]:
    yield from value if isinstance(value, list) else (value,)
