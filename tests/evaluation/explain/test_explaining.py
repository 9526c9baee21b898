"""Explanations of small posts: the model's own probabilities, and what moves them."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sgmft import Post
from sgmft.errors import SgmftError
from sgmft.evaluation.explain.page import explanation_page
from small_posts import LABELS, UNUSABLE
from video_files import coloured, video


@pytest.mark.parametrize("model", ["default", "small_model"])
def test_probabilities_are_the_locators_and_parts_sum_to_them(
    model, request, pictures, small_posts
):
    locator = request.getfixturevalue(model)
    both = Post("the boss called @bob", [pictures / "blue.png"])
    many = Post("sofa", [pictures / "red.png", pictures / "blue.png"])
    posts = [both, many, Post("exam desk"), Post(images=pictures / "half.png"), small_posts[4]]
    for post, expected in zip(posts, locator.predict_proba(posts), strict=True):
        found = locator.explain(post)
        np.testing.assert_allclose(list(found.probabilities.values()), expected, atol=1e-5)
        assert list(found.probabilities) == locator.labels
        assert found.label == found.predicted == locator.labels[int(expected.argmax())]
        names = ["text"] * bool(post.text) + ["picture"] * len(post.images)
        assert [part.name.split()[0] for part in found.parts] == names
        total = found.base + sum(part.contribution for part in found.parts)
        assert found.exact and total == pytest.approx(found.probability, abs=1e-6)
        assert len(found.pictures) == len(post.images)
        assert bool(found.words) == bool(post.text)
        again = json.loads(json.dumps(found.to_dict(), allow_nan=False))
        assert again == json.loads(json.dumps(locator.explain(post).to_dict()))
        assert again["post"]["text"] == post.text


def test_of_nothing_the_default_says_the_class_frequencies_calibrated(tiny, small_posts):
    wrong = [replace(p, label="Work") if i % 5 == 0 else p for i, p in enumerate(small_posts)]
    learned = [post for post in wrong if post.label == "Work" or post.id < "p2"]
    unequal = tiny(preset="default").fit(learned)
    labels = [post.label for post in learned]
    counts = np.array([labels.count(name) for name in LABELS]) ** (1 / unequal.temperature)
    assert unequal.temperature != pytest.approx(1, abs=0.05) and len(set(counts)) > 1
    for label, share in zip(LABELS, counts / counts.sum(), strict=True):
        found = unequal.explain(Post("boss"), label=label)
        assert found.base == pytest.approx(share, abs=1e-6) and found.label == label


def test_the_word_that_decides_comes_first(default):
    found = default.explain(Post("@bob and the boss, today"))
    best = max(found.words, key=lambda word: word.contribution)
    assert best.text == "boss" and (best.start, best.end) == (13, 17)
    without = default.predict_proba([Post("and the today")])[0]
    lost = found.probability - without[LABELS.index("Work")]
    assert best.contribution == pytest.approx(lost, abs=1e-5)


def test_the_regions_that_decide_are_those_with_colour(default, pictures):
    found = default.explain(Post(images=pictures / "half.png"), label="Work")
    values = np.array(found.pictures[0].contributions).reshape(4, 4)
    assert values[:2].min() > values[2:].max()
    plain = default.explain(Post(images=pictures / "blue.png"))
    assert np.abs(plain.pictures[0].contributions).max() < 1e-9  # its mean colour is its colour


def test_what_each_part_says_alone(default, pictures):
    post = Post("boss meeting office", [pictures / "red.png", pictures / "blue.png"])
    alone = {part.name: part.alone for part in default.explain(post).parts}
    assert alone == {"text": "Work", "picture 1": "Home", "picture 2": "Work"}


def test_the_gate_is_the_texts_weight(default, small_model, pictures):
    post = Post("boss", [pictures / "blue.png"])
    found = default.explain(post)
    assert found.gate is not None and 0 < found.gate < 1
    assert default.explain(Post("boss")).gate == 1
    assert found.to_dict()["guidance"][1] is None  # there is no P^e
    other = small_model.explain(post)
    assert other.gate is None and other.guidance is not None
    guidance = next(iter(small_model.predictions([post]))).guidance
    assert other.guidance == pytest.approx(guidance)


def test_deleting_top_words_hurts_more_than_deleting_others(default):
    """On average over posts; benchmarks/faithfulness.py measures it on real ones."""
    rng, top, other = np.random.default_rng(0), [], []
    for telling in ("sofa bed", "exam desk", "boss office", "kitchen sofa", "office meeting"):
        words = rng.permutation(
            [*telling.split(), *["day7", "day9", "and", "then", "green", "tea"]]
        )
        found = default.explain(Post(" ".join(words)))
        k = LABELS.index(found.label)
        ranked = sorted(range(len(words)), key=lambda i: -found.words[i].contribution)
        for chosen, drops in ((ranked[:2], top), (rng.permutation(len(words))[:2], other)):
            left = Post(" ".join(w for i, w in enumerate(words) if i not in chosen))
            drops.append(found.probability - default.predict_proba([left])[0][k])
    assert np.mean(top) > np.mean(other) + 0.05


@pytest.mark.parametrize("post", UNUSABLE)
def test_posts_of_which_nothing_can_be_said(default, post):
    with pytest.raises(SgmftError, match="cannot be explained: "):
        default.explain(post)


def test_refusals(default, tiny):
    with pytest.raises(SgmftError, match="no label 'Moon': its labels are Home, School, Work"):
        default.explain(Post("boss"), label="Moon")
    with pytest.raises(SgmftError, match="not trained"):
        tiny().explain(Post("boss"))


def test_each_frame_of_a_video_is_a_picture_of_its_own(default, pictures, tmp_path):
    (tmp_path / "film.mp4").write_bytes(video(coloured(4)))
    post = Post("sofa", [pictures / "red.png", tmp_path / "film.mp4"])
    found = default.explain(post)
    names = [f"picture {i}" for i in range(1, 6)]
    assert [part.name for part in found.parts] == ["text", *names]
    assert [picture.frame for picture in found.pictures] == [None, 1, 2, 3, 4]
    assert [picture.file for picture in found.pictures[1:]] == [str(tmp_path / "film.mp4")] * 4
    assert len({picture.seen for picture in found.pictures}) == 5
    page = explanation_page([found], title="Why")
    assert all(picture.seen in page for picture in found.pictures[1:])
    assert all("seen" not in picture for picture in found.to_dict()["pictures"])
