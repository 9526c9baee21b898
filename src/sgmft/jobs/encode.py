"""Encode tables of posts into a feature store, in this process or on a cluster."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from sgmft.data.posts import raise_first_error
from sgmft.data.source import Source
from sgmft.data.summary import JobSummary
from sgmft.errors import SgmftError
from sgmft.features.encode import encode_posts
from sgmft.features.encoder_handle import EncoderHandle, open_encoder
from sgmft.features.encoders.base import Encoder
from sgmft.features.store import FeatureStore
from sgmft.features.table import write_ids
from sgmft.jobs.cluster import pieces
from sgmft.jobs.cluster.pieces import Piece

Loaded = tuple[Encoder, FeatureStore]


def _load(settings: dict[str, Any], folder: Path, tokens: bool) -> Loaded:
    encoder = open_encoder(**settings)
    return encoder, FeatureStore(folder, encoder.info, tokens)


def _encode(tokens: bool, loaded: Loaded, source: Source, piece: Piece) -> Iterator[JobSummary]:
    """Encode what the store does not have; the store itself knows which posts it has."""
    encoder, store = loaded
    for chunk in encode_posts(piece.posts, encoder, tokens=tokens, store=store):
        if source.strict:
            raise_first_error(chunk.posts)
        names = [chunk.posts[i].id for i in chunk.good]
        write_ids(store.folder, zip(names, chunk.keys, strict=True))
        yield JobSummary.of(chunk.posts)


def encode_table(
    source: Source,
    handle: EncoderHandle,
    *,
    tokens: bool | None = None,
    engine: pieces.Engine = pieces.run_here,
    on_encoded: Callable[[int], object] = lambda done: None,
) -> tuple[JobSummary, Path]:
    """Encode tables into a feature store, with the posts' ids beside it, in constant memory.

    `tokens` are word and region features, by default where the encoder has them. Returns the posts
    read and those that could not be encoded, and the store's folder.
    """
    if handle.features_folder is None:
        raise SgmftError("Encoding needs a folder for the features.")
    tokens = handle.encoder.info.has_tokens if tokens is None else tokens
    here, folder = engine is pieces.run_here, Path(handle.features_folder)
    folder = folder if here else folder.absolute()
    sources = [source] if here else pieces.single_tables(source)
    store = FeatureStore(folder, handle.encoder.info, tokens)
    settings = {**handle.encoder_settings, "device": handle.device}
    rows = 0 if here else pieces.ROWS
    load, work = partial(_load, settings, folder, tokens), partial(_encode, tokens)
    own: dict[str, Any] = {"load": load, "work": work, "loaded": (handle.encoder, store)}
    task = pieces.PieceTask(sources=sources, folder=folder, rows=rows, **own)
    return pieces.add_up(engine(task), on_encoded), store.folder
