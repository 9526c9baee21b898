"""Encode posts: clean texts, decode images, compute what the store does not have."""

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from sgmft.data.posts import Post
from sgmft.data.preprocessing import media, text as text_tools
from sgmft.data.preprocessing.images import ImageError, Pixels, describe_cut
from sgmft.errors import TEXTS, Message, SgmftError, join_messages, make_printable, warn
from sgmft.features.encoders.base import TABLE, Encoder, EncoderInfo, PostFeatures, PreparedImage
from sgmft.features.encoders.batches import encode_joint
from sgmft.features.features import Features
from sgmft.utils.runtime import progress_bar

if TYPE_CHECKING:
    from sgmft.features.store import FeatureStore, MappedFeatures
    from sgmft.features.table import FeaturesTable

CHUNK = 256  # posts encoded together, and written as one shard
PREPARED_CHUNK = 64  # the same where images are as an encoder prepares them, which are larger
MAX_IMAGES = 32  # of one post, frames of its videos counted
MAX_POST_BYTES = 512 * 1024 * 1024  # of all its files: they are in memory together


@dataclass(frozen=True)
class Chunk:
    """Consecutive posts and their features."""

    # all of the chunk, with `error` where they could not be encoded, and with warnings
    posts: list[Post]
    good: list[int]  # positions in `posts` of those that could
    keys: list[str]  # content key of each good post
    rows: list[PostFeatures]  # of each good post; none where they are left in the store
    # of each good post's text, see `encode_windows`; 0 for a post with one row of the whole text
    windows: Sequence[int] = ()


class EncodedPosts(NamedTuple):
    """Posts that could be encoded, those that could not, and the features of the former."""

    posts: list[Post]
    refused: list[Post]  # each with its `error`
    keys: list[str]  # content keys of `posts`
    features: Features
    files: "MappedFeatures | None" = None  # that the features are in, to be removed after use


class PreparedPost(NamedTuple):
    """A post as an encoder takes it."""

    key: str  # content digest of the text as written, the bytes of its files that can be used,
    #           and the frames taken of them
    text: str  # cleaned
    images: list[Any]  # decoded, and perhaps prepared; left out where a store has them
    files: Sequence[int] = ()  # which of the post's files each image is of
    decoded: bool = True  # whether the images are there
    warnings: tuple[str, ...] = ()  # why files are left out or cut off; a text that was repaired


def encode_posts(
    posts: Iterable[Post],
    encoder: Encoder,
    *,
    tokens: bool = False,  # whether word and region features are wanted beside the pooled ones
    store: "FeatureStore | None" = None,
    # of the same `image_key`: images of posts that it has are not encoded; not for joint features
    image_store: "FeatureStore | None" = None,
    chunk: int = CHUNK,
    rows: bool = True,  # whether the chunks have the features; else they are left in the store
) -> Iterator[Chunk]:
    """Encode posts in order, `chunk` at a time, in memory bounded by two chunks: the images of the
    next one are decoded while the network computes.

    Posts that the store has are not encoded again, but for those of a damaged shard; new ones are
    written to it as one shard a chunk. Chunks are cut from the input, so that an interrupted run
    started again computes the same batches, and so the same values to the last bit.

    A post that carries an error, or of which neither words nor an image can be read, comes back
    with its reason and without features. An image that cannot be read is left out, with a warning;
    the features are then those of the same post without it.
    """
    info = encoder.info
    if tokens and not info.has_tokens:
        raise SgmftError(TEXTS["no tokens"], name=info.name)
    chunk = chunk if info.image_size else min(chunk, PREPARED_CHUNK)
    iterator = iter(posts)
    if encoder.info.name.startswith(TABLE):
        while some := list(islice(iterator, chunk)):
            yield _look_up(some, cast("FeaturesTable", encoder), store)
        return
    image_store = None if info.joint_width else image_store
    stores = [x for x in (store, image_store) if x is not None]
    prepare = np.asarray if info.image_size else getattr(encoder, "prepare_image", np.asarray)
    given = info, stores, prepare
    pool = ThreadPoolExecutor(max_workers=os.cpu_count())

    def prepare_next() -> list[tuple[Post, Future[PreparedPost | str]]]:
        return [(x, pool.submit(prepare_post, x, *given)) for x in islice(iterator, chunk)]

    def encode_chunk(prepared: Sequence[tuple[Post, Future[PreparedPost | str]]]) -> Chunk:
        posts = [post for post, _ in prepared]
        contents = [future.result() for _, future in prepared]
        keys = {x.key for x in contents if isinstance(x, PreparedPost)}
        found = {} if store is None else store.find(sorted(keys))
        seen = {} if image_store is None else image_store.find(sorted(keys - found.keys()))
        known = found.keys() | seen.keys()
        good, new = dict[int, str](), dict[str, PreparedPost]()
        for i, x in enumerate(contents):
            if isinstance(x, PreparedPost) and not x.decoded and x.key not in known:
                x = prepare_post(posts[i], encoder.info)  # damaged after a store had it
            if isinstance(x, str):
                posts[i] = replace(posts[i], error=x)
                continue
            if x.warnings:
                told = tuple(dict.fromkeys((*posts[i].warnings, *x.warnings)))
                posts[i] = replace(posts[i], warnings=told)
            good[i] = x.key
            if x.key not in found:
                new.setdefault(x.key, x)
        encoded = encode_prepared(list(new.values()), encoder, tokens, seen) if new else {}
        if store is not None:
            store.write(encoded)
        features = found | encoded
        kept = [features[key] for key in good.values()] if rows else []
        return Chunk(posts, list(good), list(good.values()), kept)

    try:
        following = prepare_next()
        while following:
            current, following = following, prepare_next()
            yield encode_chunk(current)
    finally:
        pool.shutdown(cancel_futures=True)


def encode_windows(
    posts: Iterable[Post],
    encoder: Encoder,
    window: int,
    *,
    tokens: bool = False,
    store: "FeatureStore | None" = None,
) -> Iterator[Chunk]:
    """Encode posts as `encode_posts` does; those of more than `window` words have a row for each.

    These rows have the features of all the post's images, and a joint feature, which is of the
    whole text; as many without them follow, and `Chunk.windows` has their numbers. A text of which
    not all is read is a warning in the post.
    """
    most, cleaning = text_tools.MAX_CHARACTERS, text_tools.get_cleaning(encoder.info.cleaning)
    for chunk in encode_posts(posts, encoder, tokens=tokens, store=store):
        for i, post in enumerate(chunk.posts):
            if post.error is None and len(post.text) > most:
                cut = Message(TEXTS["cut text"], count=len(post.text), most=most)
                chunk.posts[i] = replace(post, warnings=(*post.warnings, cut))
        windows = list[list[PreparedPost]]()
        for i in chunk.good:
            texts = text_tools.split_windows(chunk.posts[i].text, cleaning, window)
            made = [prepare_post(Post(x), encoder.info) for x in texts] if len(texts) > 1 else []
            windows.append([part for part in made if isinstance(part, PreparedPost)])
        if not (new := {part.key: part for some in windows for part in some}):
            yield chunk
            continue
        found = {} if store is None else store.find(sorted(new))
        left = [part for key, part in new.items() if key not in found]
        encoded = encode_prepared(left, encoder, tokens, {})
        if store is not None and os.access(store.folder, os.W_OK):  # it may be read-only
            store.write(encoded)
        features, rows = found | encoded, []
        for whole, some in zip(chunk.rows, windows, strict=True):
            alone = [features[part.key] for part in some]
            seen = [whole._replace(text=x.text, words=x.words, ngrams=x.ngrams) for x in alone]
            rows += [*(seen or [whole]), *alone]
        yield replace(chunk, rows=rows, windows=[len(some) for some in windows])


def encode_all(
    posts: Iterable[Post],
    encoder: Encoder,
    *,
    tokens: bool = False,
    store: "FeatureStore | None" = None,
    on_encoded: Callable[[int], None] | None = None,  # called with the number done so far
    on_disk: bool = False,
) -> EncodedPosts:
    """Encode all posts at once; with `on_disk` into files, if the store can be written to."""
    mapped = store if on_disk else None
    if mapped is not None and not os.access(mapped.folder, os.W_OK):
        warn(Message(TEXTS["read-only store"], folder=mapped.folder))
        mapped = None
    good, refused = list[Post](), list[Post]()
    keys, rows = list[str](), list[PostFeatures]()
    total = len(posts) if isinstance(posts, Sized) else None
    with progress_bar("Encoding", total, hidden=on_encoded is not None) as bar:
        for chunk in encode_posts(posts, encoder, tokens=tokens, store=store, rows=mapped is None):
            good += [chunk.posts[i] for i in chunk.good]
            refused += [post for post in chunk.posts if post.error is not None]
            keys += chunk.keys
            rows += chunk.rows
            bar.update(len(chunk.posts))
            if on_encoded:
                on_encoded(len(good) + len(refused))
    if mapped is None:
        return EncodedPosts(good, refused, keys, Features.of(rows, encoder.info, tokens))
    from sgmft.features.store import MappedFeatures

    files = MappedFeatures(mapped, keys)
    return EncodedPosts(good, refused, keys, files.features(), files)


def _look_up(posts: list[Post], source: "FeaturesTable", store: "FeatureStore | None") -> Chunk:
    good: dict[int, tuple[str, PostFeatures]] = {}
    for i, found in enumerate(source.look_up(posts)):
        if isinstance(found, str):
            posts[i] = replace(posts[i], error=found)
        else:
            good[i] = found
    if store is not None:
        store.write({key: row for key, row in good.values() if key not in store})
    keys, rows = [key for key, _ in good.values()], [row for _, row in good.values()]
    return Chunk(posts, list(good), keys, rows)


def prepare_post(
    post: Post,
    info: EncoderInfo,
    stores: Sequence["FeatureStore"] = (),
    prepare: Callable[[Pixels], Any] = np.asarray,
) -> PreparedPost | str:
    """Read and decode a post for an encoder, or return why it cannot be; several threads may.

    A file that cannot be read or decoded is left out, as if the post did not have it. Images of a
    post that one of `stores` has are read, not decoded; others are kept as `prepare` makes them.
    """
    if post.error is not None:
        return post.error
    cleaning = text_tools.get_cleaning(info.cleaning)
    text = text_tools.clean_text(post.text, cleaning)
    told = () if (mend := text_tools.describe_repair(post.text, cleaning)) is None else (mend,)
    files, bad = _read(post)
    while text or files:
        most = min(media.MAX_FRAMES, MAX_IMAGES // max(1, len(files)))  # images of one file
        digest = hashlib.sha256(hashlib.sha256(post.text.encode("utf-8", "surrogatepass")).digest())
        for data in files.values():
            digest.update(hashlib.sha256(data).digest())
            if media.is_multi_image(data):
                digest.update(b"%d frames" % most)  # a still's key is as before there were frames
        key = digest.hexdigest()[:32]
        known = any(key in store for store in stores)
        images, worse = list[tuple[int, Any]](), dict[int, str]()
        for number, data in () if known else files.items():
            try:
                name = media.media_name(post.images[number])
                decoded = media.decode_media(data, name, info.image_size or None, most)
                images += [(number, prepare(x)) for x in decoded]
            except ImageError as error:
                worse[number] = _with_path(error, post, number)
            except Exception as error:  # of whatever library prepares it
                why = str(error)
                worse[number] = Message("{name} cannot be encoded: {why}", name=name, why=why)
        if not worse:
            numbers, pixels = [number for number, _ in images], [image for _, image in images]
            cut = ((i, describe_cut(x, media.media_name(post.images[i]))) for i, x in files.items())
            left = (_with_path(reason, post, number) for number, reason in cut if reason)
            warnings = (*told, *(bad[number] for number in sorted(bad)), *left)
            return PreparedPost(key, text, pixels, numbers, not known, warnings)
        bad |= worse
        files = {number: data for number, data in files.items() if number not in worse}
    return join_messages([bad[number] for number in sorted(bad)]) or TEXTS["no words"]


def _with_path(reason: object, post: Post, number: int) -> str:
    """Return a reason that names a file by its path as the row has it, where that is longer."""
    reason, parts = str(reason), getattr(post.images[number], "parts", ())
    cells = "\n".join(map(str, post.row.values())).replace("\\", "/")
    paths = ("/".join(parts[i:]).replace("//", "/") for i in range(len(parts) - 1))
    path = next((path for path in paths if path in cells), None)
    if path is None or not isinstance(reason, Message):
        return reason
    return Message(reason.template, **reason.values | {"name": make_printable(path)})


def _read(post: Post) -> tuple[dict[int, bytes], dict[int, str]]:
    """Read files, by their numbers; return those that can be used, and why others cannot."""
    given = post.images
    files, bad = dict[int, bytes](), dict[int, str]()
    if len(given) > MAX_IMAGES:
        many = TEXTS["many pictures of a post"]
        bad[MAX_IMAGES] = Message(many, count=len(given), most=MAX_IMAGES)
    for number, file in enumerate(given[:MAX_IMAGES]):
        try:
            data = media.read_media(file)
        except ImageError as error:
            bad[number] = _with_path(error, post, number)
            continue
        if sum(map(len, files.values())) + len(data) > MAX_POST_BYTES:
            bad[number] = Message(TEXTS["many bytes of a post"], most=MAX_POST_BYTES >> 20)
            continue
        files[number] = data
    return files, bad


def encode_prepared(
    posts: Sequence[PreparedPost], encoder: Encoder, tokens: bool, seen: Mapping[str, PostFeatures]
) -> dict[str, PostFeatures]:
    """Encode prepared posts, by key; equal texts and images once, images of `seen` not at all."""
    texts = list(dict.fromkeys(post.text for post in posts if post.text))
    digests = [[_digest(image) for image in post.images] for post in posts]
    pairs = zip(posts, digests, strict=True)
    different = {x: y for post, own in pairs for x, y in zip(own, post.images, strict=True)}
    images: Any = [*different.values()]
    if size := encoder.info.image_size:
        images = np.stack(images) if images else np.zeros((0, size, size, 3), np.uint8)
    if encoder.info.texts_apart:
        with ThreadPoolExecutor(1) as beside:
            future = beside.submit(encoder.encode_texts, texts, tokens)
            image = encoder.encode_images(images, tokens)
        text = future.result()
    else:
        text = encoder.encode_texts(texts, tokens)
        image = encoder.encode_images(images, tokens)
    info = encoder.info
    for x, given, width in (text, texts, info.text_width), (image, images, info.image_width):
        found, shape = np.shape(x.pooled), (len(given), width)
        if len(given) and not (found == shape and np.isfinite(x.pooled).all()):
            raise SgmftError(TEXTS["bad features"], name=info.name, found=found, shape=shape)
    text_rows = {text: i for i, text in enumerate(texts)}
    image_rows = {digest: i for i, digest in enumerate(different)}
    joint = encode_joint(encoder, [(post.text, post.images) for post in posts])
    features: dict[str, PostFeatures] = {}
    for post, own, together in zip(posts, digests, joint, strict=True):
        sentence = words = pooled = regions = ngrams = None
        if post.text:
            row = text_rows[post.text]
            sentence = text.pooled[row]
            words = None if text.tokens is None else text.tokens[row].astype(np.float16)
            ngrams = text_tools.hash_ngrams(post.text)
        if post.key in seen:
            pooled = seen[post.key].images
            regions = seen[post.key].regions if tokens else None
        elif own:
            rows = [image_rows[digest] for digest in own]
            pooled = image.pooled[rows]
            if image.tokens is not None:
                regions = np.concatenate([image.tokens[i] for i in rows]).astype(np.float16)
        features[post.key] = PostFeatures(sentence, words, pooled, regions, ngrams, together)
    return features


def _digest(image: Pixels | PreparedImage) -> bytes:
    arrays = image.values() if isinstance(image, dict) else [image]
    digests = (hashlib.sha256(np.ascontiguousarray(x).data).digest() for x in arrays)
    return b"".join(digests) + repr([x.shape for x in arrays]).encode()
