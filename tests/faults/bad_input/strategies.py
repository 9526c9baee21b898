"""Hypothesis's input for each target: well-formed more often than by mutation."""

import csv
import io
import json
import random
from datetime import timedelta
from typing import Any

from bad_input.mutation import mutate
from bad_input.prepared import BETWEEN
from bad_input.table_seeds import WORDS
from bad_input.target import Target
from hypothesis import strategies as st

Bytes = st.SearchStrategy[bytes]
_odd = st.sampled_from([word.decode("utf-8", "replace") for word in WORDS if len(word) < 400])
_texts = st.text(st.characters(), max_size=12) | _odd  # lone surrogates among them
_names = st.sampled_from(["text", "image", "images", "file_name", "id", "label", "user"]) | _texts
_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | _texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_names, inner, max_size=3),
    max_leaves=6,
)
_records = st.lists(
    st.dictionaries(_names, _values, max_size=5).map(lambda record: {"text": "a"} | record)
    | _values,
    max_size=5,
)
_choices = st.fixed_dictionaries({"choices": st.lists(_values, max_size=3)}) | _values
_results = st.lists(st.fixed_dictionaries({"from_name": _texts, "value": _choices}) | _values)
_tasks = st.lists(
    st.fixed_dictionaries(
        {"data": st.dictionaries(_names, _values, max_size=4)},
        optional={
            "id": _values,
            "annotations": st.lists(st.fixed_dictionaries({"result": _results}), max_size=3),
        },
    )
    | st.dictionaries(_names | st.just("annotation_id"), _choices, max_size=4),
    max_size=5,
)


def strategy(target: Target) -> Bytes:
    """Bytes for a target: generated for it, or mutated good bytes."""
    mutated = st.integers(0, 2**48).map(
        lambda number: mutate(target.seeds(), target.words, random.Random(number))
    )
    made = _MADE.get(target.name)
    return mutated if made is None else made | mutated


def _delimited(mark: str) -> Bytes:
    rows = st.lists(st.lists(_texts, max_size=5), max_size=6)
    codes = st.sampled_from(["utf-8", "utf-8-sig", "gb18030", "utf-16"])

    def table(header: list[str], rows: list[list[str]], code: str) -> bytes:
        stream = io.StringIO()
        csv.writer(stream, delimiter=mark).writerows([header, *rows])
        return stream.getvalue().encode(code, "surrogatepass" if code == "utf-8" else "replace")

    return st.builds(table, st.lists(_names, min_size=1, max_size=5), rows, codes)


def _lines(records: list[Any]) -> bytes:
    return "\n".join(json.dumps(record) for record in records).encode()


def _parquet(columns: dict[str, list[Any]]) -> bytes:
    import pyarrow as pa
    import pyarrow.parquet as pq

    buffer = io.BytesIO()
    pq.write_table(pa.table({"text": ["a", "b"], **columns}), buffer)
    return buffer.getvalue()


def _column(kind: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    return st.lists(st.none() | kind, min_size=2, max_size=2)


_clean = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
_spans = st.timedeltas(timedelta(-30_000), timedelta(30_000))
_columns = st.one_of(
    *map(_column, (_clean, st.binary(max_size=9), st.integers(-(2**63), 2**63 - 1), st.floats())),
    *map(_column, (st.dates(), st.datetimes(), st.times(), _spans, st.booleans())),
    _column(st.lists(_clean, max_size=3)),
    _column(st.lists(st.integers(0, 9), max_size=3)),
    _column(st.fixed_dictionaries({"path": _clean, "bytes": st.none() | st.binary(max_size=4)})),
    _column(st.decimals(-1000, 1000, places=2)),
)
_MADE: dict[str, Bytes] = {
    "tables .csv": _delimited(",") | _delimited(";"),
    "tables .tsv": _delimited("\t"),
    "tables .jsonl": _records.map(_lines),
    "tables .json": st.one_of(_records, _tasks).map(lambda x: json.dumps(x).encode()),
    "tables .parquet": st.dictionaries(
        st.sampled_from(["text", "image", "images", "id", "label"]) | _clean, _columns, max_size=4
    ).map(_parquet),
    "texts": st.builds(
        lambda how, text: how + text.encode("utf-8", "surrogatepass"),
        st.binary(min_size=2, max_size=2),
        st.text(st.characters(), max_size=80) | st.lists(_texts, max_size=12).map("".join),
    ),
    "whole posts": st.builds(
        lambda text, files: BETWEEN.join([text.encode("utf-8", "surrogatepass"), *files]),
        _texts,
        st.lists(st.binary(max_size=40), max_size=3),
    ),
}
