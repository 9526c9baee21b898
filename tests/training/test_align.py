"""Alignment: loss and recall against slow loops, which pairs share something, adapted encoders."""

import json
import math
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from PIL import Image
from torch.nn.functional import normalize

from sgmft import SemanticLocator
from sgmft.data.posts import Post
from sgmft.errors import SgmftError
from sgmft.features.encode import EncodedPosts, encode_all
from sgmft.features.encoder_handle import EncoderHandle
from sgmft.features.encoders.registry import load_encoder
from sgmft.features.features import Features
from sgmft.jobs.align import AlignmentResult, align_encoder
from sgmft.models.base import NetworkConfig
from sgmft.training.align import Contrast, Pairs, find_pairs, info_nce, recall
from sgmft.training.finetune.settings import Tuning
from small_networks import StopHereError, stop_after
from synthetic_features import make_features

WORDS = ["red", "green", "blue"]
LEARNING = Tuning(epochs=4, patience=4, batch_size=40, rank=4, encoder_learning_rate=3e-3)
HANZI = "的一是了我不在人有他这中大来上个国到说们为子和你地出道也时年得就那要下以生会自着去之过家学"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> list[Post]:
    """240 pictures, each with a text that says how much of which colour is where, and two alone."""
    folder, rng, posts = tmp_path_factory.mktemp("pairs"), np.random.default_rng(0), []
    for i in range(240):
        corners = rng.integers(0, 3, 4)
        picture = np.zeros((16, 16, 3), np.uint8)
        for k, colour in enumerate(corners):
            at = slice(8 * (k // 2), 8 * (k // 2) + 8), slice(8 * (k % 2), 8 * (k % 2) + 8)
            picture[(*at, colour)] = rng.integers(150, 255)
        Image.fromarray(picture).save(folder / f"{i}.png")
        words = " ".join(f"{WORDS[c]}{k}" for k, c in enumerate(corners))
        posts.append(Post(words, folder / f"{i}.png", label=WORDS[corners[0]]))
    return [*posts, Post("alone"), Post("", folder / "0.png")]


@pytest.fixture(scope="module")
def source(tiny: Any) -> Any:
    return lambda: EncoderHandle("tiny", device="cpu")


@pytest.fixture(scope="module")
def aligned(pairs, source, tmp_path_factory) -> tuple[AlignmentResult, Path]:
    """The tiny encoder aligned, and its folder, to be read and copied only."""
    folder = tmp_path_factory.mktemp("aligned") / "a"
    return align_encoder(pairs, folder, source(), width=10, seed=3), folder


def test_texts_find_their_pictures_and_the_folder_is_an_encoder(pairs, source, aligned, tmp_path):
    found, folder = aligned
    assert found.before is None, "the two sides shared no space"
    assert found.skipped == {"has no text or no picture": 2}
    assert found.pairs + found.held_out == 240 and found.held_out >= 24
    assert found.after["text to picture R@10"] > 1.5 * 10 / found.held_out, "of chance"
    assert json.loads((folder / "align.json").read_text())["after"] == found.after
    assert not (folder / "checkpoint").exists()
    encoder = load_encoder(str(folder))
    info = encoder.info
    assert (info.text_width, info.image_width, info.word_width) == (10, 10, 10)
    assert info.shared_space and info.logit_scale > 1
    known = encode_all(pairs[:9], encoder, tokens=True).features
    plain = encode_all(pairs[:9], source().encoder, tokens=True).features
    words = known.words.pad()[0].astype(np.float32)
    assert words.shape[:2] == plain.words.pad()[0].shape[:2] and words.shape[2] == 10
    np.testing.assert_allclose(words.sum(1) / 4, known.text, atol=2e-2)  # the map is affine
    other = align_encoder(pairs, tmp_path / "b", source(), width=10, seed=4)
    assert other.after != found.after
    two = load_encoder(str(tmp_path / "b")).info.fingerprint
    assert len({two, info.fingerprint, source().encoder.info.fingerprint}) == 3


def test_an_aligned_encoder_trains_and_is_saved_by_name(pairs, aligned, tmp_path):
    locator = SemanticLocator(str(aligned[1])).fit(pairs[:60])
    locator.save_pretrained(tmp_path / "m")
    loaded = SemanticLocator.from_pretrained(tmp_path / "m")
    expected = locator.predict_proba(pairs[:5])
    np.testing.assert_array_equal(loaded.predict_proba(pairs[:5]), expected)


def test_stopped_and_continued_is_the_same(pairs, source, tmp_path):
    pairs = pairs[:90]  # two steps an epoch
    whole = align_encoder(pairs, tmp_path / "whole", source(), width=6)
    with pytest.raises(StopHereError):
        align_encoder(pairs, tmp_path / "some", source(), width=6, on_epoch=stop_after(3))
    assert (tmp_path / "some" / "checkpoint").is_dir()
    some = align_encoder(pairs, tmp_path / "some", source(), width=6)
    assert repr(some) == repr(whole)
    one, other = (tmp_path / x / "projections.safetensors" for x in ("whole", "some"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("name", ["projected.json", "projections.safetensors"])
def test_damage_is_named(aligned, tmp_path, name):
    path = shutil.copytree(aligned[1], tmp_path / "a") / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(SgmftError, match=r"damaged|cannot be read as an aligned encoder"):
        load_encoder(str(tmp_path / "a"))


def test_what_cannot_be_done_is_told(pairs, source, tmp_path):
    with pytest.raises(SgmftError, match="maps behind it are learned"):
        align_encoder(pairs, tmp_path / "a", source(), tuning=Tuning())
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "x.txt").write_text("x")
    with pytest.raises(SgmftError, match="holds other files"):
        align_encoder(pairs, tmp_path / "mine", source())
    with pytest.raises(SgmftError, match="20 posts with text and picture, not 1"):
        align_encoder(pairs[:1], tmp_path / "a", source())


def found_pictures(posts: list[Post], encoder: Any) -> float:
    """The share of texts whose picture is among the nearest ten, and of pictures."""
    pooled = encode_all(posts, encoder).features.pooled()
    ranks = recall(*(normalize(torch.from_numpy(x), dim=-1) for x in pooled), (10,))
    return sum(ranks.values()) / 2


@pytest.mark.parametrize(
    ("family", "kind"),
    [
        ("own", "lora"),
        pytest.param("clip", "lora", marks=pytest.mark.slow),
        pytest.param("siglip", "full", marks=pytest.mark.slow),
        pytest.param("own", "full", marks=pytest.mark.slow),
        pytest.param("altclip", "lora", marks=pytest.mark.slow),
    ],
)
def test_a_dual_encoder_adapts_its_towers(pairs, clip, families, tmp_path, family, kind):
    letters = HANZI if family == "own" else "abcdefghijkl"
    base = clip if family == "own" else f"hf:{families[family]}"

    def written(text: str) -> str:
        return "".join(letters[3 * k + "rgb".index(w[0])] for k, w in enumerate(text.split()))

    posts = [Post(written(pair.text), pair.images) for pair in pairs[:120]]
    tuning = replace(LEARNING, kind=kind, augment=False)
    found = align_encoder(posts, tmp_path / "a", EncoderHandle(base, device="cpu"), tuning=tuning)
    assert found.history[-1].loss < found.history[0].loss
    assert found.before.keys() == found.after.keys()
    plain, adapted = load_encoder(base), load_encoder(str(tmp_path / "a"))
    assert found_pictures(posts, adapted) > found_pictures(posts, plain)
    assert adapted.info.fingerprint != plain.info.fingerprint
    kept = {x.name for x in (tmp_path / "a").iterdir()}
    assert ("adapter_model.safetensors" in kept) == (kind == "lora")
    further = EncoderHandle(str(tmp_path / "a"), device="cpu")
    again = align_encoder(posts, tmp_path / "b", further, tuning=replace(tuning, epochs=1))
    assert again.before == pytest.approx(found.after), "the same pairs measure"


@pytest.mark.slow
def test_on_the_command_line(run, sample, store, tmp_path):
    ended = run("align", sample, "-o", tmp_path / "a", "--features", store, "--width", 8)
    assert ended.returncode == 0, ended.stderr
    assert "text to picture R@10" in ended.stderr and "Use it with --encoder" in ended.stderr


# --- loss, recall and which pairs share something


def sides(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    rng = torch.Generator().manual_seed(seed)
    return tuple(normalize(torch.randn(count, 5, generator=rng).double()) for _ in range(2))


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


@given(st.integers(1, 12), st.integers(0, 99))
def test_recall(count, seed):
    text, image = sides(count, seed)
    found, expected = recall(text, image, (1, 3)), {}
    for name, a, b in (("text to picture", text, image), ("picture to text", image, text)):
        for k in (1, 3):
            hits = 0
            for i in range(count):
                hits += i in sorted(range(count), key=lambda j: -float(a[i] @ b[j]))[:k]
            expected[f"{name} R@{k}"] = hits / count
    assert found == pytest.approx(expected)


def test_recall_of_what_is_all_the_same_is_that_of_chance():
    one = normalize(torch.ones(41, 3), dim=-1)
    assert recall(one, one, (10, 21)) == {
        f"{a} to {b} R@{k}": float(k == 21)
        for a, b in (("text", "picture"), ("picture", "text"))
        for k in (10, 21)
    }


def numbered(texts: list[int], images: list[int]) -> Pairs:
    """As many as there are numbers, filled up with different ones to 40."""
    more = range(100, 140 - len(texts))
    text, image = (np.array([[float(x)] for x in (*some, *more)]) for some in (texts, images))
    has = np.ones(len(text), bool)
    kept = [Post(str(i)) for i in range(len(text))]
    features = Features(text, image, has, has)
    return find_pairs(EncodedPosts(kept, [], [p.text for p in kept], features))[0]


def test_pairs_that_share_a_side_also_through_others_have_one_number():
    number = numbered([1, 1, 2, 3, 4], [5, 6, 6, 7, 8]).number.tolist()
    assert number[0] == number[1] == number[2]
    assert len({number[0], *number[3:]}) == 38
    assert sorted(set(number)) == list(range(38))


@pytest.mark.parametrize("seed", range(5))
def test_held_out_pairs_share_nothing_with_the_others(seed):
    found = numbered([1, 1, 1, 2, 2, 3], [1, 2, 3, 4, 4, 5])
    out = found.held_out(seed)
    assert not set(found.number[out].tolist()) & set(found.number[~out].tolist())
    assert 4 <= int(out.sum()) <= 7
    assert np.array_equal(out, found.held_out(seed)), "the seed decides"


def test_pairs_that_all_share_a_text_are_refused():
    with pytest.raises(SgmftError, match="nothing to tell apart"):
        numbered([1] * 40, list(range(40))).held_out(0)


def test_too_few_pairs_are_told_with_what_was_left_out():
    data = make_features(18).features
    refused = [Post(error="is empty")] * 2
    with pytest.raises(SgmftError, match=r"20 posts with text and picture, not \d+, and were left"):
        find_pairs(EncodedPosts([Post(str(i)) for i in range(18)], refused, ["k"] * 18, data))


def test_the_scale_is_at_most_a_hundred():
    for scale, kept in ((1e4, 100.0), (14.0, 14.0)):
        assert Contrast(NetworkConfig(1, 2, 2), scale).scale.item() == pytest.approx(kept)
