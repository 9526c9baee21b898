"""What the commands do, callable from Python: a table in; a model, figures or another table out."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgmft.data.posts import Post, raise_first_error
from sgmft.data.source import Source
from sgmft.data.summary import JobSummary
from sgmft.data.tables import open_writer
from sgmft.jobs.cluster.pieces import ROWS, Piece, PieceTask, Work, cut, run_here, single_tables
from sgmft.jobs.cluster.shards import Place, Shards, input_types, output_types
from sgmft.jobs.output_columns import OutputColumns, columns_of
from sgmft.locator.abstention import Abstention
from sgmft.locator.loading import load_predictor
from sgmft.locator.prediction import Predictor, summarize
from sgmft.utils.checksums import digest_of, file_digests

if TYPE_CHECKING:
    from sgmft.locator.prediction import SupportsPredictions


def predict_table(
    source: Source,
    output: str | Path,
    locator: SupportsPredictions,
    *,
    abstain: Abstention | None = None,
    adapt: Callable[[Iterable[Post]], object] | None = None,
    on_predicted: Callable[[int], None] | None = None,
) -> JobSummary:
    """Write the table again with a label for each row, in order and in constant memory.

    The input's columns stay as they are; added are `label`, `probability`, `p_<label>` for each
    label, and `error`, the reason of a row that cannot be used. With `abstain` there are also
    `abstained`, the reason of a row that could be used and has no label, and what the rules look
    at: `set`, the prediction set, and `typicality`. An input column of one of these names is kept
    as `input_<name>`, or `input_input_<name>` where that is taken.

    With `adapt`, all posts of the table are given to it first.

    Raises:
        SgmftError: `output` is the table itself, or one of the two cannot be read or written; with
            `source.strict`, for the first bad row.
    """
    source.refuse_overwriting(output)
    if str(source.table) == "-":  # a stream is read once: its columns are known at its end
        posts: Iterable[Post] = source.read_posts()
        keys: Iterable[str] = (key for post in posts for key in post.row)
    else:
        posts = source.iter_posts()
        keys = columns_of(source.table)
    if adapt:
        adapt(posts if isinstance(posts, list) else source.iter_posts())
    layout = OutputColumns.of(keys, locator.labels, abstain or Abstention())
    told = JobSummary()
    with open_writer(output, layout.columns) as writer:
        predictions = locator.predictions(posts, abstain)
        while part := list(islice(predictions, 256)):
            if source.strict:
                raise_first_error([prediction.post for prediction in part])
            writer.write([layout.row(prediction) for prediction in part])
            told += summarize(part)
            if on_predicted:
                on_predicted(told.posts)
    return told


Engine = Callable[[PieceTask], Iterator[JobSummary]]


@dataclass(frozen=True)
class ModelAt:
    """A model by its folder, and how to load it; see `sgmft.locator.loading.load_predictor`."""

    folder: str
    runtime: str | None = None
    features: Path | None = None
    device: str | None = None

    def load(self) -> Predictor:
        """The model."""
        return load_predictor(self.folder, self.runtime, self.features, self.device)

    def digest(self) -> str:
        """Of the folder's files; of a hub repository, its name."""
        folder = Path(self.folder)
        if not folder.is_dir():
            return digest_of({"name": self.folder})
        files = (x for x in folder.iterdir() if x.name != "README.md" and x.name[0] != ".")
        return digest_of(file_digests(files))


@dataclass(frozen=True)
class PredictTask:
    """A `PieceTask`: predict what has not been predicted yet.

    Attributes:
        predictor: the model, loaded; it is not sent to other machines, which load it themselves.
    """

    sources: list[Source]
    model: ModelAt
    rules: Abstention
    layout: OutputColumns
    types: dict[str, Any]
    shards: Shards
    rows: int
    finished: frozenset[Place]
    predictor: Predictor | None = None

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"predictor": None}

    @property
    def tables(self) -> int:
        """How many there are."""
        return len(self.sources)

    @property
    def folder(self) -> Path:
        """Where results go."""
        return self.shards.folder

    def pieces(self, table: int) -> Iterator[Piece]:
        """The pieces of one table that have no shard, in order."""
        for piece in cut(self.sources[table], table, self.rows):
            if (piece.table, piece.number) not in self.finished:
                yield piece

    def start(self) -> Work:
        """Load the model, where it is not."""
        predictor = self.predictor or self.model.load()

        def work(piece: Piece) -> JobSummary:
            predictions = list(predictor.predictions(piece.posts, self.rules))
            if self.sources[piece.table].strict:
                raise_first_error([prediction.post for prediction in predictions])
            told = summarize(predictions)
            rows = [self.layout.row(prediction) for prediction in predictions]
            self.shards.write((piece.table, piece.number), rows, self.types, told)
            return told

        return work


def predict_shards(
    source: Source,
    output: str | Path,
    model: ModelAt,
    *,
    abstain: Abstention | None = None,
    rows: int = ROWS,
    engine: Engine = run_here,
    on_predicted: Callable[[int], None] | None = None,
) -> JobSummary:
    """Write the tables of `source` again as Parquet shards, with a label for each row.

    The columns are those of `predict_table`, of one type in all shards. A job that was
    stopped continues where it was: shards that are there are kept. Constant memory.

    Args:
        source: one table, or a folder of them.
        output: a new folder, or one in which the same job was stopped.
        rows: of one shard, at most.
        engine: what does the pieces: `run_here`, or one of `sgmft.jobs.cluster.ray`.

    Raises:
        SgmftError: a table or the model cannot be read, `output` holds something else, or shards
            were damaged while others were written.
    """
    rules = abstain or Abstention()
    sources = single_tables(source)
    predictor = model.load()
    predictor.held_out.check(rules)
    given = input_types([one.table for one in sources])
    files = [Path(one.table) for one in sources]
    shards = Shards(
        output,
        {
            "model": model.digest(),
            "tables": [[x.name, x.stat().st_size, x.stat().st_mtime_ns] for x in files],
            "columns": {k: v for k, v in asdict(source.columns).items() if v is not None},
            "where": dict(source.where),
            "allow_outside": source.allow_outside,
            "rules": asdict(rules),
            "rows": rows,
        },
    )
    shards.begin()
    finished = shards.finished()
    layout = OutputColumns.of(given, predictor.labels, rules)
    types = output_types(layout, given)
    done_before = frozenset(finished)
    task = PredictTask(sources, model, rules, layout, types, shards, rows, done_before, predictor)
    done = 0
    for told in chain(finished.values(), engine(task)):
        done += told.posts
        if on_predicted:
            on_predicted(done)
    return shards.end(done)
