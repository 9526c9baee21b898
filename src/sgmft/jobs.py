"""What the commands do, callable from Python: a table in; a model, figures or another table out."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

from sgmft import processes
from sgmft.abstention import Abstention
from sgmft.answers import Layout, columns_of
from sgmft.errors import SgmftError
from sgmft.files import check_output, why
from sgmft.posts import Post, count_errors, refuse
from sgmft.tables import Columns, iter_posts, open_writer
from sgmft.tables.folder import tables_in

if TYPE_CHECKING:
    from sgmft.encoders import Encoder
    from sgmft.locator import SemanticLocator
    from sgmft.prediction import Prediction, Predicts
    from sgmft.store import FeatureStore
    from sgmft.training import Epoch


@dataclass(frozen=True)
class Source:
    """A table and how to read it; see `sgmft.tables.iter_posts`."""

    table: str
    columns: Columns = field(default_factory=Columns)
    where: Mapping[str, str] = field(default_factory=dict)
    allow_outside: bool = False
    strict: bool = False

    def posts(self) -> Iterator[Post]:
        """The posts, one at a time."""
        return iter_posts(
            self.table,
            columns=self.columns,
            where=self.where or None,
            allow_outside=self.allow_outside,
            strict=self.strict,
        )

    def spare(self, output: str | Path) -> None:
        """Raise SgmftError where writing this file would replace what is read."""
        path = Path(output)
        if "-" in (str(output), str(self.table)) or not path.exists():
            return
        if any(part.exists() and path.samefile(part) for part in map(Path, tables_in(self.table))):
            raise SgmftError(f"{output} is the table that is read: give the output a new name.")

    def all_posts(self) -> list[Post]:
        """The posts at once; SgmftError when there are none."""
        posts = list(self.posts())
        if not posts:
            chosen = " and ".join(f"{key}={value}" for key, value in self.where.items())
            rows = f"rows with {chosen}" if chosen else "rows"
            raise SgmftError(f"{self.table} has no {rows}.")
        return posts


@dataclass(frozen=True)
class Told:
    """What a job has to say.

    Attributes:
        posts: how many it read.
        errors: how many it could not use, by reason.
        abstained: how many it could use and gave no label, by reason.
    """

    posts: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    abstained: dict[str, int] = field(default_factory=dict)

    @classmethod
    def of_predictions(cls, predictions: Sequence[Prediction]) -> Told:
        """What is to be said of these."""
        held_back = Counter(p.abstained for p in predictions if p.abstained is not None)
        return cls(len(predictions), count_errors(p.post for p in predictions), dict(held_back))

    def __add__(self, other: Told) -> Told:
        return Told(
            self.posts + other.posts,
            dict(Counter(self.errors) + Counter(other.errors)),
            dict(Counter(self.abstained) + Counter(other.abstained)),
        )


def train_table(
    source: Source,
    output: str | Path,
    locator: SemanticLocator,
    *,
    split_by: str = "label",
    track: str | Path | None = None,
    on_encoded: Callable[[int, int], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> Told:
    """Fit `locator` on a table and save it in `output`; a run that was stopped continues.

    With several processes (`sgmft.processes`) all of them call this, and the main one writes.

    Raises:
        SgmftError: the table cannot be read, has fewer than two labels, or `output` holds
            something else than a model.
    """
    folder = Path(output)
    check_output(folder, not processes.is_main() or _is_ours(folder), "model")
    posts = source.all_posts()
    locator.fit(
        posts,
        split_by=split_by,
        strict=source.strict,
        checkpoint=folder / "checkpoint",
        track=track,
        on_encoded=None if on_encoded is None else lambda done: on_encoded(done, len(posts)),
        on_epoch=on_epoch,
    )
    if processes.is_main():
        from sgmft.saving import ENCODER

        unfinished = folder / "checkpoint"
        try:
            unfinished.mkdir(parents=True, exist_ok=True)  # tells half a model from other files
        except OSError as error:
            raise SgmftError(f"The model cannot be written to {folder}: {why(error)}.") from error
        locator.save_pretrained(folder)
        if locator.tuned is not None:
            locator.use_tuned(locator.tuned._replace(folder=folder / ENCODER))
        shutil.rmtree(unfinished, ignore_errors=True)
    processes.wait()
    return Told(len(posts), locator.record["data"]["skipped"])


def _is_ours(folder: Path) -> bool:
    """Whether a folder holds a model of ours, or an unfinished one; others have config.json too."""
    if (folder / "checkpoint").is_dir():
        return True
    try:
        return "sgmft" in json.loads((folder / "config.json").read_text("utf-8"))
    except (OSError, ValueError, TypeError):
        return False


def predict_table(
    source: Source,
    output: str | Path,
    locator: Predicts,
    *,
    abstain: Abstention | None = None,
    adapt: Callable[[Iterable[Post]], object] | None = None,
    on_predicted: Callable[[int], None] | None = None,
) -> Told:
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
    source.spare(output)
    if str(source.table) == "-":  # a stream is read once: its columns are known at its end
        posts: Iterable[Post] = source.all_posts()
        keys: Iterable[str] = (key for post in posts for key in post.row)
    else:
        posts = source.posts()
        keys = columns_of(source.table)
    if adapt:
        adapt(posts if isinstance(posts, list) else source.posts())
    layout = Layout.of(keys, locator.labels, abstain or Abstention())
    told = Told()
    with open_writer(output, layout.columns) as writer:
        predictions = locator.predictions(posts, abstain)
        while part := list(islice(predictions, 256)):
            if source.strict:
                refuse([prediction.post for prediction in part])
            writer.write([layout.row(prediction) for prediction in part])
            told += Told.of_predictions(part)
            if on_predicted:
                on_predicted(told.posts)
    return told


def encode_table(
    source: Source,
    locator: SemanticLocator,
    *,
    tokens: bool = True,
    on_encoded: Callable[[int], None] | None = None,
) -> tuple[Told, Path]:
    """Encode a table into the locator's feature store, in constant memory.

    Returns:
        What could not be encoded, and the store's folder.
    """
    if (store := locator.store(tokens)) is None:
        raise SgmftError("Encoding needs a folder for the features.")
    told = Told()
    for part in encode_into(store, source.posts(), locator.encoder, strict=source.strict):
        told += part
        if on_encoded:
            on_encoded(told.posts)
    return told, store.folder


def encode_into(
    store: FeatureStore, posts: Iterable[Post], encoder: Encoder, *, strict: bool = False
) -> Iterator[Told]:
    """Encode what a store does not have; yields what is told of each chunk of posts.

    Args:
        strict: raise SgmftError at the first post that cannot be encoded.
    """
    from sgmft.encoding import encode_posts

    for chunk in encode_posts(posts, encoder, tokens=store.tokens, store=store):
        if strict:
            refuse(chunk.posts)
        yield Told(len(chunk.posts), count_errors(chunk.posts))
