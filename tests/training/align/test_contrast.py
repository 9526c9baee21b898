"""The contrastive loss and recall, against slow loops; which pairs are not told apart."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.functional import normalize

from sgmft.data.posts import Post
from sgmft.errors import SgmftError
from sgmft.features.encode import EncodedPosts
from sgmft.features.features import Features
from sgmft.training.align import Pairs, find_pairs, info_nce, recall
from synthetic_features import make_features


def sides(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return tuple(normalize(torch.randn(count, 5, generator=rng).double()) for _ in range(2))


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 9), st.integers(1, 4), st.integers(0, 99))
def test_info_nce(count, numbers, seed):
    text, image = sides(count, seed)
    number = torch.randint(numbers, (count,), generator=torch.Generator().manual_seed(seed))
    total = 0.0
    for one, other in ((text.tolist(), image.tolist()), (image.tolist(), text.tolist())):
        for i in range(count):
            rivals = [j for j in range(count) if j == i or number[j] != number[i]]
            products = [sum(a * b for a, b in zip(one[i], x, strict=True)) for x in other]
            scores = {j: 7.0 * products[j] for j in rivals}
            total += math.log(sum(math.exp(s) for s in scores.values())) - scores[i]
    found = info_nce(text, image, torch.tensor(7.0).double(), number)
    assert float(found) == pytest.approx(total / (2 * count), abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 12), st.integers(0, 99))
def test_recall(count, seed):
    text, image = sides(count, seed)
    found = recall(text, image, (1, 3))
    for k in (1, 3):
        hits = [0, 0]
        for i in range(count):
            nearest = sorted(range(count), key=lambda j: -float(text[i] @ image[j]))[:k]
            hits[0] += i in nearest
            nearest = sorted(range(count), key=lambda j: -float(image[i] @ text[j]))[:k]
            hits[1] += i in nearest
        assert found[f"text to picture R@{k}"] == pytest.approx(hits[0] / count)
        assert found[f"picture to text R@{k}"] == pytest.approx(hits[1] / count)


def test_recall_of_what_is_all_the_same_is_that_of_chance():
    one = normalize(torch.ones(41, 3), dim=-1)
    assert recall(one, one, (10, 21)) == {
        f"{a} to {b} R@{k}": float(k == 21)
        for a, b in (("text", "picture"), ("picture", "text"))
        for k in (10, 21)
    }


def pairs(texts: list[int], images: list[int]) -> Pairs:
    """As many as there are numbers, filled up with different ones to 40."""
    more = range(100, 140 - len(texts))
    text, image = (torch.tensor([[float(x)] for x in (*some, *more)]) for some in (texts, images))
    has = torch.ones(len(text), dtype=torch.bool)
    kept = [Post(str(i)) for i in range(len(text))]
    return find_pairs(
        EncodedPosts(kept, [], [p.text for p in kept], Features(text, image, has, has))
    )[0]


def test_pairs_that_share_a_side_also_through_others_have_one_number():
    number = pairs([1, 1, 2, 3, 4], [5, 6, 6, 7, 8]).number.tolist()
    assert number[0] == number[1] == number[2]
    assert len({number[0], *number[3:]}) == 38
    assert sorted(set(number)) == list(range(38))


@pytest.mark.parametrize("seed", range(5))
def test_held_out_pairs_share_nothing_with_the_others(seed):
    found = pairs([1, 1, 1, 2, 2, 3], [1, 2, 3, 4, 4, 5])
    out = found.held_out(seed)
    assert not set(found.number[out].tolist()) & set(found.number[~out].tolist())
    assert 4 <= int(out.sum()) <= 7
    assert torch.equal(out, found.held_out(seed)), "the seed decides"


def test_pairs_that_all_share_a_text_are_refused():
    with pytest.raises(SgmftError, match="nothing to tell apart"):
        pairs([1] * 40, list(range(40))).held_out(0)


def test_too_few_pairs_are_told_with_what_was_left_out():
    data = make_features(18).features
    refused = [Post(error="is empty")] * 2
    with pytest.raises(SgmftError, match=r"20 posts with text and picture, not \d+, and were left"):
        find_pairs(EncodedPosts([Post(str(i)) for i in range(18)], refused, ["k"] * 18, data))


def test_the_scale_is_at_most_a_hundred():
    from sgmft.models.base import NetworkConfig
    from sgmft.training.align import Contrast

    for scale, kept in ((1e4, 100.0), (14.0, 14.0)):
        assert Contrast(NetworkConfig(1, 2, 2), scale).scale.item() == pytest.approx(kept)
