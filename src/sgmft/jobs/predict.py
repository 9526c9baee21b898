"""Predict tables of posts: source to predictor to sink, in this process or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import chain, islice
from pathlib import Path
from typing import Any

from sgmft.data.posts import Post, raise_first_error
from sgmft.data.source import Source
from sgmft.data.summary import JobSummary
from sgmft.data.tables import open_writer
from sgmft.errors import SgmftError
from sgmft.jobs.cluster.pieces import (
    ROWS,
    Engine,
    Piece,
    PieceId,
    Work,
    add_up,
    cut,
    run_here,
    single_tables,
)
from sgmft.jobs.cluster.shards import Shards, input_types, output_types
from sgmft.jobs.output_columns import OutputColumns, columns_of
from sgmft.locator.abstention import Abstention
from sgmft.locator.loading import load_predictor
from sgmft.locator.prediction import Predictor, SupportsPredictions, summarize
from sgmft.utils.checksums import digest_of, file_digests

WRITE_ROWS = 256  # of one file, written together
Sink = Callable[[PieceId, Sequence[Mapping[str, Any]], JobSummary], None]  # writes rows of a piece


@dataclass(frozen=True)
class ModelFolder:
    """A model by its folder, and how to load it; see `sgmft.locator.loading.load_predictor`."""

    folder: str
    runtime: str | None = None
    features: Path | None = None
    device: str | None = None

    def load(self) -> Predictor:
        """Load the model; its files are checked against their digests."""
        return load_predictor(self.folder, self.runtime, self.features, self.device)

    def digest(self) -> str:
        """Return a digest of the folder's files; of a hub repository, of its name."""
        folder = Path(self.folder)
        if not folder.is_dir():
            return digest_of({"name": self.folder})
        files = (x for x in folder.iterdir() if x.name != "README.md" and x.name[0] != ".")
        return digest_of(file_digests(files))


@dataclass(frozen=True)
class PredictTask:
    """A `PieceTask`: predict what has not been predicted yet."""

    sources: list[Source]
    model: ModelFolder | None  # where other machines load the model from
    rules: Abstention
    columns: OutputColumns
    sink: Sink  # where rows go
    rows: int  # written together; of a piece, but for a stream
    folder: Path  # where results go
    finished: frozenset[PieceId] = field(default_factory=frozenset)  # pieces that are done
    stream: Iterable[Post] | None = None  # posts that are not cut into pieces
    predictor: SupportsPredictions | None = None  # loaded; it is not sent to other machines

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"predictor": None}

    def pieces(self, table: int) -> Iterator[Piece]:
        """Yield the pieces of one table that are not finished, in order."""
        if self.stream is not None:
            yield Piece((table, 0), self.stream)
            return
        for piece in cut(self.sources[table], table, self.rows):
            if piece.id not in self.finished:
                yield piece

    def start(self) -> Work:
        """Load the model, where it is not."""
        predictor = self.predictor
        if predictor is None:
            assert self.model is not None
            predictor = self.model.load()

        def work(piece: Piece) -> Iterator[JobSummary]:
            predictions = predictor.predictions(piece.posts, self.rules)
            while part := list(islice(predictions, self.rows)):
                if self.sources[piece.id[0]].strict:
                    raise_first_error([prediction.post for prediction in part])
                summary = summarize(part)
                rows = [self.columns.row(prediction) for prediction in part]
                self.sink(piece.id, rows, summary)
                yield summary

        return work


def predict_table(
    source: Source,
    output: str | Path,
    model: ModelFolder | SupportsPredictions,
    *,
    abstain: Abstention | None = None,
    adapt: Callable[[Iterable[Post]], object] | None = None,
    shard_rows: int | None = None,
    engine: Engine = run_here,
    on_predicted: Callable[[int], None] | None = None,
) -> JobSummary:
    """Write tables again with a label for each row, in order and in constant memory.

    The input's columns stay as they are; added are `label`, `probability`, `p_<label>` for each
    label, and `error`, the reason of a row that cannot be used. With `abstain` there are also
    `abstained`, the reason of a row that could be used and has no label, and what the rules look
    at: `set`, the prediction set, and `typicality`. An input column of one of these names is kept
    as `input_<name>`, or `input_input_<name>` where that is taken.

    An output without a suffix is a folder of Parquet shards, whose columns have one type in all of
    them. A job that was stopped continues there: shards that are there are kept.

    Args:
        source: one table, a folder of them, or a stream, which shards cannot be made of.
        output: a table, "-" for standard output, or a folder of shards: a new one, or one in which
            the same job was stopped.
        model: for shards a `ModelFolder`, which is loaded wherever pieces are done.
        abstain: rules under which a row has no label.
        adapt: called first with all posts of the table.
        shard_rows: of one shard, at most; 1024 by default.
        engine: does the pieces of shards: `run_here`, or one of `sgmft.jobs.cluster.ray`.
        on_predicted: called with the number of posts done so far.

    Raises:
        SgmftError: a table or the model cannot be read, `output` is the table itself, cannot be
            written or holds something else, or shards were damaged while others were written; with
            `source.strict`, for the first bad row.
    """
    rules = abstain or Abstention()
    if isinstance(model, ModelFolder) and is_shards(output):
        return _predict_shards(
            source, output, model, rules, shard_rows or ROWS, engine, on_predicted
        )
    if shard_rows or engine is not run_here:
        raise SgmftError(f"{output} is one file: for shards, give the name of a folder.")
    predictor = model.load() if isinstance(model, ModelFolder) else model
    source.refuse_overwriting(output)
    if str(source.table) == "-":  # a stream is read once: its columns are known at its end
        posts: Iterable[Post] = source.read_posts()
        names: Iterable[str] = (name for post in posts for name in post.row)
    else:
        posts = source.iter_posts()
        names = columns_of(source.table)
    if adapt:
        adapt(posts if isinstance(posts, list) else source.iter_posts())
    columns = OutputColumns.of(names, predictor.labels, rules)
    with open_writer(output, columns.columns) as writer:
        task = PredictTask(
            [source],
            None,
            rules,
            columns,
            lambda piece, rows, summary: writer.write(rows),
            WRITE_ROWS,
            Path(),
            stream=posts,
            predictor=predictor,
        )
        return add_up(run_here(task), on_predicted)


def is_shards(output: str | Path) -> bool:
    """Return whether an output is a folder of shards: whether its name has no suffix."""
    return str(output) != "-" and not Path(output).suffix


def _predict_shards(
    source: Source,
    output: str | Path,
    model: ModelFolder,
    rules: Abstention,
    rows: int,
    engine: Engine,
    on_predicted: Callable[[int], None] | None,
) -> JobSummary:
    sources = single_tables(source)
    predictor = model.load()
    predictor.held_out.check(rules)
    types = input_types([one.table for one in sources])
    columns = OutputColumns.of(types, predictor.labels, rules)
    files = [Path(one.table) for one in sources]
    job = {
        "model": model.digest(),
        "tables": [[x.name, x.stat().st_size, x.stat().st_mtime_ns] for x in files],
        "columns": {k: v for k, v in asdict(source.columns).items() if v is not None},
        "where": dict(source.where),
        "allow_outside": source.allow_outside,
        "rules": asdict(rules),
        "rows": rows,
    }
    shards = Shards(output, job, output_types(columns, types))
    shards.begin()
    finished = shards.finished()
    task = PredictTask(
        sources,
        model,
        rules,
        columns,
        shards.write,
        rows,
        shards.folder,
        frozenset(finished),
        predictor=predictor,
    )
    total = add_up(chain(finished.values(), engine(task)), on_predicted)
    return shards.end(total.posts)
