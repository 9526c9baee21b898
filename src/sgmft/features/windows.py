"""Long posts encoded in windows: a model predicts each, and what it is sure of is not diluted."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from sgmft.data.posts import Post
from sgmft.data.preprocessing.text import MAX_CHARACTERS, get_cleaning
from sgmft.data.preprocessing.windows import split_windows
from sgmft.errors import Message
from sgmft.features.encode import Chunk, PreparedPost, encode_posts, encode_prepared, prepare_post
from sgmft.features.encoders.base import Encoder, EncoderInfo

if TYPE_CHECKING:
    from sgmft.features.store import FeatureStore


def encode_windows(
    posts: Iterable[Post],
    encoder: Encoder,
    window: int,
    *,
    tokens: bool = False,
    store: FeatureStore | None = None,
) -> Iterator[Chunk]:
    """Encode posts as `encode_posts` does; those of more than `window` words have a row for each.

    These rows have the features of all the post's images; as many without them follow. Where a
    post has several, `Chunk.windows` has their numbers. A text of which not all is read is a
    warning in the post. Features of shorter texts stay as they are, to the last bit.
    """
    for chunk in encode_posts(posts, encoder, tokens=tokens, store=store):
        yield _with_windows(chunk, encoder, window, tokens, store)


def _with_windows(
    chunk: Chunk, encoder: Encoder, window: int, tokens: bool, store: FeatureStore | None
) -> Chunk:
    posts = [_tell_rest(post) for post in chunk.posts]
    windows = [_prepare_windows(posts[i].text, encoder.info, window) for i in chunk.good]
    new = {part.key: part for some in windows for part in some}
    if not new:
        return replace(chunk, posts=posts)
    found = {} if store is None else store.find(sorted(new))
    encoded = encode_prepared([new[key] for key in new if key not in found], encoder, tokens, {})
    if store is not None and os.access(store.folder, os.W_OK):  # a finished one may be read-only
        store.write(encoded)
    features, rows = found | encoded, []
    for whole, some in zip(chunk.rows, windows, strict=True):
        alone = [features[part.key] for part in some]
        rows += [x._replace(images=whole.images, regions=whole.regions) for x in alone] or [whole]
        rows += alone
    return replace(chunk, posts=posts, rows=rows, windows=[len(some) for some in windows])


def _tell_rest(post: Post) -> Post:
    """Return the post, with a warning where its text is longer than what is read."""
    if post.error is not None or len(post.text) <= MAX_CHARACTERS:
        return post
    cut = Message(
        "has a text of {count} characters, of which the first {most} are read",
        count=len(post.text),
        most=MAX_CHARACTERS,
    )
    return replace(post, warnings=(*post.warnings, cut))


def _prepare_windows(text: str, info: EncoderInfo, window: int) -> list[PreparedPost]:
    """Prepare those windows of a text in which words are left, if it has several."""
    windows = split_windows(text, get_cleaning(info.cleaning), window)
    prepared = [prepare_post(Post(x), info) for x in windows] if len(windows) > 1 else []
    return [part for part in prepared if isinstance(part, PreparedPost)]
