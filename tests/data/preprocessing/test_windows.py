"""Windows of long texts: nothing lost, sentences whole, sizes and numbers bounded."""

import random

import pytest

from sgmft.data.preprocessing.text import (
    CLEANINGS,
    LONGEST,
    MAX_CHARACTERS,
    MAX_WINDOWS,
    SHORTEST,
    clean_text,
    get_cleaning,
    split_windows,
    split_words,
    window_of,
)

LIGHT = get_cleaning("light")
CHINESE = "昨天和老朋友聊了很多以前的事情，关于选择，关于远方，关于我们各自的生活。"
ENGLISH = "We talked about old times, about choices and about the lives of all of us. "


def words(text: str, cleaning: str = "light") -> int:
    return len(split_words(text, get_cleaning(cleaning)))


@pytest.mark.parametrize("text", ["", " ", "家", CHINESE, ENGLISH, "a " * LONGEST, "😂" * 32])
def test_a_text_of_one_window_is_left_as_it_is(text: str) -> None:
    assert split_windows(text, LIGHT) == [text]


@pytest.mark.parametrize("cleaning", CLEANINGS)
@pytest.mark.parametrize("sentence", [CHINESE, ENGLISH])
@pytest.mark.parametrize("number", [2, 3, 20])
def test_windows_hold_whole_sentences(sentence: str, number: int, cleaning: str) -> None:
    found = split_windows(sentence * number, get_cleaning(cleaning))
    assert "".join(found) == sentence * number
    together = LONGEST // words(sentence, cleaning)
    assert [words(x, cleaning) for x in found[:-1]] == [
        together * words(sentence, cleaning) for _ in found[:-1]
    ]
    assert all(x.strip().endswith((".", "。")) for x in found)


@pytest.mark.parametrize(
    "sentence",
    [
        "Version 3.5 of it is at http://t.cn/A6?b=1;c=2!x and at www.weibo.com/a.b now",
        "他说：“走吧！……”（真的吗？）然后就走了",
        "等等……！！？",
    ],
)
def test_no_end_of_a_sentence(sentence: str) -> None:
    found = split_windows(f"{CHINESE * 3}{sentence}。{CHINESE * 3}", LIGHT)
    assert len(found) > 3 and sum(sentence in x for x in found) == 1


@pytest.mark.parametrize("end", ["。", "！", "？", "?", "\n", ". ", "! ", "；", "…"])
def test_an_end_of_a_sentence(end: str) -> None:
    sentence = "我们 走 了 " * 5 + end
    found = [window.strip() for window in split_windows(sentence * 6, LIGHT)]
    assert found == [(sentence * 2).strip()] * 3


@pytest.mark.parametrize(
    "text",
    [
        "，".join(["我们走了很远的路"] * 400),
        "我们走了很远的路" * 400,
        "word " * 1000,
        "😂" * 3000,
        "。" * 3000,
        "x. " * 2000,
        "好\n" * 2500,
        CHINESE * 200,
    ],
)
def test_sizes_are_bounded(text: str) -> None:
    found = split_windows(text, LIGHT)
    assert "".join(found) == text[:MAX_CHARACTERS] and len(found) <= 1.1 * MAX_WINDOWS
    assert (len(found) > 1) == (words(text) > LONGEST)  # emoji and marks alone are no words
    bound = max(LONGEST, 2 * words(text) / MAX_WINDOWS)
    assert max(map(words, found)) <= 1.2 * bound + 2


@pytest.mark.parametrize("cleaning", ["light", "paper"])
def test_markup_and_mojibake_are_undone_before_a_text_is_cut(cleaning: str) -> None:
    steps, text = get_cleaning(cleaning), "，".join([CHINESE[:-1]] * 5)
    link = '<a  href="https://m.weibo.cn/p/1 2?q=a, b" title="x, y">'
    cut = split_windows(text, steps)
    for marked in (
        text.replace("朋友", f"{link}朋友</a>"),
        text.encode().decode("latin-1"),
        text.replace("，", "&#xff0c;") + '<br />...<a href="/status/5">全文</a>',
    ):
        found = split_windows(marked, steps)
        assert len(found) > 1
        assert [clean_text(x, steps) for x in found] == [clean_text(x, steps) for x in cut]


def test_any_text_is_cut_without_loss() -> None:
    draw = random.Random(0)
    parts = [*"。！？，, .!?;\n“”（）'\"#@/ \u200b😂家", "❤️", "电影院", "see", "t.cn/A6?b=1"]
    for _ in range(200):
        text = "".join(draw.choices(parts, k=draw.randrange(400)))
        found = split_windows(text, LIGHT)
        assert "".join(found) == text and (len(found) == 1 or words(text) > LONGEST)


def test_a_window_holds_as_many_words_as_the_texts_of_a_model() -> None:
    texts = ["one two three four five six seven eight nine ten"] * 990 + ["word " * 400] * 9
    assert window_of(texts, LIGHT) == 10
    assert window_of(["", " ", "two words"], LIGHT) == SHORTEST
    assert window_of(["word " * 400], LIGHT) == window_of([""], LIGHT) == LONGEST
    text = "One two three four five six. " * 3
    assert [x.strip() for x in split_windows(text, LIGHT, 8)] == [text[:28]] * 3
    assert split_windows(text, LIGHT) == [text]
