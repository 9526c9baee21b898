"""What all rows of a comparison share: one split, the same posts, and each picture encoded once."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from sgmft.data.posts import Post
from sgmft.errors import SgmftError
from sgmft.evaluation.compare.catalogue import make_plan
from sgmft.evaluation.compare.prepare import Split, prepare_comparison
from sgmft.features.encoders.registry import ENCODERS


def data_of(posts: list[Post], tmp_path: Path, split: Split, **options: Any) -> Any:
    plan = make_plan("1", "", "text-only", encoder="tiny")
    return prepare_comparison(posts, plan.rows(), "tiny", tmp_path / "features", split, **options)


def test_auto_splits_by_user_and_validation_posts_are_training_posts(tiny, small_posts, tmp_path):
    data = data_of(small_posts, tmp_path, Split())
    users = {post.id: post.user for post in small_posts}
    sides: dict[bool, set[Any]] = {True: set(), False: set()}
    for (_, name), test in zip(data.places, data.test, strict=True):
        sides[test].add(users[name])
    assert sides[True] and not sides[True] & sides[False]
    assert data.held_out and not any(data.test[i] for i in data.held_out)
    json.dumps(data.encoded["tiny/light"].info)


def test_two_users_are_divided_once(tiny, small_posts, tmp_path):
    """One of them is left to train on, whose posts are then divided by label."""
    posts = [replace(post, user="ab"[i % 2]) for i, post in enumerate(small_posts)]
    data = data_of(posts, tmp_path, Split())
    users = {post.id: post.user for post in posts}
    assert len({users[name] for (_, name), t in zip(data.places, data.test, strict=True) if t}) == 1
    assert data.held_out and not any(data.test[i] for i in data.held_out)
    with pytest.raises(SgmftError, match="two users or more, and the posts name 1"):
        data_of(posts, tmp_path, Split(by="user"))


def test_a_column_can_hold_the_split(tiny, small_posts, tmp_path):
    posts = [
        replace(post, row={"part": "test" if i % 5 == 0 else "train"})
        for i, post in enumerate(small_posts)
    ]
    data = data_of(posts, tmp_path, Split(test=("part", "test")), by=["part"])
    assert data.groups["part"] == ["test" if test else "train" for test in data.test]


@pytest.mark.parametrize(
    ("split", "options", "message"),
    [
        (Split(test=("part", "test")), {}, "part=test: both are needed"),
        (Split(by="place"), {}, "cannot be split by 'place'"),
        (Split(by="label"), {"by": ["season"]}, "no column 'season' for --by"),
    ],
)
def test_mistakes_are_found_before_anything_is_encoded(tiny, small_posts, tmp_path, split, options,
                                                      message, monkeypatch):  # fmt: skip
    monkeypatch.setattr("sgmft.evaluation.compare.prepare.load_encoder", None)
    with pytest.raises(SgmftError, match=message):
        data_of(small_posts, tmp_path, split, **options)


def test_a_post_that_one_encoder_cannot_use_is_left_out_for_all(tiny, small_posts, tmp_path):
    only_stop_words = Post("the of", [], id="stop", label="Home", user="u0")
    unlabelled = Post("sofa", [], id="none")
    plan = make_plan("1,5", "", "text-only,cleaning-paper", encoder="tiny")
    posts = [*small_posts, only_stop_words, unlabelled]
    data = prepare_comparison(posts, plan.rows(), "tiny", tmp_path / "features", Split(by="label"))
    assert set(data.encoded) == {"tiny/light", "tiny/paper"}
    assert len(data.keys) == len(small_posts) and sum(data.left_out.values()) == 2


def test_a_picture_is_encoded_once_for_all_cleanings(tiny, small_posts, tmp_path, monkeypatch):
    seen: list[tuple[str, int]] = []
    real = ENCODERS["tiny"].encode_images

    def watched(self, pictures, tokens):
        seen.append((self.info.cleaning, len(pictures)))
        return real(self, pictures, tokens)

    monkeypatch.setattr(ENCODERS["tiny"], "encode_images", watched)
    rows = make_plan("1,5", "", "sgmft-tokens,cleaning-paper,cleaning-none").rows()
    data = prepare_comparison(small_posts, rows, "tiny", tmp_path / "features", Split(by="label"))
    assert len(data.encoded) == 3
    assert seen == [("light", 9), ("paper", 0), ("none", 0)]
