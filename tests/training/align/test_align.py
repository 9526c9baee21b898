"""Encoders adapted to pairs: texts find their pictures, and the result is an encoder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from clip_posts import clip as clip
from sgmft import SemanticLocator
from sgmft.data.posts import Post
from sgmft.errors import SgmftError
from sgmft.features.encode import encode_all
from sgmft.features.encoder_handle import EncoderHandle
from sgmft.features.encoders.registry import load_encoder
from sgmft.jobs.align import align_encoder
from sgmft.training.finetune.settings import Tuning

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


def test_texts_find_their_pictures_and_the_folder_is_an_encoder(pairs, source, tmp_path):
    found = align_encoder(pairs, tmp_path / "a", source(), width=10, seed=3)
    assert found.before is None, "the two sides shared no space"
    assert found.skipped == {"has no text or no picture": 2}
    assert found.pairs + found.held_out == 240 and found.held_out >= 24
    assert found.after["text to picture R@10"] > 1.5 * 10 / found.held_out, "of chance"
    assert json.loads((tmp_path / "a" / "align.json").read_text())["after"] == found.after
    assert not (tmp_path / "a" / "checkpoint").exists()
    encoder = load_encoder(str(tmp_path / "a"))
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


def test_an_aligned_encoder_trains_and_is_saved_by_name(pairs, source, tmp_path):
    align_encoder(pairs, tmp_path / "a", source(), width=10)
    locator = SemanticLocator(str(tmp_path / "a")).fit(pairs)
    locator.save_pretrained(tmp_path / "m")
    loaded = SemanticLocator.from_pretrained(tmp_path / "m")
    expected = locator.predict_proba(pairs[:5])
    np.testing.assert_array_equal(loaded.predict_proba(pairs[:5]), expected)


def test_stopped_and_continued_is_the_same(pairs, source, tmp_path):
    class StopHereError(Exception):
        pass

    def stop(epoch: Any) -> None:
        if epoch.epoch == 3:
            raise StopHereError

    whole = align_encoder(pairs, tmp_path / "whole", source(), width=6)
    with pytest.raises(StopHereError):
        align_encoder(pairs, tmp_path / "some", source(), width=6, on_epoch=stop)
    assert (tmp_path / "some" / "checkpoint").is_dir()
    some = align_encoder(pairs, tmp_path / "some", source(), width=6)
    assert repr(some) == repr(whole)
    one, other = (tmp_path / x / "projections.safetensors" for x in ("whole", "some"))
    assert one.read_bytes() == other.read_bytes()


@pytest.mark.parametrize("name", ["projected.json", "projections.safetensors"])
def test_damage_is_named(pairs, source, tmp_path, name):
    align_encoder(pairs, tmp_path / "a", source(), width=3)
    path: Path = tmp_path / "a" / name
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


@pytest.mark.parametrize("kind", ["lora", "full"])
def test_chinese_clip_adapts_its_towers(pairs, clip, tmp_path, kind):
    def written(text: str) -> str:
        return "".join(HANZI[3 * k + "rgb".index(w[0])] for k, w in enumerate(text.split()))

    hanzi = [Post(written(pair.text), pair.images) for pair in pairs[:120]]
    tuning = Tuning(**{**vars(LEARNING), "kind": kind, "augment": False})
    encoder = EncoderHandle(clip, device="cpu")
    found = align_encoder(hanzi, tmp_path / "a", encoder, tuning=tuning)
    assert found.history[-1].loss < found.history[0].loss
    assert found.before.keys() == found.after.keys()
    adapted = load_encoder(str(tmp_path / "a"))
    assert adapted.info.fingerprint != load_encoder(clip).info.fingerprint
    kept = {x.name for x in (tmp_path / "a").iterdir()}
    assert ("adapter_model.safetensors" in kept) == (kind == "lora")
    further = EncoderHandle(str(tmp_path / "a"), device="cpu")
    again = align_encoder(hanzi, tmp_path / "b", further, tuning=tuning)
    assert again.before == pytest.approx(found.after), "the same pairs measure"


@pytest.mark.slow
def test_on_the_command_line(run, sample, store, tmp_path):
    ended = run("align", sample, "-o", tmp_path / "a", "--features", store, "--width", 8)
    assert ended.returncode == 0, ended.stderr
    assert "text to picture R@10" in ended.stderr and "Use it with --encoder" in ended.stderr
