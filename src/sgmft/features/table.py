"""Features from a table of vectors by the posts' ids, in place of an encoder."""

import hashlib
import os
import re
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sgmft.data.posts import Post
from sgmft.data.preprocessing.text import clean_text, get_cleaning, hash_ngrams
from sgmft.data.tables.base import first_line
from sgmft.data.tables.cells import to_text
from sgmft.errors import TEXTS, Message, SgmftError, raising
from sgmft.features.encoders.base import TABLE, Encoded, EncoderInfo, FloatArray, PostFeatures
from sgmft.features.store import FeatureStore, text_column
from sgmft.utils.checksums import short_digest
from sgmft.utils.files import read_json, write_file

WIDTHS = {"text_width": 1, "image_width": 1, "joint_width": 0}  # of `EncoderInfo`; without any
COLUMN = re.compile(r"(text|image|joint)(?:_embedding|_features|_vector|_(\d+))?")
MAX_WIDTH = 65_536  # numbers of one vector
ROWS, BATCH_BYTES = 1024, 64 << 20  # read at once
MAX_NPZ = 4 << 30  # bytes of its arrays, which are in memory together
IDS = "_ids"  # folder beside a store's shards
Found = tuple[str, PostFeatures] | None  # content key, and features
# Vectors (N, D) of each side that has any, NaN where missing; the row of each id; who made them
_Vectors = tuple[dict[str, FloatArray], dict[str, int], str]


class FeaturesTable:
    """An encoder that looks posts up by their ids, and can encode nothing."""

    def __init__(self, info: EncoderInfo, find: Callable[[Post], Found]) -> None:
        self.info, self._find = info, find

    def look_up(self, posts: Sequence[Post]) -> list[tuple[str, PostFeatures] | str]:
        """Return the content key and the features of each post, or why there are none."""
        lost = Message("has no vector in {table}", table=self.info.name.removeprefix(TABLE))
        why = ((x, lost if x.id else "has no id to find it by") for x in posts)
        return [post.error or self._find(post) or reason for post, reason in why]

    def encode_texts(self, *_: Any, **__: Any) -> Encoded:
        """Raise SgmftError, as `encode_images` does."""
        raise SgmftError(TEXTS["nothing but vectors"], vectors=describe_vectors(self.info))

    encode_images = encode_texts


def vectors_info(name: str, widths: Iterable[int], cleaning: str, made_by: str) -> EncoderInfo:
    """Return that of vectors of these widths, of texts, pictures and both; without them 1, 1, 0."""
    text, image, joint = widths
    digest = short_digest(repr(("table", text, image, *[joint] * (joint > 0), cleaning)).encode())
    info = EncoderInfo(name, digest, text, image, False, None, 1, cleaning)
    return replace(info, weights=made_by, has_tokens=False, joint_width=joint)


def describe_vectors(info: EncoderInfo) -> str:
    """Describe the vectors of a table."""
    sides = [(info.text_width, "texts"), (info.image_width, "pictures")]
    sides.append((info.joint_width, "both together"))
    listed = ", ".join(f"{side} ({width})" for width, side in sides if width > 1)
    known, made_by = " and ".join(listed.rsplit(", ", 1)), info.weights and f" by {info.weights}"
    return f"vectors of {known}{made_by} from {info.name.removeprefix(TABLE)}"


def open_features_table(
    path: str, cleaning: str = "light", *, expected: EncoderInfo | None = None, **_: Any
) -> FeaturesTable:
    """Open a table of vectors, or what `sgmft encode` wrote; SgmftError if not as `expected`."""
    if not path and expected is not None:
        raise SgmftError(TEXTS["vectors needed"], vectors=describe_vectors(expected))
    file = Path(path)
    stores = [x for x in (file, *sorted(file.glob("*"))) if (x / "_encoder.json").is_file()]
    fits = file.is_file() and file.suffix.lower() in (".parquet", ".npz")
    if len(stores) > 1 or not (stores or fits):
        raise SgmftError(TEXTS["several stores" if stores else "no vectors"], path=path)
    found = _open_store(stores[0]) if stores else _open_file(file, cleaning, expected)
    if expected is not None:
        pairs = [(getattr(found.info, x), getattr(expected, x), none) for x, none in WIDTHS.items()]
        makers = {"", found.info.weights, expected.weights}
        if len(makers) > 2 or any(x not in (none, y) and y for x, y, none in pairs):
            own = describe_vectors(found.info)
            raise SgmftError(TEXTS["other vectors"], own=own, vectors=describe_vectors(expected))
    return found


def _open_file(path: Path, cleaning: str, expected: EncoderInfo | None) -> FeaturesTable:
    """Open vectors of a file; the posts' own texts, where there are any, add their n-grams."""
    found, rows, made_by = _lay_out(path, path.stat().st_mtime_ns)
    values = {f"{side}_width": vectors for side, vectors in found.items()}
    if expected is not None:  # a side that the model does not know is not read
        values = {side: x for side, x in values.items() if getattr(expected, side) > WIDTHS[side]}
    known = {x: getattr(expected, x, none) for x, none in WIDTHS.items()}
    known |= {side: x.shape[1] for side, x in values.items()}
    info = vectors_info(f"{TABLE}{path.name}", known.values(), cleaning, made_by)
    nothing = np.zeros(1, np.float32)

    def find(post: Post) -> Found:
        row = rows.get(post.id or "", -1)
        every = (values[x][row] if x in values and row >= 0 else None for x in WIDTHS)
        text, image, joint = (None if x is None or np.isnan(x[0]) else x for x in every)
        if joint is not None:  # whoever made it had both; one without a width is not known apart
            text = nothing if text is None and info.text_width == 1 else text
            image = nothing if image is None and info.image_width == 1 else image
        if text is None and image is None:
            return None
        joint = None if text is None or image is None else joint
        words = clean_text(post.text, get_cleaning(cleaning))
        parts = [words.encode(), *(b"" if x is None else x.tobytes() for x in (text, image))]
        parts += [] if joint is None else [joint.tobytes()]
        key = hashlib.sha256(b"".join(hashlib.sha256(x).digest() for x in parts)).hexdigest()[:32]
        ngrams = hash_ngrams(words) if words and text is not None else None
        pictures = None if image is None else image[None]
        return key, PostFeatures(text, None, pictures, None, ngrams, joint)

    return FeaturesTable(info, find)


def _open_store(folder: Path) -> FeaturesTable:
    """Open what `sgmft encode` wrote; n-grams, and tokens if there are, come from it, too."""
    values, bad = read_json(folder / "_encoder.json"), f"{folder} was written by another sgmft"
    with raising(f"{bad}: encode the posts again.", AttributeError, KeyError, TypeError):
        tokens = bool(values.pop("tokens"))
        store = FeatureStore(folder.parent, EncoderInfo(**values), tokens)
        if store.folder.name != folder.name:
            raise KeyError
    name, made_by = f"{TABLE}{folder.name}", store.info.weights or store.info.name
    info = replace(store.info, name=name, weights=made_by, has_tokens=tokens, pinned="")
    keys = _read_ids(folder)

    def find(post: Post) -> Found:
        return next(iter(store.find([keys[post.id]] if post.id in keys else []).items()), None)

    return FeaturesTable(info, find)


def write_ids(folder: Path, keys: Iterable[tuple[str | None, str]]) -> None:
    """Write the content keys of ids beside a store's shards."""
    rows = [(name, key) for name, key in keys if name]
    columns = [text_column(x for x, _ in rows), text_column(x for _, x in rows)]
    sink = pa.BufferOutputStream()
    pq.write_table(pa.Table.from_arrays(columns, ["id", "key"]), sink)
    name = f"part-{short_digest(sink.getvalue())}.parquet"
    write_file(folder / IDS / name, memoryview(sink.getvalue()))


def _read_ids(folder: Path) -> dict[str, str]:
    keys: dict[str, str] = {}
    for path in sorted((folder / IDS).glob("part-*.parquet")):
        with raising(f"{path} is damaged: delete it and encode the posts again.", *_UNREAD):
            columns = pq.ParquetFile(path).read().to_pydict()
            for name, key in zip(columns["id"], columns["key"], strict=True):
                if keys.setdefault(name, key) != key:
                    raise SgmftError(TEXTS["id twice"], folder=folder, id=name)
    if not keys:
        raise SgmftError(f"{folder} holds no ids: encode a table with a column id into it again.")
    return keys


_UNREAD = (ValueError, TypeError, LookupError, EOFError, OSError, MemoryError, pa.ArrowException)


@lru_cache(1)
def _lay_out(path: Path, _: int) -> _Vectors:
    """Read a table once, and copy its vectors to where they can be looked up; else SgmftError."""
    values, rows, start = dict[str, FloatArray](), dict[str, int](), 0
    try:
        count, batches, made_by = (_read_npz if path.suffix == ".npz" else _read_parquet)(path)
        for batch in batches:
            here = slice(start, start + batch.num_rows)
            for side, names in _find_columns(batch.schema).items():
                width = values[side].shape[1] if side in values else 0
                vectors = _vectors(batch.select(names), width, f"{side} vector", start)
                if not width and vectors.shape[1]:
                    values[side] = _new_file(count, vectors.shape[1])
                if side in values:
                    values[side][here] = vectors
            ids = [to_text(x).strip() for x in batch["id"].to_pylist()]
            for row, name in enumerate(ids, start):
                first = rows.setdefault(name, row)
                pairs = ((x[first], x[row]) for x in values.values() if first != row)
                if any(x.tobytes() != y.tobytes() for x, y in pairs) or not name:
                    what = f"the id {name!r} came before with another vector" if name else "no id"
                    raise ValueError(f"row {row + 1}: {what}")
            start = here.stop
    except (zipfile.BadZipFile, *_UNREAD) as error:
        raise SgmftError(TEXTS["bad vectors"], path=path, reason=first_line(error)) from error
    return values, rows, made_by


def _new_file(rows: int, width: int) -> FloatArray:
    """Return an array (rows, width) of NaN in a file without a name; OSError on a full disk."""
    if width > MAX_WIDTH:
        raise ValueError(f"vectors have at most {MAX_WIDTH} numbers, not {width}")
    with tempfile.TemporaryFile() as file:
        os.posix_fallocate(file.fileno(), 0, 4 * rows * width)
        made = np.memmap(file, np.float32, "r+", shape=(rows, width))
    made[:] = np.nan
    return made


def _vectors(batch: Any, width: int, what: str, start: int) -> FloatArray:
    """Return the vectors of a batch, (n, width), or of their own width for 0; NaN if missing."""
    if _is_list(batch.schema.field(0)):
        lengths = np.array(pc.list_value_length(batch[0]).fill_null(0).to_pylist(), np.int64)
        numbers = _floats(batch[0].flatten())
    else:
        lengths = np.full(batch.num_rows, batch.num_columns)
        numbers = np.array([_floats(x) for x in batch.columns]).T
    width = width or int(lengths[lengths > 0][:1].sum())
    vectors = np.full((len(lengths), width), np.nan, np.float32)
    bad, reason = (lengths > 0) & (lengths != width), f"has not {width} numbers as others"
    if not bad.any():
        vectors[lengths > 0] = numbers.reshape(-1, width) if width else 0
        bad, reason = ~np.isfinite(vectors).all(1) & ~np.isnan(vectors).all(1), "is not finite"
    for row in np.flatnonzero(bad)[:1]:
        raise ValueError(f"row {start + row + 1}: the {what} {reason}")
    return vectors


def _is_list(field: Any) -> bool:
    return isinstance(field.type, pa.ListType | pa.LargeListType | pa.FixedSizeListType)


def _floats(column: Any) -> FloatArray:
    numbers = column.cast(pa.float32(), safe=False).fill_null(float("nan"))
    return np.asarray(np.from_dlpack(numbers) if len(numbers) else [], np.float32)


def _find_columns(schema: Any) -> dict[str, list[str]]:
    """Return the columns of each side: one of lists, or numbered ones in order."""
    if "id" not in schema.names or pa.types.is_floating(schema.field("id").type):
        raise ValueError("it needs a column id, of texts or whole numbers")
    matches = [(x, match) for x in schema if (match := COLUMN.fullmatch(x.name))]
    found: dict[str, list[str]] = {}
    for field, match in sorted(matches, key=lambda x: int(x[1][2] or -1)):
        if match[2] or _is_list(field):
            found.setdefault(match[1], []).append(field.name)
    if not found:
        there = ", ".join(schema.names[:20])
        raise ValueError(f"it needs lists in text, image or joint, or text_0, ...; it has {there}")
    numbers = {(match[1], int(match[2])) for _, match in matches if match[2]}
    for side, number in numbers:
        if number > 1 and (side, number - 1) not in numbers:
            raise ValueError(f"{side}_{number} is there, and {side}_{number - 1} is not")
    for names in found.values():
        if len(names) > 1 and any(_is_list(schema.field(x)) for x in names):
            raise ValueError(f"{' and '.join(names[:2])} are vectors of the same; leave one")
    return found


def _read_parquet(path: Path) -> tuple[int, Iterable[Any], str]:
    file = pq.ParquetFile(path)
    columns = ["id", *(x for names in _find_columns(file.schema_arrow).values() for x in names)]
    size = sum(file.metadata.row_group(i).total_byte_size for i in range(file.num_row_groups))
    rows = max(1, min(ROWS, BATCH_BYTES * file.metadata.num_rows // max(1, size)))
    note = (file.schema_arrow.metadata or {}).get(b"encoder", b"")
    batches = file.iter_batches(rows, columns=columns)
    return file.metadata.num_rows, batches, note.decode(errors="replace")


def _read_npz(path: Path) -> tuple[int, Iterable[Any], str]:
    with zipfile.ZipFile(path) as archive:
        if sum(x.file_size for x in archive.infolist()) > MAX_NPZ:
            raise ValueError(f"it is larger than {MAX_NPZ >> 30} GiB; write .parquet")
    with np.load(path, allow_pickle=False) as file:
        arrays = {x: file[x] for x in file.files}
    note, columns = str(arrays.pop("encoder", "")), {}
    for name, x in arrays.items():
        if not COLUMN.fullmatch(name) and x.shape[:1] != arrays["id"].shape[:1]:
            continue  # of something else than posts
        flat = pa.array(x.ravel().tolist() if x.dtype.kind in "US" else x.ravel())
        columns[name] = pa.FixedSizeListArray.from_arrays(flat, x.shape[1]) if x.ndim > 1 else flat
    table = pa.table(columns)
    return table.num_rows, table.to_batches(ROWS), note
