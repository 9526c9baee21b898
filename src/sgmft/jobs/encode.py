"""Tables of posts to a feature store, in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sgmft.data.posts import Post, raise_first_error
from sgmft.data.source import Source
from sgmft.data.summary import JobSummary, count_errors
from sgmft.errors import SgmftError
from sgmft.features.encoders.registry import load_encoder
from sgmft.features.store import FeatureStore
from sgmft.jobs.cluster.pieces import ROWS, Piece, PieceTask, Work, cut, single_tables
from sgmft.locator.locator import SemanticLocator

if TYPE_CHECKING:
    from sgmft.features.encoders.base import Encoder
    from sgmft.features.store import FeatureStore
    from sgmft.locator.locator import SemanticLocator


@dataclass(frozen=True)
class EncodeTask:
    """A `PieceTask`: encode what the store does not have.

    Attributes:
        encoder: arguments of `load_encoder`.
    """

    sources: list[Source]
    encoder: dict[str, Any]
    store: Path
    tokens: bool

    @property
    def tables(self) -> int:
        """How many there are."""
        return len(self.sources)

    @property
    def folder(self) -> Path:
        """Where results go."""
        return self.store

    def pieces(self, table: int) -> Iterator[Piece]:
        """All pieces: the store itself knows which posts it has."""
        return cut(self.sources[table], table, ROWS)

    def start(self) -> Work:
        """Load the encoder and open the store."""
        encoder = load_encoder(**self.encoder)
        store = FeatureStore(self.store, encoder.info, self.tokens)

        def work(piece: Piece) -> JobSummary:
            strict = self.sources[piece.table].strict
            return sum(encode_into(store, piece.posts, encoder, strict=strict), JobSummary())

        return work


def encode_pieces(
    source: Source,
    locator: SemanticLocator,
    engine: Callable[[PieceTask], Iterator[JobSummary]],
    *,
    tokens: bool = True,
    on_encoded: Callable[[int], None] | None = None,
) -> tuple[JobSummary, Path]:
    """Encode tables into the locator's feature store, as `sgmft.jobs.encode.encode_table` does.

    Posts that the store has are not encoded again. Two pieces with the same post, done at one
    time, may both write it; it is read once.

    Returns:
        What could not be encoded, and the store's folder.
    """
    if locator.features_folder is None:
        raise SgmftError("Encoding needs a folder for the features.")
    folder = Path(locator.features_folder).absolute()
    store = FeatureStore(folder, locator.encoder.info, tokens)
    settings = {**locator.encoder_settings, "device": locator.device}
    told = JobSummary()
    for part in engine(EncodeTask(single_tables(source), settings, folder, tokens)):
        told += part
        if on_encoded:
            on_encoded(told.posts)
    return told, store.folder


def encode_table(
    source: Source,
    locator: SemanticLocator,
    *,
    tokens: bool = True,
    on_encoded: Callable[[int], None] | None = None,
) -> tuple[JobSummary, Path]:
    """Encode a table into the locator's feature store, in constant memory.

    Returns:
        What could not be encoded, and the store's folder.
    """
    if (store := locator.store(tokens)) is None:
        raise SgmftError("Encoding needs a folder for the features.")
    told = JobSummary()
    for part in encode_into(store, source.iter_posts(), locator.encoder, strict=source.strict):
        told += part
        if on_encoded:
            on_encoded(told.posts)
    return told, store.folder


def encode_into(
    store: FeatureStore, posts: Iterable[Post], encoder: Encoder, *, strict: bool = False
) -> Iterator[JobSummary]:
    """Encode what a store does not have; yields what is told of each chunk of posts.

    Args:
        strict: raise SgmftError at the first post that cannot be encoded.
    """
    from sgmft.features.encode import encode_posts

    for chunk in encode_posts(posts, encoder, tokens=store.tokens, store=store):
        if strict:
            raise_first_error(chunk.posts)
        yield JobSummary(len(chunk.posts), count_errors(chunk.posts))
