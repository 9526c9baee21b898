"""Tables: any bytes are posts, each row with its reason if it is bad, or one sentence.

Rows that were read are written again in one of the formats, and keep their values.
"""

import atexit
import csv
import io
import json
import math
import re
import shutil
import sqlite3
import tempfile
import zipfile
import zlib
from collections import Counter
from datetime import UTC, date, datetime
from decimal import Decimal
from functools import cache, partial
from itertools import islice
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from bad_input.target import Outcome, Target, one_line, promise, watched
from openpyxl import Workbook

from sgmft.data.posts import Attachment
from sgmft.data.tables import iter_posts, open_table, open_writer
from sgmft.data.tables.cells import to_json, to_plain
from sgmft.data.tables.columns import NAMES, find_header, fold_name
from sgmft.errors import SgmftError

MOST = 2000  # posts of one table: a few bytes of Parquet may say that there are a billion


@cache
def table_folder():
    """Return the folder of this process, which is removed at its end."""
    outer = Path(tempfile.mkdtemp(prefix="sgmft-bad-input-")).resolve()
    atexit.register(shutil.rmtree, outer, ignore_errors=True)
    folder = outer / "posts"
    folder.mkdir()
    (outer / "secret.png").write_bytes(b"secret")
    (folder / "a.png").write_bytes(b"a picture")
    (folder / "out").symlink_to(outer)
    (folder / "out.png").symlink_to(outer / "secret.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    return folder


def check_table(data, suffix):
    """Read `data` as a table of that kind, hold the posts against it, and write them again."""
    folder = table_folder()
    path = folder / f"posts{suffix}"
    path.write_bytes(data)
    with watched(folder):
        try:
            posts = list(islice(iter_posts(path), MOST))
        except SgmftError as error:
            message = str(error).replace(f"{folder}/", "")
            promise(path.name in message, f"a message names no file: {message!r}")
            return Outcome(refused=Counter([one_line(message)]))
    refused = Counter()
    for post in posts:
        check_post(post, folder)
        if post.error is not None:
            refused[one_line(post.error)] += 1
    if len(posts) < MOST:
        _COUNTS.get(suffix, lambda *_: None)(data, posts)
    if posts:  # JSON lines without a line are no table
        written_and_read([post.row for post in posts[:50]], data, folder)
    return Outcome(len(posts) - sum(refused.values()), refused)


def check_post(post, folder):
    for text in (post.text, post.id or "", post.label or "", post.user or ""):
        text.encode()  # nothing behind a table need fear a lone surrogate
    promise(post.place.isprintable(), f"a place is no printable line: {post.place!r}")
    promise(
        bool(post.error or post.text.strip() or post.images), "a good post has nothing to go on"
    )
    for file in post.images:
        inside = isinstance(file, Attachment) or _is_inside(Path(file), folder)
        promise(inside, f"a picture lies outside the folder: {file}")


def _is_inside(file, folder):
    """Whether whoever opens the file would open one below the folder, or none at all."""
    try:
        return file.resolve().is_relative_to(folder)
    except (OSError, RuntimeError, ValueError):  # a name too long, a link to itself, a NUL
        return True


def _count_lines(data, posts):
    """JSON lines: a post for each line that is not blank, or several for one that is a page."""
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return
    text = data.decode("utf-8-sig", "surrogateescape")
    if text.lstrip()[:1] == "[":  # a list of records, as some name it
        return
    lines = [line for line in re.split("\r\n|\r|\n", text) if line and not line.isspace()]
    if len(posts) == _count_objects(text):  # of which some take several lines
        return
    fits = len(posts) >= len(lines) if "[{" in text or "[ {" in text else len(posts) == len(lines)
    promise(fits, f"{len(lines)} lines gave {len(posts)} posts")


def _count_objects(text):
    """Count the JSON values that stand one after another; None where there is anything else."""
    decoder, count, text = json.JSONDecoder(strict=False), 0, text.strip()
    while text:
        try:
            _, end = decoder.raw_decode(text)
        except (ValueError, RecursionError):
            return None
        count, text = count + 1, text[end:].strip()
    return count


def _count_cells(data, posts, marks=",;\t|"):
    """Delimited text: every cell of every record but the header stands in the row of its post."""
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError:
        return
    if data.startswith((b"\xff\xfe", b"\xfe\xff")):
        return
    found = [[x for x in post.row.values() if x] for post in posts]
    for mark in marks:
        records = [x for x in csv.reader(io.StringIO(text, newline=""), delimiter=mark) if x]
        bare = [[cell.strip("\ufeff ") for cell in record] for record in records]
        # rows above the one that names columns of posts are a title
        top, _ = find_header(enumerate(records))
        below = zip(records[top + 1 :], bare[top + 1 :], strict=True)
        kept = [x for x, y in below if not _is_header(y, bare[top])]
        if found == [[cell for cell in record if cell] for record in kept]:
            return
    promise(False, f"not all cells came back: {found!r:.300} of {text!r:.300}")


def _is_header(record, first):
    """Whether it repeats the header, or is another one: usual names of columns, most of them."""
    names, known = ([fold_name(x) for x in cells if x] for cells in (record, first))
    if any(x[:1].isdigit() and x not in first for x in record):  # an id or a day: a post
        return False
    record, first = ([fold_name(x) for x in cells] for cells in (record, first))
    known = sum(x in {*known, *NAMES} and not x.isdecimal() for x in names)
    most = (
        max(map(len, record), default=0) < 100
        and known > 1
        and 2 * known > len(names) == len({*names})
    )
    return most or ([x for x in record if x] == first and record[:1] == first[:1])


FORMATS = (".csv", ".tsv", ".jsonl", ".parquet")


def written_and_read(rows, data, folder):
    """Write rows in a format that depends on `data`, read that, and compare."""
    columns = list(dict.fromkeys([*(name for row in rows for name in row), "error"]))
    suffix = FORMATS[zlib.crc32(data) % len(FORMATS)]
    path = folder / f"again{suffix}"
    # one whose cells are names of columns is another header, and left out with a warning
    cells = [[_as_text(to_plain(x)) for x in row.values() if x] for row in rows]
    given = [x for x, y in zip(rows, cells, strict=True) if not y or not _is_header(y, columns)]
    if not given or find_header(enumerate([columns, *cells]))[0]:  # a row is rather a header
        return
    with watched(folder):
        with open_writer(path, columns) as writer:
            writer.write(given)
        read = [row.values for row in open_table(path).rows]
    promise(len(read) == len(given), f"{suffix}: {len(given)} rows were written, {len(read)} read")
    for before, after in zip(given, read, strict=True):
        promise(len(after) == len(columns), f"{suffix}: {len(columns)} columns, {len(after)} read")
        for name, cell in zip(columns, after.values(), strict=True):
            held = to_plain(before.get(name))
            promise(
                _same(held, cell, suffix), f"{suffix}: {name!r} was {held!r:.200}, is {cell!r:.200}"
            )


def _same(held, read, suffix):
    if suffix in (".csv", ".tsv"):
        return (read or "") == ("" if held is None else _as_text(held))
    if suffix == ".jsonl":
        return to_json(read) == to_json(held)
    return read == held or read == _as_text(held) or _is_same_number(held, read)


def _as_text(value):
    if isinstance(value, (bool, list, dict)):
        return to_json(value)
    return value if isinstance(value, str) else str(value)


def _is_same_number(held, read):
    if isinstance(held, list) and isinstance(read, list) and len(held) == len(read):
        return all(x == y or _is_same_number(x, y) for x, y in zip(held, read, strict=True))
    numbers = isinstance(held, (int, float)) and isinstance(read, (int, float))
    return bool(numbers and math.isclose(held, read, rel_tol=0))


_CSV = (
    'text,image,id,label,user\n在电影院看电影,a.png,1,Cinema,u1\n"a ""b"", c",a.png|d/b.png,2,,\n',
    'text;images\r\n"two\r\nlines";["a.png", "b.png"]\r\n\r\n家;\r\n',
    "Text , file_name,column 3\na,a.png\nb,c,d,e,f\n",
)
_RECORDS = (
    {"text": "回家", "image": "a.png", "id": 1, "label": "Home", "user": "u"},
    {"text": "a", "images": ["a.png", "d/b.png", None], "id": "x", "label": ["School"]},
    {"text": 7.0, "image": {"path": "a.png", "bytes": None}, "more": {"a": [1, {"b": 2.5}]}},
    {"text": None, "file_name": "a.png|b.png", "label": True, "day": "2024-01-01"},
)
_TASKS = (
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
    *(rb"\ud800", rb"\udc00", rb"\u0000", rb"\n", b"9" * 30, b"9" * 4400, b"[" * 400),
    *(b'{"a":' * 400, b'"data":{', b'"annotations":[', b'"result":[', b'"value":{"choices":['),
    *(b'"annotation_id":1', b"a" * 300, b"d/" * 2100, b"annotation_id,annotator,lead_time"),
)


@cache
def seeds(suffix):
    """Tables as bytes, for files that end in `suffix`."""
    if suffix == ".parquet":
        return _parquet()
    if suffix == ".xlsx":
        return [_workbook(zipfile.ZIP_STORED), _workbook(zipfile.ZIP_DEFLATED)]
    if suffix == ".db":
        return [_database(1024), _database(4096)]
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


def _workbook(compression):
    book = Workbook()
    for row in (["a title"], ["text", "image", "id"], ["家", "a.png", "1"], ["b", 2.5, None]):
        book.active.append(row)
    book.create_sheet("more").append(["images", "text"])
    whole, again = io.BytesIO(), io.BytesIO()
    book.save(whole)
    with zipfile.ZipFile(whole) as old, zipfile.ZipFile(again, "w", compression) as new:
        for name in old.namelist():
            new.writestr(name, old.read(name))
    return again.getvalue()


def _database(page):
    database = sqlite3.connect(":memory:")
    database.execute(f"PRAGMA page_size = {page}")
    database.execute("CREATE TABLE posts (id INTEGER PRIMARY KEY, content TEXT, image BLOB)")
    rows = [(i, "家" * i, b"x" * 40 * i if i % 2 else "a.png") for i in range(60)]
    database.executemany("INSERT INTO posts VALUES (?, ?, ?)", rows)
    database.execute("CREATE TABLE users (name TEXT)")
    database.execute("CREATE INDEX of_posts ON posts (content)")
    database.commit()
    return database.serialize()


def _lines(records):
    return b"\n".join(json.dumps(x, ensure_ascii=False).encode() for x in records)


def _deep(between, before):
    """Records with lists in lists, as many as one may and more."""
    deep = (b'{"text":"a","x":' + b"[" * n + b"]" * n + b"}" for n in (60, 200, 480, 900, 2000))
    return before + between.join(deep)


def _parquet():
    when = datetime(2024, 1, 2, 3, 4, 5, tzinfo=UTC)
    columns = {
        "text": ["a", None, "家", "d"],
        "image": [["a.png", "b.png"], [], None, ["c.png"]],
        "id": [7.0, 8.5, None, float("nan")],
        "label": [True, None, False, True],
    }
    odd = {
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


def _file(table, compression):
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression=compression)
    return buffer.getvalue()


_COUNTS = {".csv": _count_cells, ".tsv": _count_cells, ".jsonl": _count_lines}

TABLES = [
    Target(f"tables {suffix}", partial(check_table, suffix=suffix), partial(seeds, suffix), WORDS)
    for suffix in (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".xlsx", ".db")
]
