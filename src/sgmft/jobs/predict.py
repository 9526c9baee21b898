"""Predict tables of posts: source to predictor to sink, in this process or on a cluster."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import Any

from sgmft.data.posts import Post, raise_first_error
from sgmft.data.source import JobSummary, Source
from sgmft.data.tables import open_writer
from sgmft.data.tables.formats import table_file
from sgmft.errors import SgmftError
from sgmft.features.encoders.base import TABLE
from sgmft.jobs.cluster import pieces
from sgmft.locator import drift
from sgmft.locator.abstention import Abstention
from sgmft.locator.loading import load_predictor
from sgmft.locator.prediction import OutputColumns, Prediction, Predictor, SupportsPredictions
from sgmft.utils.checksums import digest_of, file_digests


@dataclass(frozen=True)
class ModelFolder:
    """A model by its folder, and how to load it; see `sgmft.locator.loading.load_predictor`."""

    folder: str
    runtime: str | None = None
    features: Path | None = None
    device: str | None = None
    encoder: str | None = None  # in place of its own, as a table of vectors

    def load(self) -> Predictor:
        """Load the model; its files are checked against their digests."""
        if self.encoder is None:
            return load_predictor(self.folder, self.runtime, self.features, self.device)
        from sgmft.locator.locator import SemanticLocator

        own: Any = {"features": self.features, "device": self.device, "encoder": self.encoder}
        return SemanticLocator.from_pretrained(self.folder, **own)

    def digest(self) -> str:
        """Return a digest of the folder's files; of a hub repository, of its name."""
        if not (folder := Path(self.folder)).is_dir():
            return digest_of({"name": self.folder})
        files = (x for x in folder.iterdir() if x.name != "README.md" and x.name[0] != ".")
        return digest_of(file_digests(files))


def predict_table(
    source: Source,
    output: str | Path,
    model: ModelFolder | SupportsPredictions,
    abstain: Abstention | None = None,
    adapt: Iterable[Callable[[Iterable[Post]], object]] = (),  # called first, each with all posts
    shard_rows: int | None = None,  # of one shard, at most; 1024 by default
    engine: pieces.Engine = pieces.run_here,  # does the pieces of shards
    on_predicted: Callable[[int], object] = lambda done: None,
) -> JobSummary:
    """Write tables again with a label for each row, in order and in constant memory.

    The input's columns stay as they are; what is added is listed by `OutputColumns.of`.
    An output without a suffix is a folder of Parquet shards, whose columns have one type in all of
    them. A job that was stopped continues there: shards that are there are kept. They cannot be
    made of a stream, and need a `ModelFolder`, which is loaded wherever pieces are done.
    """
    rules = abstain or Abstention()
    if isinstance(model, ModelFolder) and is_shards(output):
        shards, finished, task = _open_shards(source, output, model, rules, shard_rows)
        total = pieces.add_up(chain(finished, engine(task)), on_predicted)
        drift.warn_of_shifts(task.loaded.traits, total.traits)
        return shards.end(total.posts)
    if shard_rows or engine is not pieces.run_here:
        raise SgmftError(f"{output} is one file: for shards, give the name of a folder.")
    predictor = model.load() if isinstance(model, ModelFolder) else model
    source.refuse_overwriting(output)
    if str(source.table) == "-":  # a stream is read once: its columns are known at its end
        posts: Iterable[Post] = source.read_posts()
        names: Iterable[str] = (name for post in posts for name in post.row)
    else:
        posts = source.iter_posts()
        names = source.columns_seen()
    columns = OutputColumns.of(names, predictor.labels, rules, getattr(predictor, "more", ()))
    columns = replace(columns, short=Path(output).suffix.lower() in (".csv", ".tsv"))
    with open_writer(output, columns.columns) as writer:
        for call in adapt:
            call(posts if isinstance(posts, list) else source.iter_posts())
        given = predictor.predictions(posts, rules), columns, source.strict
        total = pieces.add_up(_write_rows(*given, lambda rows, _: writer.write(rows)), on_predicted)
    drift.warn_of_shifts(predictor.traits, total.traits)
    return total


def _write_rows(
    predictions: Iterator[Prediction],
    columns: OutputColumns,
    strict: bool,
    write: Callable[[list[dict[str, Any]], JobSummary], None],
    most: int = 256,  # rows that are written together
) -> Iterator[JobSummary]:
    while part := list(islice(predictions, most)):
        if strict:
            raise_first_error([prediction.post for prediction in part])
        abstained = (p.abstained for p in part if p.abstained is not None)
        traits = chain.from_iterable(drift.traits_of(p, columns.labels) for p in part)
        summary = JobSummary.of((p.post for p in part), abstained, traits)
        write([columns.row(p) for p in part], summary)
        yield summary


def is_shards(output: str | Path) -> bool:
    """Return whether an output is a folder of shards: whether its name has no suffix."""
    return str(output) != "-" and not Path(output).suffix


def _open_shards(
    source: Source, output: str | Path, model: ModelFolder, rules: Abstention, most: int | None
) -> tuple[pieces.Shards, Iterable[JobSummary], pieces.PieceTask]:
    """Return a sink of `most` rows each, what is finished of it, and the task of what is not."""
    sources, rows = pieces.single_tables(source), most or pieces.ROWS
    predictor = model.load()
    predictor.held_out.check(rules)
    types = pieces.input_types(sources)
    columns = OutputColumns.of(types, predictor.labels, rules)
    files = [table_file(one.table) for one in sources]
    files += [] if model.encoder is None else [Path(model.encoder.removeprefix(TABLE))]
    job = {
        "model": model.digest(),
        "tables": [[x.name, x.stat().st_size, x.stat().st_mtime_ns] for x in files],
        "columns": {k: v for k, v in asdict(source.columns).items() if v is not None},
        "where": dict(source.where),
        "allow_outside": source.allow_outside,
        **({} if source.format is None else {"format": source.format}),
        "rules": asdict(rules),
        "rows": rows,
        "version": 2,  # of the columns that are added
    }
    shards = pieces.Shards(output, job, columns.types(types))
    shards.begin()
    finished = shards.finished()

    def work(predictor: Predictor, source: Source, piece: pieces.Piece) -> Iterator[JobSummary]:
        given = predictor.predictions(piece.posts, rules), columns, source.strict
        return _write_rows(*given, partial(shards.write, piece.id), rows)

    task = pieces.PieceTask(
        sources, shards.folder, rows, model.load, work, frozenset(finished), predictor
    )
    return shards, finished.values(), task
