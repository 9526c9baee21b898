"""Encode tables of posts into a feature store, in this process or on a cluster."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgmft.data.posts import raise_first_error
from sgmft.data.source import Source
from sgmft.data.summary import JobSummary, count_errors
from sgmft.errors import SgmftError
from sgmft.features.encode import encode_posts
from sgmft.features.encoder_handle import EncoderHandle
from sgmft.features.encoders.base import Encoder
from sgmft.features.encoders.registry import load_encoder
from sgmft.features.store import FeatureStore
from sgmft.jobs.cluster.pieces import (
    ROWS,
    Engine,
    Piece,
    Work,
    add_up,
    cut,
    run_here,
    single_tables,
)


@dataclass(frozen=True)
class EncodeTask:
    """A `PieceTask`: encode what the store does not have."""

    sources: list[Source]
    settings: dict[str, Any]  # arguments of `load_encoder`
    folder: Path  # of the store
    tokens: bool  # whether word and region features are encoded
    rows: int | None  # of a piece; None leaves the tables whole
    opened: tuple[Encoder, FeatureStore] | None = None  # in this process; others open them

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"opened": None}

    def pieces(self, table: int) -> Iterator[Piece]:
        """Yield all pieces: the store itself knows which posts it has."""
        if self.rows is None:
            yield Piece((table, 0), self.sources[table].iter_posts())
        else:
            yield from cut(self.sources[table], table, self.rows)

    def start(self) -> Work:
        """Load the encoder and open the store, where they are not."""
        if self.opened:
            encoder, store = self.opened
        else:
            encoder = load_encoder(**self.settings)
            store = FeatureStore(self.folder, encoder.info, self.tokens)

        def work(piece: Piece) -> Iterator[JobSummary]:
            for chunk in encode_posts(piece.posts, encoder, tokens=self.tokens, store=store):
                if self.sources[piece.id[0]].strict:
                    raise_first_error(chunk.posts)
                yield JobSummary(len(chunk.posts), count_errors(chunk.posts))

        return work


def encode_table(
    source: Source,
    handle: EncoderHandle,
    *,
    tokens: bool = True,
    engine: Engine = run_here,
    on_encoded: Callable[[int], None] | None = None,
) -> tuple[JobSummary, Path]:
    """Encode tables into a feature store, in constant memory.

    Posts that the store has are not encoded again. Two pieces with the same post, done at one
    time, may both write it; it is read once.

    Args:
        source: one table, a folder of them, or a stream, which only this process can read.
        handle: the encoder and the folder of its store, such as a `SemanticLocator`.
        engine: does the pieces: `run_here`, or one of `sgmft.jobs.cluster.ray`.

    Returns:
        The posts read and those that could not be encoded, and the store's folder.

    Raises:
        SgmftError: a table cannot be read, or there is no folder for the store; with
            `source.strict`, for the first post that cannot be encoded.
    """
    if handle.features_folder is None:
        raise SgmftError("Encoding needs a folder for the features.")
    here = engine is run_here
    folder = Path(handle.features_folder)
    folder = folder if here else folder.absolute()
    sources = [source] if here else single_tables(source)
    store = FeatureStore(folder, handle.encoder.info, tokens)
    task = EncodeTask(
        sources,
        {**handle.encoder_settings, "device": handle.device},
        folder,
        tokens,
        None if here else ROWS,
        (handle.encoder, store),
    )
    return add_up(engine(task), on_encoded), store.folder
