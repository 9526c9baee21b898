"""Words of a cleaned text, where they stand in the original, and the text without some."""

import numpy as np
import pytest
from hypothesis import given, strategies as st

from sgmft.data.preprocessing.text import CLEANINGS, clean_text
from sgmft.evaluation.explain.attribution import find_words, without

POST = "@小王 今晚去吃火锅，味道ｇｏｏｄ！ http://t.cn/good #周末# 真的好吃🍲"


def found_in(text, cleaning="light", most=64):
    cleaned = clean_text(text, CLEANINGS[cleaning])
    return cleaned, find_words(text, cleaned, most)


def test_words_are_found_where_their_author_wrote_them():
    _, found = found_in(POST)
    seen = {word.text: POST[slice(*word.shown)] for word in found}
    assert seen["good"] == "ｇｏｏｄ" and seen["味道"] == "味道" and seen["🍲"] == "🍲"
    assert not {",", "!", "#", "小王", "http"} & set(seen)


def test_a_mention_does_not_attract_the_word():
    _, found = found_in("@home_fan is home now")
    home = next(word for word in found if word.text == "home")
    assert home.shown == (13, 17)


def test_deleting_words():
    cleaned, found = found_in("I love hot pot, really! Don't you?")
    kept = np.array([word.text not in ("hot", "pot") for word in found])
    assert without(cleaned, found, kept) == "I love really! Don't you?"
    cleaned, found = found_in("今天火锅好吃")
    kept = np.array([word.text != "火锅" for word in found])
    assert without(cleaned, found, kept) == "今天 好吃"  # no new word across the gap
    assert without(cleaned, found, ~np.ones(len(found), bool)) == ""


def test_long_texts_are_told_apart_in_groups():
    text = " ".join(f"word{i}" for i in range(150))
    cleaned, found = found_in(text, most=64)
    assert len(found) == 50 and found[0].text == "word0 word1 word2"
    assert without(cleaned, found, np.ones(50, bool)) == cleaned


@pytest.mark.parametrize("text", ["!!!", "…", "，。"])
def test_marks_alone_are_one_word(text):
    cleaned, found = found_in(text, "none")
    assert [(word.start, word.end) for word in found] == [(0, len(cleaned))]


@given(
    st.text(st.sampled_from("ab @#/:.，。火锅今晚ｇ①ﬁ́e!🍲👨‍👩‍👧\u200b\t\nT")) | st.text(),
    st.sampled_from(sorted(CLEANINGS)),
    st.integers(1, 9),
)
def test_any_text(text, cleaning, most):
    cleaned, found = found_in(text, cleaning, most)
    assert len(found) <= most and bool(found) == bool(cleaned)
    assert "".join(cleaned[word.start : word.end] for word in found) == cleaned
    for word in found:
        assert 0 <= word.shown[0] <= word.shown[1] <= len(text)
    assert without(cleaned, found, np.ones(len(found), bool)) == " ".join(cleaned.split())
