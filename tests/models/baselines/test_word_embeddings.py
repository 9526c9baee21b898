"""Words to numbers to embeddings and back, and what is not in the vocabulary."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st

from sgmft import SemanticLocator, read_posts
from sgmft.errors import SgmftError
from sgmft.features.encoders.text_encoders import hash_word
from sgmft.features.features import Batch
from sgmft.models.baselines.word_systems import WordEmbeddings, vocabulary, word_ids
from sgmft.models.method import BUDGET
from sgmft.models.registry import METHODS as EVERY
from token_batches import vectors

METHODS = {name: EVERY[name] for name in ("feature-level-cnn", "low-rank", "word-average")}


def features(*words):
    """What a store keeps of these words, as a network sees it (n, 3)."""
    numbers = np.frombuffer(b"".join(map(hash_word, words)), np.uint8).reshape(-1, 3)
    return torch.from_numpy(numbers.astype(np.float16)).float()


def embeddings(*words, width=4):
    known = vectors(features(*words))
    module = WordEmbeddings(len(vocabulary(known)), width)
    module.fit(known)
    return module


def place(module, word):
    return int(module.rows(features(word)))


# --- numbers ---


@given(st.text(min_size=1))
def test_a_number_survives_the_store(word):
    assert int(word_ids(features(word))) == int.from_bytes(hash_word(word), "big")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_every_byte_is_exact_in_every_format(dtype):
    every = torch.arange(256)
    for axis in range(3):
        words = torch.zeros(256, 3)
        words[:, axis] = every
        assert torch.equal(word_ids(words.to(dtype)), every * 256 ** (2 - axis))


def test_few_of_many_words_share_a_number():
    made = [f"{a}{b}" for a in "春夏秋冬天地人和风" for b in range(2222)] + ["家", "学校"]
    assert len(set(made)) == 20_000
    assert 20_000 - len(vocabulary(vectors(features(*made)))) <= 40  # 12 expected


# --- vocabulary ---


@given(st.lists(st.text(min_size=1), min_size=1, max_size=20), st.text(min_size=1))
def test_each_word_has_its_row_and_all_others_the_last(known, other):
    module = embeddings(*known)
    size = len(module.vocabulary)
    by_number = {}
    for word in known:
        by_number.setdefault(hash_word(word), set()).add(place(module, word))
    assert all(len(rows) == 1 for rows in by_number.values())
    assert {row for rows in by_number.values() for row in rows} == set(range(size))
    if hash_word(other) not in by_number:
        assert place(module, other) == size


def test_numbers_below_between_and_above_the_known_ones_are_unknown():
    module = WordEmbeddings(2, 4)
    module.fit(vectors(torch.tensor([[1.0, 0, 5], [1, 0, 3], [1, 0, 5]])))
    asked = torch.tensor([[0.0, 0, 0], [1, 0, 3], [1, 0, 4], [1, 0, 5], [255, 255, 255]])
    assert module.rows(asked).tolist() == [2, 0, 2, 1, 2]


def test_the_order_and_number_of_occurrences_do_not_matter():
    one, other = embeddings("a", "b", "c"), embeddings("c", "b", "b", "a", "c")
    assert torch.equal(one.vocabulary, other.vocabulary)


def test_unknown_words_start_as_zero_and_share_one_embedding():
    module = embeddings("家", "学校")
    asked = features("家", "电影", "hello")[None], torch.ones(1, 3, dtype=torch.bool)
    out = module(*asked)
    assert out[0, 0].any() and not out[0, 1:].any()
    with torch.no_grad():
        module.embedding.weight.normal_()
    out = module(*asked)
    assert torch.equal(out[0, 1], out[0, 2]) and torch.equal(out[0, 1], module.embedding.weight[-1])


def test_padding_is_zero_even_where_it_looks_like_a_word():
    module = WordEmbeddings(1, 4)
    module.fit(vectors(torch.zeros(1, 3)))  # the number of padding is a word's too
    mask = torch.tensor([[True, False]])
    out = module(torch.zeros(1, 2, 3), mask)
    assert torch.equal(out[0, 0], module.embedding.weight[0]) and not out[0, 1].any()
    wild = torch.tensor([[[0.0] * 3, [float("nan"), float("inf"), -1e30]]])
    assert torch.equal(module(wild, mask), out)


def test_a_vocabulary_of_another_size_is_refused():
    with pytest.raises(ValueError, match="2 words, not for 3"):
        WordEmbeddings(2, 4).fit(vectors(features("a", "b", "c")))


# --- networks ---


def network(name, *words, **settings):
    torch.manual_seed(0)
    method = METHODS[name]
    known = vectors(features(*words)) if words else None
    config = method.config(3, 3, 5, **method.network.measure(known), **settings)
    made = method.network(config)
    made.prepare(vectors(torch.zeros(2, 3)), vectors(torch.randn(4, 5)), known, None)
    return made.eval()


def batch(*texts, image=None):
    length = max(1, *(len(text) for text in texts))
    tokens, mask = torch.zeros(len(texts), length, 3), torch.zeros(len(texts), length).bool()
    for i, text in enumerate(texts):
        if text:
            tokens[i, : len(text)], mask[i, : len(text)] = features(*text), True
    torch.manual_seed(1)
    image = torch.randn(5).expand(len(texts), -1) if image is None else image
    there = torch.ones(len(texts), dtype=torch.bool)
    return Batch(torch.zeros(len(texts), 3), image, mask.any(1), there, tokens, mask)


@pytest.mark.parametrize("name", METHODS)
def test_the_training_posts_decide_the_vocabulary(name):
    made = network(name, "家", "学校", "家")
    assert made.config.vocabulary_size == 2
    assert made.text.embeddings.embedding.num_embeddings == 3
    assert "vocabulary_size" not in METHODS[name].setting_kinds()


@pytest.mark.parametrize("name", METHODS)
def test_known_words_count_and_unknown_ones_are_alike(name):
    made = network(name, "家", "学校", "电影")
    with torch.no_grad():
        texts = [["家"], ["学校"], ["hello"], ["world"], []]
        logits = made(batch(*texts)).logits
    assert torch.equal(logits[2], logits[3])
    assert len({tuple(row) for row in logits.tolist()}) == 4


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("words", [None, vectors(torch.zeros(0, 3))])
def test_without_any_words_every_word_is_unknown(name, words):
    method = METHODS[name]
    assert method.network.measure(words) == {"vocabulary_size": 1}
    torch.manual_seed(0)
    made = method.network(method.config(3, 3, 5, vocabulary_size=1)).eval()
    made.prepare(vectors(torch.zeros(0, 3)), vectors(torch.randn(4, 5)), words, None)
    assert made.text.embeddings.rows(torch.zeros(2, 3)).tolist() == [1, 1]
    assert made(batch([], ["家"])).logits.isfinite().all()


@pytest.mark.parametrize("name", METHODS)
def test_a_missing_text_is_its_null_vector_whatever_stands_there(name):
    made = network(name, "家", "学校")
    gone = batch(["家"], ["学校", "家"])._replace(has_text=torch.tensor([False, False]))
    with torch.no_grad():
        logits = made(gone).logits
        torch.testing.assert_close(logits[0], logits[1])
        assert torch.equal(made.text(gone), made.text.null.expand(2, -1))
        made.text.null.add_(torch.randn_like(made.text.null))
        assert not torch.allclose(made(gone).logits, logits)


@pytest.mark.slow
def test_a_locator_with_its_own_words_is_saved_and_loaded(sample, store, tmp_path):
    locator = SemanticLocator(method="word-average", settings={"epochs": 1}, features=store)
    posts = read_posts(sample)
    locator.fit(posts).save_pretrained(tmp_path / "model")
    again = SemanticLocator.from_pretrained(tmp_path / "model", features=store)
    assert again.encoder.info == locator.encoder.info
    assert again.network.config.vocabulary_size == locator.network.config.vocabulary_size > 28
    np.testing.assert_array_equal(again.predict_proba(posts), locator.predict_proba(posts))


@pytest.mark.parametrize("name", METHODS)
def test_methods_ask_for_their_encoder_and_a_higher_rate(name):
    method = METHODS[name]
    assert method.tokens and method.pick_encoder(None) == "cnn"
    assert method.preset().train == replace(BUDGET, learning_rate=1e-3)
    with pytest.raises(SgmftError, match="'compact'"):
        method.pick_encoder("compact")
