import json
import warnings
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from sgmft.data.source import Source
from sgmft.errors import SgmftWarning
from sgmft.jobs.predict import ModelFolder, predict_table
from sgmft.locator.drift import count_traits, shifts, traits_of_post

SHARES = {"label: Home": 0.5, "label: Work": 0.3, "label: Travel": 0.2}


def draw(posts, seed, shares):
    counts = np.random.default_rng(seed).multinomial(posts, [*shares.values()])
    return dict(zip(shares, counts.tolist(), strict=True))


@pytest.mark.parametrize("posts", [30, 100, 1000])
def test_posts_of_the_same_kind_have_not_moved(posts):
    found = [shifts(draw(300, i, SHARES), draw(posts, i + 10_000, SHARES)) for i in range(1000)]
    assert sum(map(bool, found)) <= 3


def test_a_shift_is_found_and_its_largest_rise_named():
    moved = {"label: Home": 0.3, "label: Work": 0.1, "label: Travel": 0.6}
    for seed in range(50):
        (found,) = shifts(draw(300, seed, SHARES), draw(300, seed + 10_000, moved))
        assert found.startswith("Travel: ") and found.endswith(" in training")
    (found,) = shifts({"label: a: b": 90, "label: c": 10}, {"label: c": 60, "label: a: b": 40})
    assert found == "c: 60% of these posts, 10% in training"


@pytest.mark.parametrize(
    ("training", "found"),
    [
        ({}, {"parts: a": 99}),
        ({"parts: a": 99}, {}),
        ({"parts: a": 99, "parts: b": 1}, {"parts: b": 29}),  # too few
        ({"parts: a": 99}, {"parts: a": 99}),
        ({"parts: a": 9900, "parts: b": 100}, {"parts: a": 8900, "parts: b": 1100}),  # small
        ({"probability: sure": 50, "probability: unsure": 50}, {"probability: sure": 100}),
    ],
)
def test_what_does_not_matter_is_not_said(training, found):
    assert shifts(training, found) == []


@given(st.text(max_size=400), st.integers(1, 3))
def test_a_post_has_one_value_of_each_trait(text, parts):
    names = [x.split(": ", 1)[0] for x in traits_of_post(text, parts)]
    assert names == ["parts", "script", "length"][: 3 if text else 1]


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("在家睡觉 good", "in Chinese characters"),
        ("おうちでゆっくり", "in Japanese or Korean"),
        ("집에서 쉬는 중", "in Japanese or Korean"),
        ("tonight à la maison", "in Latin letters"),
        ("дома", "in another script"),
        ("😴 12:30", "without letters"),
    ],
)
def test_scripts(text, script):
    assert f"script: {script}" in traits_of_post(text, 1)


def warnings_of(posts, tmp_path, model, name="posts.jsonl"):
    columns = [{"id": p.id, "text": p.text, "images": [*map(str, p.images)]} for p in posts]
    if not (tmp_path / name).exists():
        (tmp_path / name).write_text("\n".join(map(json.dumps, columns)), "utf-8")
    source = Source(str(tmp_path / name), allow_outside=True)
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", SgmftWarning)
        summary = predict_table(source, tmp_path / "out", model, shard_rows=9)
    return summary, [str(x.message) for x in told if "Unlike" in str(x.message)]


def test_a_shifted_table_is_told_of_whole_and_resumed(small_model, small_posts, tmp_path):
    small_model.save_pretrained(tmp_path / "model")
    model = ModelFolder(str(tmp_path / "model"))
    again = [replace(post, id=f"{post.id}-{i}") for i in range(2) for post in small_posts]
    summary, told = warnings_of(again, tmp_path, model)
    good = [x for x in small_model.predictions(again) if x.probabilities is not None]
    given = zip(*((x.post.text, x.parts, x.probabilities) for x in good), strict=True)
    assert (told, summary.traits) == ([], count_traits(*given, small_model.labels))
    chinese = [replace(post, text="好累，去睡觉了", images=()) for post in again]
    (tmp_path / "two").mkdir()
    summary, (said,) = warnings_of(chinese, tmp_path / "two", model)
    assert "a text alone: 100% of these posts" in said and "in Chinese characters: 100%" in said
    resumed, (repeated,) = warnings_of(chinese, tmp_path / "two", model)
    assert (resumed.traits, repeated) == (summary.traits, said)
    assert Counter(summary.traits)["script: in Chinese characters"] == len(chinese)


def test_a_model_of_no_posts_or_of_before_is_compared_with_nothing(small_model, small_posts):
    assert small_model.traits and shifts({}, small_model.traits) == []
