"""Encode tables of posts into a feature store, in this process or on a cluster."""

from collections.abc import Callable, Iterator
from pathlib import Path

from sgmft.data.posts import raise_first_error
from sgmft.data.source import JobSummary, Source
from sgmft.errors import SgmftError
from sgmft.features.encode import encode_posts
from sgmft.features.encoder_handle import EncoderHandle, open_encoder
from sgmft.features.encoders.base import Encoder
from sgmft.features.store import FeatureStore
from sgmft.features.table import write_ids
from sgmft.jobs.cluster import pieces

Loaded = tuple[Encoder, FeatureStore]


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
    wanted = handle.encoder.info.has_tokens if tokens is None else tokens
    here, folder = engine is pieces.run_here, Path(handle.features_folder)
    folder = folder if here else folder.absolute()
    sources = [source] if here else pieces.single_tables(source)
    store = FeatureStore(folder, handle.encoder.info, wanted)
    settings = {**handle.encoder_settings, "device": handle.device}

    def load() -> Loaded:
        encoder = open_encoder(**settings)
        return encoder, FeatureStore(folder, encoder.info, wanted)

    def encode(loaded: Loaded, source: Source, piece: pieces.Piece) -> Iterator[JobSummary]:
        encoder, store = loaded  # which itself knows the posts it has; others are encoded
        for chunk in encode_posts(piece.posts, encoder, tokens=wanted, store=store):
            if source.strict:
                raise_first_error(chunk.posts)
            names = [chunk.posts[i].id for i in chunk.good]
            write_ids(store.folder, zip(names, chunk.keys, strict=True))
            yield JobSummary.of(chunk.posts)

    loaded, rows = (handle.encoder, store), 0 if here else pieces.ROWS
    task = pieces.PieceTask(sources, folder, rows, load, encode, loaded=loaded)
    return pieces.add_up(engine(task), on_encoded), store.folder
