"""Small good tables of every kind, and tokens that matter to their readers."""

import io
import json
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache
from typing import Any

_CSV = (
    'text,image,id,label,user\n在电影院看电影,a.png,1,Cinema,u1\n"a ""b"", c",a.png|d/b.png,2,,\n',
    'text;images\r\n"two\r\nlines";["a.png", "b.png"]\r\n\r\n家;\r\n',
    "Text , file_name,column 3\na,a.png\nb,c,d,e,f\n",
)
_RECORDS: tuple[dict[str, Any], ...] = (
    {"text": "回家", "image": "a.png", "id": 1, "label": "Home", "user": "u"},
    {"text": "a", "images": ["a.png", "d/b.png", None], "id": "x", "label": ["School"]},
    {"text": 7.0, "image": {"path": "a.png", "bytes": None}, "more": {"a": [1, {"b": 2.5}]}},
    {"text": None, "file_name": "a.png|b.png", "label": True, "day": "2024-01-01"},
)
_TASKS: tuple[dict[str, Any], ...] = (
    {
        "id": 1,
        "data": {"text": "a", "image": "/data/local-files/?d=d/a.png", "row": 1},
        "annotations": [
            {"result": [{"from_name": "place", "value": {"choices": ["Home"]}}]},
            {"was_cancelled": True, "result": []},
        ],
    },
    {
        "id": 2,
        "data": {"text": "b", "images": ["http://x/data/upload/1/b.png"], "id": "p2", "place": "?"},
        "annotations": [
            {"result": [{"from_name": "place", "value": {"choices": ["Work", "Home"]}}]},
            {"result": [{"from_name": "other", "value": {"choices": ["x"]}}]},
        ],
    },
)
_MIN = (
    {"id": 1, "text": "a", "image": "/data/upload/2/a.png", "choice": "Home", "annotation_id": 1},
    {"id": 1, "text": "a", "choice": {"choices": ["Work", "Home"]}, "annotation_id": 2},
    {"id": 2, "text": "b", "choice": {"choices": []}, "annotation_id": 3, "row": 4},
)
WORDS = (
    *(b'"', b'""', b",", b";", b"\t", b"|", b"\n", b"\r", b"\r\n", b"\0", b"\x1b[2J", b" ", b"="),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff", b"\xff", b"\xed\xa0\x80", "。".encode("gb18030")),
    *("\u2028".encode(), "\x85".encode(), "\u202e".encode(), "家\U0001f600".encode()),
    *(b"text", b"image", b"images", b"file_name", b"id", b"label", b"user", b"column 1", b"error"),
    *(b"../", b"/etc/passwd", b"out/secret.png", b"out.png", b"loop.png/x", b"..", b"."),
    *(b"http://x.cn/", b"data:,", b"file:///", b"C:\\", b"\\..\\", b"~", b"%00", b"%2e%2e/"),
    *(b"/data/local-files/?d=", b"/data/upload/1/", b"s3://b/data/upload/"),
    *(b"[", b"]", b"{", b"}", b":", b"null", b"true", b"NaN", b"-Infinity", b"1e999", b"-0.0"),
    *(
        rb"\ud800",
        rb"\udc00",
        rb"\u0000",
        rb"\n",
        b"9" * 30,
        b"9" * 4400,
        b"[" * 400,
        b'{"a":' * 400,
    ),
    *(
        b'"data":{',
        b'"annotations":[',
        b'"result":[',
        b'"value":{"choices":[',
        b'"annotation_id":1',
    ),
    *(b"a" * 300, b"d/" * 2100, b"annotation_id,annotator,lead_time"),
)


@cache
def seeds(suffix: str) -> list[bytes]:
    """Tables as bytes, for files that end in `suffix`."""
    if suffix == ".parquet":
        return _parquet()
    if suffix == ".jsonl":
        return [_lines(_RECORDS), _lines(_RECORDS[:2]) + b"\n\n[1]\n{", _deep(b"\n", b"")]
    if suffix == ".json":
        lists = [list(_RECORDS), [*_TASKS, _TASKS[0]], list(_MIN), _RECORDS[0], [1, "a", None, {}]]
        texts = [json.dumps(x, ensure_ascii=False).encode() for x in lists]
        return [*texts, _deep(b",", b"[") + b"]"]
    texts = [x.replace(",", "\t") if suffix == ".tsv" else x for x in _CSV]
    return [
        *(text.encode() for text in texts),
        *(texts[0].encode(code) for code in ("utf-8-sig", "gb18030", "utf-16")),
        *(text.encode() + "家".encode()[:2] + text.encode() for text in texts[:1]),
    ]


def _lines(records: tuple[dict[str, Any], ...]) -> bytes:
    return b"\n".join(json.dumps(x, ensure_ascii=False).encode() for x in records)


def _deep(between: bytes, before: bytes) -> bytes:
    """Records with lists in lists, as many as one may and more."""
    deep = (b'{"text":"a","x":' + b"[" * n + b"]" * n + b"}" for n in (60, 200, 480, 900, 2000))
    return before + between.join(deep)


def _parquet() -> list[bytes]:
    import pyarrow as pa

    when = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    columns: dict[str, Any] = {
        "text": ["a", None, "家", "d"],
        "image": [["a.png", "b.png"], [], None, ["c.png"]],
        "id": [7.0, 8.5, None, float("nan")],
        "label": [True, None, False, True],
    }
    odd: dict[str, Any] = {
        "text": ["a", "b"],
        "image": [{"bytes": None, "path": "a.png"}, {"bytes": b"x", "path": None}],
        "day": [date(2024, 1, 1), None],
        "when": [when, when],
        "cost": [Decimal("1.50"), None],
        "raw": [b"\xff", b"text"],
    }
    kinds = {
        "text": pa.array(["a", "b", "a"]).dictionary_encode(),
        "ns": pa.array([1, 2**60, None], pa.timestamp("ns", "UTC")),
        "long": pa.array([2**62, -(2**62), 0], pa.duration("s")),
        "map": pa.array([[("k", 1)], [], None], pa.map_(pa.string(), pa.int64())),
        "half": pa.array([1, 2, 3], pa.uint64()),
        "time": pa.array([1, 2, 3], pa.time64("us")),
    }
    tables = [pa.table(columns), pa.table(odd), pa.table(kinds), pa.table({"text": ["a"] * 50})]
    return [_file(table, code) for table in tables for code in ("NONE", "SNAPPY")] + [
        _file(tables[0], code) for code in ("ZSTD", "GZIP", "LZ4", "BROTLI")
    ]


def _file(table: Any, compression: str) -> bytes:
    import pyarrow.parquet

    buffer = io.BytesIO()
    pyarrow.parquet.write_table(table, buffer, compression=compression)
    return buffer.getvalue()
