"""Faults that were put into posts are found, and posts without any are left in peace."""

import numpy as np
import pytest
from PIL import Image, ImageOps
from sklearn.metrics import roc_auc_score

from sgmft.data.posts import Post
from sgmft.evaluation.audit import (
    compare_classes,
    doubt_labels,
    find_telling_traits,
    group_alike,
    read_traits,
)
from sgmft.features.features import Features
from sgmft.models.arrays import normalize

LABELS = ["Home", "School", "Work"]


def confident(rng, classes, sure=6.0):
    logits = rng.normal(size=(len(classes), 3))
    logits[np.arange(len(classes)), classes] += sure
    return np.exp(logits) / np.exp(logits).sum(1, keepdims=True)


def test_wrong_labels_are_flagged_ranked_first_and_mended():
    rng = np.random.default_rng(0)
    true = rng.integers(0, 3, 300)
    probs, given = confident(rng, true), true.copy()
    wrong = rng.choice(300, 20, replace=False)
    given[wrong] = (true[wrong] + 1) % 3
    own, best, flagged = doubt_labels(probs, given)
    assert roc_auc_score(np.isin(np.arange(300), wrong), -own) > 0.99
    assert flagged[wrong].mean() > 0.9 and flagged.sum() <= 22
    assert (best[wrong] == true[wrong]).mean() > 0.9
    assert doubt_labels(probs, true)[2].sum() <= 3


def test_a_label_is_flagged_off_the_diagonal_of_the_confident_joint():
    probs = np.array([[0.9, 0.1], [0.7, 0.3], [0.4, 0.6], [0.05, 0.95], [0.1, 0.9]])
    classes = np.array([0, 0, 0, 0, 1])  # class 1 has a mean probability of 0.9 in its posts
    assert doubt_labels(probs, classes)[2].tolist() == [False, False, False, True, False]


def test_areas_and_confusions_of_classes_agree_with_scikit_learn():
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, 400)
    probs = confident(rng, np.where(classes == 2, 1, classes), 3.0)  # School and Work are one
    worst, *others = compare_classes(probs, classes, LABELS)
    assert (worst["first"], worst["second"]) == ("School", "Work") and 0.4 < worst["area"] < 0.6
    rows = classes > 0
    share = probs[rows, 2] / probs[rows, 1:].sum(1)
    assert worst["area"] == pytest.approx(roc_auc_score(classes[rows] == 2, share))
    assert worst["confused"] == ((share > 0.5) != (classes[rows] == 2)).sum()
    assert len(others) == 2 and all(row["area"] > 0.9 for row in others)
    few = np.where(classes == 2, 1, classes)
    few[:9] = 2
    assert [row["second"] for row in compare_classes(probs, few, LABELS)] == ["School"]


def traits_of(rng, leak, posts=300):
    classes = rng.integers(0, 3, posts)
    made = [{f"word: {x}" for x in rng.choice(200, 6)} for _ in classes]
    for own, k in zip(made, classes, strict=True):
        own |= {"grey: yes"} if rng.random() < (leak if k == 1 else 0.2) else set()
    return made, classes


def test_a_trait_that_follows_a_label_is_found_and_by_chance_none_is():
    (found,) = find_telling_traits(*traits_of(np.random.default_rng(0), 0.6), LABELS)
    assert (found["kind"], found["value"], found["label"]) == ("grey", "yes", "School")
    assert found["of_label"] > 1.5 * found["of_all"] and 0.2 < found["strength"] < 0.5
    assert 0.4 < found["precision"] < 0.8
    for seed in range(5):
        assert find_telling_traits(*traits_of(np.random.default_rng(seed), 0.2), LABELS) == []


def test_a_rare_word_that_only_one_label_has_is_found():
    traits, classes = traits_of(np.random.default_rng(0), 0.2)
    for i in np.flatnonzero(classes == 2)[:12]:
        traits[i].add("word: #boss")
    (found,) = find_telling_traits(traits, classes, LABELS)
    assert (found["value"], found["label"], found["precision"]) == ("#boss", "Work", 1)


def test_the_same_and_nearly_the_same_posts_are_grouped():
    rng = np.random.default_rng(0)
    text, outlines = rng.normal(size=(40, 64)), rng.integers(-1, 2, (40, 240))
    keys, texts = [f"k{i}" for i in range(40)], [Post("a text that is long")] * 40

    def grouped():
        has = np.ones(40, bool)
        features = Features(text.astype(np.float32), np.zeros((40, 1), np.float32), has, has)
        return group_alike(features, outlines.astype(np.float32), keys, texts)

    assert grouped() == []
    text[1], text[3] = text[0] + 0.2 * rng.normal(size=64), text[2] + rng.normal(size=64)
    outlines[5], outlines[6:8] = np.where(rng.random(240) < 0.1, 0, outlines[4]), 0  # two are blank
    text[9], texts[8], texts[9] = text[8], Post("short"), Post("short")  # by accident
    text[11], outlines[12], keys[13] = text[10], outlines[11], keys[14]
    assert grouped() == [[0, 1], [4, 5], [10, 11, 12], [13, 14]]


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("traits") / "Home"
    folder.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3)).astype(np.uint8)
    plain = Image.fromarray(noise)
    made = {"plain.png": plain, "grey.jpg": plain.convert("L")}
    made |= {
        "framed.png": ImageOps.expand(plain, 12, "white"),
        "wide.webp": plain.resize((160, 40)),
    }
    for name, picture in made.items():
        picture.save(folder / name)
    (folder / "gone.png").write_bytes(b"no picture")
    return folder


@pytest.mark.parametrize(
    ("name", "there", "away"),
    [
        ("plain.png", {"format: PNG", "shape: 1.33333"}, {"grey: yes", "border: yes"}),
        ("grey.jpg", {"format: JPEG", "grey: yes"}, {"border: yes"}),
        ("framed.png", {"format: PNG", "border: yes"}, {"grey: yes"}),
        ("wide.webp", {"format: WEBP", "width: 160", "height: 40"}, {"grey: yes"}),
        ("gone.png", {"pictures: 1"}, {"format: PNG", "border: yes"}),
    ],
)
def test_traits_of_pictures(pictures, name, there, away):
    (found,), (outline,) = read_traits([Post("", [pictures / name])])
    assert there <= found and not away & found and outline.any() == ("format" in str(there))


def test_a_picture_saved_again_keeps_its_outline_and_others_have_another(pictures, tmp_path):
    rng = np.random.default_rng(1)
    colours = rng.integers(30, 170, (6, 8, 1)) + rng.integers(-25, 25, (6, 8, 3))
    scene = Image.fromarray(colours.astype(np.uint8)).resize((120, 90), Image.Resampling.BICUBIC)
    lighter = scene.point(lambda x: min(255, int(1.2 * x)))
    made = {"a.png": scene, "b.jpg": scene.resize((60, 45)), "c.jpg": scene.convert("L")}
    for name, picture in (made | {"d.webp": lighter}).items():
        picture.save(tmp_path / name, quality=40)
    files = [*sorted(tmp_path.iterdir()), pictures / "plain.png"]
    outlines = normalize(read_traits([Post("", [file]) for file in files])[1])
    first, *again, other = outlines
    assert all(first @ x > 0.85 for x in again) and len(again) == 3 and abs(first @ other) < 0.5


def test_words_marks_and_ranges_of_numbers():
    texts = ["RT @bob 去学校上课 #exam# see http://t.cn/abc", *["x" * n for n in range(1, 11)], ""]
    (first, *others), outlines = read_traits([Post(text) for text in texts])
    assert outlines.shape == (12, 240) and not outlines.any()
    words = {
        "word: 学校",
        "word: #exam",
        "word: @bob",
        "word: rt",
        "word: http://t.cn",
        "word: see",
    }
    assert words <= first and not any(x.startswith("width") for x in first)
    ranges = {x for own in (first, *others) for x in own if x.startswith("characters")}
    assert "characters: 0 – 2" in ranges and len(ranges) == 5
