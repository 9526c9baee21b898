"""Tables of posts to a feature store, in pieces."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sgmft.encoders import load_encoder
from sgmft.errors import SgmftError
from sgmft.jobs import Source, Told, encode_into
from sgmft.locator import SemanticLocator
from sgmft.scale.pieces import ROWS, Piece, Task, Work, cut, single_tables
from sgmft.store import FeatureStore


@dataclass(frozen=True)
class Encoding:
    """A `Task`: encode what the store does not have.

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

        def work(piece: Piece) -> Told:
            strict = self.sources[piece.table].strict
            return sum(encode_into(store, piece.posts, encoder, strict=strict), Told())

        return work


def encode_pieces(
    source: Source,
    locator: SemanticLocator,
    engine: Callable[[Task], Iterator[Told]],
    *,
    tokens: bool = True,
    on_encoded: Callable[[int], None] | None = None,
) -> tuple[Told, Path]:
    """Encode tables into the locator's feature store, as `sgmft.jobs.encode_table` does.

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
    told = Told()
    for part in engine(Encoding(single_tables(source), settings, folder, tokens)):
        told += part
        if on_encoded:
            on_encoded(told.posts)
    return told, store.folder
