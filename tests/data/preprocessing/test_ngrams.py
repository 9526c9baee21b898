"""Character n-grams: against a loop and scikit-learn, and for any text."""

import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import given, strategies as st
from sklearn.feature_extraction.text import CountVectorizer

from sgmft.data.preprocessing.text import BUCKETS, NGRAM_CHARACTERS, hash_ngrams

UNSPACED = "在家看书。、ひらカナー々不不ไทยລາວမြန်ខ្មែរ𠀀"
SPACED = "abcXYZ019.,!#ßİſçдЖΣλ한국العअ😂"
BLANKS = " \t\n\u3000\u00a0"

texts = st.text(st.sampled_from(UNSPACED + SPACED + BLANKS), max_size=40)


def number(gram: str) -> int:
    return zlib.crc32(gram.encode("utf-8", "surrogatepass")) & 0xFFFFFF


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
    return Counter(map(number, grams.elements()))


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


def test_small_texts() -> None:
    for text, expected in {
        " \n\u3000": [],
        "家": ["家"],
        "在家": ["在", "家", "在家"],
        "a": [" a", "a ", " a "],
        "家a": ["家", " a", "a ", " a "],
        "在 家": ["在", "家"],
        "家家": ["家", "家", "家家"],
    }.items():
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
    text = piece * (3 * NGRAM_CHARACTERS // len(piece))
    assert np.array_equal(hash_ngrams(text), hash_ngrams(text[:NGRAM_CHARACTERS]))
    assert len(hash_ngrams(text)) <= 12 * NGRAM_CHARACTERS  # one character folds into three at most
    assert len(hash_ngrams(text[: NGRAM_CHARACTERS - 1])) < len(hash_ngrams(text)) or piece == " "


def test_numbers_stay_as_they_are_or_stored_features_mean_something_else() -> None:
    assert hash_ngrams("家").tolist() == [number("家")] == [15617159]
    grams = [" a", "a ", " a "]
    assert hash_ngrams("A").tolist() == list(map(number, grams)) == [15230867, 5335249, 8709596]
