"""From a user's posts to the data of a comparison: encoded as every row needs, and split once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from sgmft.data.posts import Post, raise_first_error
from sgmft.data.splits import split_posts
from sgmft.data.summary import count_errors
from sgmft.errors import SgmftError
from sgmft.evaluation.compare.catalogue import Row
from sgmft.evaluation.compare.data import ComparisonData, EncodedSetting
from sgmft.features.encode import encode_posts
from sgmft.features.encoders.registry import load_encoder
from sgmft.features.store import FeatureStore
from sgmft.models.registry import get_method

VAL_SIZE = 0.1  # of the training posts, on which trials are judged

OnEncoded = Callable[[str, int], None]  # an encoder setting, and how many posts are encoded


class EncoderSetting(NamedTuple):
    """Which features a row works on."""

    name: str
    cleaning: str
    patch_grid: int | None

    @property
    def key(self) -> str:
        """As text, to look it up by."""
        return "/".join(str(part) for part in self if part is not None)


@dataclass(frozen=True)
class Split:
    """How posts are divided.

    Attributes:
        test: (column, value) of the test posts; None draws them.
        test_size: share of the posts drawn as test posts.
        by: "label", "user", or "auto": by user where the posts name two users or more.
        seed: decides what is drawn.
    """

    test: tuple[str, str] | None = None
    test_size: float = 0.2
    by: str = "auto"
    seed: int = 0


def encoder_setting(row: Row, encoder: str) -> EncoderSetting:
    """The features that a row works on when the others work on those of `encoder`."""
    method = get_method(row.method)
    cleaning = row.cleaning or method.preset(row.preset).cleaning
    return EncoderSetting(method.encoder or encoder, cleaning, row.patch_grid)


def prepare_comparison(
    posts: Sequence[Post],
    rows: Sequence[Row],
    encoder: str,
    store: Path,
    split: Split,
    *,
    by: Sequence[str] = (),
    strict: bool = False,
    device: str | None = None,
    on_encoded: OnEncoded | None = None,
) -> ComparisonData:
    """Encode posts under every encoder setting that the rows need, and split them.

    A post that one setting cannot use (no word is left after cleaning, say) is left out for all,
    so that every row learns from and is judged on the same posts.

    Args:
        by: columns by whose values results are broken down.
        strict: refuse all posts when one cannot be used.

    Raises:
        SgmftError: fewer than two labels, no test posts, or a column that is not there.
    """
    posts = [
        post
        if post.error is not None or post.label is not None
        else replace(post, error="has no label to learn from")
        for post in posts
    ]
    readable = [post for post in posts if post.error is None]
    _split(readable, split)  # a mistake in the split is told now, not after an hour of encoding
    for column in by:
        if not any(column in post.row for post in readable):
            names = ", ".join(dict.fromkeys(name for post in readable for name in post.row))
            raise SgmftError(f"The posts have no column {column!r} for --by; they have {names}.")
    users: dict[EncoderSetting, list[Row]] = {}
    for row in rows:
        users.setdefault(encoder_setting(row, encoder), []).append(row)
    encoded: dict[str, EncodedSetting] = {}
    keys: dict[int, str] = {}
    stores: list[FeatureStore] = []
    for setting, some in users.items():
        encoded[setting.key] = _encode(
            posts, setting, some, store, device, keys, stores, on_encoded
        )
    if strict:
        raise_first_error(posts)
    good = [i for i, post in enumerate(posts) if post.error is None]
    usable = [posts[i] for i in good]
    train, test, held_out = _split(usable, split)
    labels = sorted({str(usable[i].label) for i in train})
    if missing := {str(usable[i].label) for i in test} - set(labels):
        raise SgmftError(f"No training post has the label {', '.join(sorted(missing))}.")
    if len(labels) < 2:
        raise SgmftError(
            f"A comparison needs training posts of at least two labels; the {len(train)} usable "
            f"ones have {len(labels)}."
        )
    return ComparisonData(
        labels=labels,
        keys=[keys[i] for i in good],
        classes=[labels.index(str(post.label)) for post in usable],
        test=[i in test for i in range(len(usable))],
        held_out=held_out,
        places=[(post.place, post.id or "") for post in usable],
        groups={column: [str(post.row.get(column, "")) for post in usable] for column in by},
        store=str(store.absolute()),
        encoded=encoded,
        read=len(posts),
        left_out=count_errors(posts),
    )


def _encode(
    posts: list[Post],
    setting: EncoderSetting,
    rows: Sequence[Row],
    store: Path,
    device: str | None,
    keys: dict[int, str],
    stores: list[FeatureStore],
    on_encoded: OnEncoded | None,
) -> EncodedSetting:
    """Fill the store; note content keys, and the errors of posts that cannot be used.

    Pictures that another setting's encoder has seen in the same way are not encoded again.
    """
    grid = {} if setting.patch_grid is None else {"patch_grid": setting.patch_grid}
    model = load_encoder(setting.name, cleaning=setting.cleaning, device=device, **grid)
    methods = [get_method(row.method) for row in rows]
    tokens = any(
        method.uses_tokens(method.preset(row.preset, row.settings))
        for method, row in zip(methods, rows, strict=True)
    )
    features = FeatureStore(store, model.info, tokens)
    done = 0
    image_key = model.info.image_key
    alike = [store for store in stores if image_key and store.info.image_key == image_key]
    pictures = next((store for store in alike if store.tokens or not tokens), None)
    stores.append(features)
    for chunk in encode_posts(list(posts), model, tokens=tokens, store=features, pictures=pictures):
        posts[done : done + len(chunk.posts)] = chunk.posts
        keys.update((done + i, key) for i, key in zip(chunk.good, chunk.keys, strict=True))
        done += len(chunk.posts)
        if on_encoded:
            on_encoded(setting.key, done)
    labels = sorted({str(post.label) for post in posts if post.error is None})
    prompts = {}
    for method in methods:
        vectors = method.encode_prompts(labels, model)
        if vectors is not None:
            prompts[method.name] = dict(zip(labels, vectors.tolist(), strict=True))
    return EncodedSetting(asdict(model.info), tokens, prompts)


def _split(posts: Sequence[Post], split: Split) -> tuple[list[int], set[int], list[int]]:
    """Positions of training posts, of test posts, and of the validation posts among the former."""
    if split.test is None:
        train, drawn = split_posts(posts, split.test_size, split.seed, _way(posts, split))
        test = set(drawn)
    else:
        column, value = split.test
        test = {i for i, post in enumerate(posts) if str(post.row.get(column, "")) == value}
        train = [i for i in range(len(posts)) if i not in test]
    if not test or len(train) < 2:
        where = "" if split.test is None else f" with {split.test[0]}={split.test[1]}"
        raise SgmftError(
            f"{len(posts)} usable posts were divided into {len(train)} to train on and "
            f"{len(test)} to test on{where}: both are needed."
        )
    left = [posts[i] for i in train]
    _, held = split_posts(left, VAL_SIZE, split.seed, _way(left, split))
    return train, test, [train[i] for i in held]


def _way(posts: Sequence[Post], split: Split) -> str:
    """By user, unless otherwise asked, where these posts have several."""
    users = {post.user for post in posts if post.user is not None}
    return split.by if split.by != "auto" else "user" if len(users) > 1 else "label"
