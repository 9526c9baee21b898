"""Character n-grams: against a loop and scikit-learn, for any text, and networks that read them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from sgmft.data.preprocessing.ngrams import BUCKETS, MAX_CHARACTERS, hash_ngrams
from sgmft.features.batch import Batch
from sgmft.features.features import LabelledFeatures
from sgmft.models.base import Network, NetworkConfig, Output
from sgmft.models.inference import predict_logits
from sgmft.models.presets import TrainConfig
from sgmft.training.trainer import train
from synthetic_features import NearestMean, make_features

UNSPACED = "在家看书。、ひらカナー々不不ไทยລາວမြန်ខ្មែរ𠀀"
SPACED = "abcXYZ019.,!#ßİſçдЖΣλ한국العअ😂"
BLANKS = " \t\n\u3000\u00a0"

texts = st.text(st.sampled_from(UNSPACED + SPACED + BLANKS), max_size=40)


def crc32(data: bytes) -> int:
    """Bit by bit, as in ISO 3309."""
    rest = 0xFFFFFFFF
    for byte in data:
        rest ^= byte
        for _ in range(8):
            rest = rest >> 1 ^ (0xEDB88320 if rest & 1 else 0)
    return rest ^ 0xFFFFFFFF


def number(gram: str) -> int:
    return crc32(gram.encode("utf-8", "surrogatepass")) & 0xFFFFFF


def slow(text: str) -> Counter[str]:
    """One character after another; the alphabets above say which rule it falls under."""
    runs: list[tuple[str, str]] = []
    last = ""
    for c in text.casefold():
        rule = "" if c.isspace() else "unspaced" if c in UNSPACED else "spaced"
        if rule and rule == last:
            runs[-1] = (rule, runs[-1][1] + c)
        elif rule:
            runs.append((rule, c))
        last = rule
    found: Counter[str] = Counter()
    for rule, run in runs:
        run, longest = (run, 3) if rule == "unspaced" else (f" {run} ", 5)
        for start in range(len(run)):
            for end in range(start + 1, min(start + longest, len(run)) + 1):
                if rule == "unspaced" or end - start > 1:
                    found[run[start:end]] += 1
    return found


def counts(text: str) -> Counter[int]:
    return Counter(hash_ngrams(text).tolist())


def numbers(grams: Counter[str]) -> Counter[int]:
    found: Counter[int] = Counter()
    for gram, count in grams.items():
        found[number(gram)] += count
    return found


@given(texts)
def test_as_a_loop_over_characters_has_it(text: str) -> None:
    assert counts(text) == numbers(slow(text))


@given(st.text(st.sampled_from(SPACED + " \n"), max_size=40))
def test_words_are_cut_as_scikit_learn_cuts_them(text: str) -> None:
    cut = CountVectorizer(analyzer="char_wb", ngram_range=(2, 5), lowercase=False).build_analyzer()
    assert counts(text) == numbers(Counter(cut(text.casefold())))


@given(st.text(st.sampled_from(UNSPACED), max_size=40))
def test_scripts_without_spaces_are_cut_as_scikit_learn_cuts_characters(text: str) -> None:
    cut = CountVectorizer(analyzer="char", ngram_range=(1, 3), lowercase=False).build_analyzer()
    assert counts(text) == numbers(Counter(cut(text)))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", []),
        (" \n\u3000", []),
        ("家", ["家"]),
        ("在家", ["在", "家", "在家"]),
        ("a", [" a", "a ", " a "]),
        ("家a", ["家", " a", "a ", " a "]),
        ("在 家", ["在", "家"]),
        ("家家", ["家", "家", "家家"]),
    ],
)
def test_small_texts(text: str, expected: list[str]) -> None:
    assert counts(text) == numbers(Counter(expected))


@given(st.text(st.characters(), max_size=60))  # lone surrogates, too
def test_of_any_text(text: str) -> None:
    found = hash_ngrams(text)
    assert found.dtype == np.int32 and found.ndim == 1
    assert ((found >= 0) & (found < BUCKETS)).all()
    assert np.array_equal(found, hash_ngrams(text))
    assert (len(found) > 0) == bool(text.strip())
    assert np.array_equal(found, hash_ngrams(" ".join(text.split())))
    assert np.array_equal(found, hash_ngrams(text.casefold()))


@given(st.lists(st.text(st.characters(), max_size=20), max_size=4), st.randoms())
def test_what_stands_on_the_two_sides_of_a_space_is_apart(parts: list[str], rng) -> None:
    together = counts(" ".join(parts))
    assert together == sum((counts(part) for part in parts), Counter())
    rng.shuffle(parts)
    assert counts("\n".join(parts)) == together


@pytest.mark.parametrize("piece", ["在家看书", "word and words ", "ΐ", "家a", " "])
def test_of_long_texts_the_beginning_is_read(piece: str) -> None:
    text = piece * (3 * MAX_CHARACTERS // len(piece))
    assert np.array_equal(hash_ngrams(text), hash_ngrams(text[:MAX_CHARACTERS]))
    assert len(hash_ngrams(text)) <= 12 * MAX_CHARACTERS  # one character folds into three at most
    assert len(hash_ngrams(text[: MAX_CHARACTERS - 1])) < len(hash_ngrams(text)) or piece == " "


def test_in_other_processes_too() -> None:
    text = "Shopping 在南京路 😂"
    program = (
        "from sgmft.data.preprocessing.ngrams import hash_ngrams; "
        f"print(hash_ngrams({text!r}).tolist())"
    )
    for seed in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", program],
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONUTF8": "1"},
            capture_output=True,
            text=True,
            check=True,
        )
        assert done.stdout.strip() == str(hash_ngrams(text).tolist())


def test_numbers_stay_as_they_are_or_stored_features_mean_something_else() -> None:
    assert hash_ngrams("家").tolist() == [number("家")] == [15617159]
    grams = [" a", "a ", " a "]
    assert hash_ngrams("A").tolist() == list(map(number, grams)) == [15230867, 5335249, 8709596]


# --- networks


class Bag(Network):
    """Adds up the weights of a post's n-grams, which must come with every batch."""

    uses_ngrams = True

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config)
        self.text = torch.nn.Embedding(300, config.classes)
        self.image = torch.nn.Identity()

    def forward(self, batch: Batch) -> Output:
        assert batch.ngrams is not None
        there = (batch.ngrams >= 0)[..., None]
        logits = (self.text(batch.ngrams.clamp(min=0)) * there).sum(1)
        return Output(logits, logits)


class Deaf(NearestMean):
    """Must be given none."""

    def solve(self, batch: Batch, labels: torch.Tensor) -> None:
        assert batch.ngrams is None
        super().solve(batch, labels)

    def forward(self, batch: Batch) -> Output:
        assert batch.ngrams is None
        return super().forward(batch)


CONFIG = NetworkConfig(3, 12, 10)
FAST = TrainConfig(learning_rate=0.1, batch_size=8, epochs=6, patience=0)


def bag() -> Bag:
    torch.manual_seed(0)
    return Bag(CONFIG)


def test_a_network_that_reads_them_is_given_them_in_training_and_after() -> None:
    data, held_out = make_features(45), make_features(9)
    network = bag()
    history = train(network, data, held_out, FAST)
    assert history[-1].accuracy > 0.9 and history[-1].val_accuracy > 0.9
    said = predict_logits(network, data.features).logits
    weight = network.text.weight.detach()
    for i in range(45):
        grams = data.features.ngrams.take(torch.tensor([i])).pad()[0][0]
        expected = sum(weight[g] for g in grams)
        torch.testing.assert_close(said[i], expected)


def test_another_network_is_not() -> None:
    network = Deaf(CONFIG)
    train(network, make_features(9), make_features(6), FAST)
    predict_logits(network, make_features(6).features)


def test_a_checkpoint_of_other_n_grams_is_not_continued(tmp_path: Path) -> None:
    data = make_features(20)
    grams = data.features.ngrams
    other = replace(data.features, ngrams=replace(grams, values=grams.values[::-1].copy()))
    changed = LabelledFeatures(other, data.labels)
    train(bag(), data, None, FAST, checkpoint=tmp_path)
    again, expected = bag(), bag()
    train(again, changed, None, FAST, checkpoint=tmp_path)
    train(expected, changed, None, FAST)
    assert torch.equal(again.text.weight, expected.text.weight)
