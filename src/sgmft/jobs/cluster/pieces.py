"""A job on tables as pieces that can be done anywhere, in any order, and more than once.

Its result may be a folder of Parquet shards, one for each piece: that of piece 17 of table 2 is
`part-00002-000017-<digest>.parquet`, so that names in order are the input's rows in order. The
digest is that of its bytes, so damage is seen; its footer names the job that wrote it and has the
summary of its rows. `_job.json` describes the job.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple

from sgmft.data.posts import Post
from sgmft.data.source import JobSummary, Source
from sgmft.data.tables.cells import to_plain
from sgmft.data.tables.formats import find_format, open_table
from sgmft.errors import TEXTS, SgmftError
from sgmft.models.registry import LOADED
from sgmft.utils.checksums import digest_of, short_digest
from sgmft.utils.files import leftovers, read_json, set_aside, write_file, write_json, writing

ROWS = 1024  # of a piece; a multiple of `sgmft.features.encode.CHUNK`
PieceId = tuple[int, int]  # index of the table in the job, index of the piece in the table
JOB, DONE = "_job.json", "_done.json"
READ_ROWS = 4096  # whose types are looked at together
_NAME = re.compile(r"part-(\d{5,})-(\d{6,})-([0-9a-f]{16})\.parquet")
_MARK = b"sgmft"  # key of the footer's metadata


class Piece(NamedTuple):
    """Consecutive posts of one table."""

    id: PieceId
    posts: Iterable[Post]  # a list, but for a table that is not cut


Work = Callable[[Piece], Iterator[JobSummary]]


@dataclass(frozen=True)
class PieceTask:
    """A job as engines see it; it can be sent to other machines."""

    sources: list[Source]  # tables
    folder: Path  # where results go; a shared one, where several machines work
    rows: int  # of a piece; 0 leaves the tables whole
    load: Callable[[], Any]  # returns what the work needs
    # with that and its table; done twice, a piece leaves what it leaves done once
    work: Callable[[Any, Source, Piece], Iterator[JobSummary]]
    finished: frozenset[PieceId] = frozenset()  # pieces that are done
    loaded: Any = None  # what the work needs, in this process
    plugins: tuple[str, ...] = field(default_factory=lambda: tuple(LOADED))  # loaded first

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"loaded": None}

    def pieces(self, table: int) -> Iterator[Piece]:
        """Yield the pieces of one table that are still to be done, in order."""
        posts = self.sources[table].iter_posts()
        if not self.rows:
            yield Piece((table, 0), posts)
            return
        number = 0
        while part := list(islice(posts, self.rows)):
            if (table, number) not in self.finished:
                yield Piece((table, number), part)
            number += 1

    def start(self) -> Work:
        """Load what the work needs, once in each process; return what does a piece."""
        loaded = self.loaded or self.load()
        return lambda piece: self.work(loaded, self.sources[piece.id[0]], piece)


Engine = Callable[[PieceTask], Iterator[JobSummary]]  # does all pieces


def run_here(task: PieceTask) -> Iterator[JobSummary]:
    """Do all pieces in this process, in order: the engine by default."""
    work: Work | None = None
    for table in range(len(task.sources)):
        for piece in task.pieces(table):
            work = work or task.start()
            yield from work(piece)


def add_up(found: Iterable[JobSummary], on_done: Callable[[int], object]) -> JobSummary:
    """Return the sum of summaries; `on_done` is called with the number of posts so far."""
    total = JobSummary()
    for summary in found:
        total += summary
        on_done(total.posts)
    return total


def single_tables(source: Source) -> list[Source]:
    """Return the tables of a source by absolute paths; SgmftError where it is a stream."""
    if source.table == "-":
        raise SgmftError("Standard input is read once only, not in pieces: save it as a file.")
    folder = Path(source.table).absolute()
    base = folder if folder.is_dir() else source.base
    return [replace(source, table=str(Path(x).absolute()), base=base) for x in source.tables()]


class Shards:
    """The folder of one job, which decides every row: a sink, of columns of these Arrow types."""

    def __init__(self, folder: str | Path, job: dict[str, Any], types: dict[str, Any]) -> None:
        self.folder = Path(folder).absolute()
        self._job = json.loads(json.dumps(job))
        self._digest = digest_of(self._job)
        self._types = types

    def begin(self) -> None:
        """Make the folder, or continue in it; SgmftError where it holds anything else."""
        described = self.folder / JOB
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            if described.is_file():
                self._compare(read_json(described))
                for left in leftovers(self.folder):
                    left.unlink(missing_ok=True)
                return
            if any(not file.name.startswith(".") for file in self.folder.iterdir()):
                raise SgmftError(f"{self.folder} holds other files: choose a new folder.")
            write_json(described, self._job, indent=2)

    def _compare(self, earlier: Any) -> None:
        if not isinstance(earlier, dict):
            raise SgmftError(TEXTS["damaged job"], path=self.folder / JOB)
        names = dict.fromkeys([*self._job, *earlier])
        if changed := [name for name in names if earlier.get(name) != self._job.get(name)]:
            raise SgmftError(TEXTS["other job"], folder=self.folder, names=", ".join(changed))

    def finished(self) -> dict[PieceId, JobSummary]:
        """Return the summary of each whole shard, and set others aside; of twins one is removed."""
        found: dict[PieceId, JobSummary] = {}
        for path in sorted(self.folder.glob("part-*.parquet")):
            match = _NAME.fullmatch(path.name)
            summary = _read_summary(path, self._digest, match[3]) if match else None
            if match is None or summary is None:
                aside = path.with_name(f"_damaged-{path.name}")
                set_aside(path, aside, "shard", "it is written again")
                continue
            if (piece := (int(match[1]), int(match[2]))) in found:
                path.unlink()
            found.setdefault(piece, summary)
        return found

    def write(self, piece: PieceId, rows: Sequence[Mapping[str, Any]], summary: JobSummary) -> None:
        """Write the shard of one piece."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        from sgmft.data.tables.parquet import to_arrow

        mark = json.dumps({"job": self._digest, **asdict(summary)}, ensure_ascii=False)
        cells = {name: [to_plain(row.get(name)) for row in rows] for name in self._types}
        arrays = [to_arrow(cells[name], kind) for name, kind in self._types.items()]
        schema = pa.schema(list(self._types.items()), {_MARK: mark.encode()})
        sink = pa.BufferOutputStream()
        pq.write_table(pa.table(arrays, schema=schema), sink)
        data = sink.getvalue()
        path = self.folder / f"part-{piece[0]:05d}-{piece[1]:06d}-{short_digest(data)}.parquet"
        write_file(path, data)

    def end(self, posts: int) -> JobSummary:
        """Mark the job as done and return the summary of all rows, if all `posts` are whole."""
        total = sum(self.finished().values(), JobSummary())
        if (whole := total.posts) < posts:
            raise SgmftError(TEXTS["lost shards"], folder=self.folder, posts=posts, whole=whole)
        write_json(self.folder / DONE, asdict(total), indent=2)
        return total


def _read_summary(path: Path, job: str, digest: str) -> JobSummary | None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        if short_digest(data := path.read_bytes()) != digest:
            return None
        mark = json.loads(pq.read_schema(pa.BufferReader(data)).metadata[_MARK])
        return JobSummary(**mark) if mark.pop("job") == job else None
    except (OSError, pa.ArrowException, ValueError, LookupError, TypeError):
        return None


def input_types(sources: Sequence[Source]) -> dict[str, Any]:
    """Return the Arrow type of every column of any table, as declared or from all its rows."""
    from sgmft.data.tables.parquet import ColumnTypes  # Arrow, which takes long to load

    seen = ColumnTypes()
    for source in sources:
        table_format, raw = find_format(source.table), open_table(source.table, source.format)
        if raw.tool is None and table_format and table_format.column_types is not None:
            seen.join(table_format.column_types(Path(source.table)))
            continue
        seen.update({name: [] for name in raw.columns or ()})
        rows = (row.values for row in raw.rows)
        while part := list(islice(rows, READ_ROWS)):
            names = dict.fromkeys(name for row in part for name in row)
            seen.update({name: [to_plain(row.get(name)) for row in part] for name in names})
    return seen.types
