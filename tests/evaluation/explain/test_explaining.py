"""Explanations of small posts: the model's own probabilities, what moves them, and similarity."""

import json
from dataclasses import replace

import numpy as np
import pytest

from sgmft import Post, SemanticLocator
from sgmft.errors import SgmftError
from sgmft.evaluation.explain.attribution import ExplainedModel, MaskedPredictor, blank_regions
from sgmft.evaluation.explain.page import explanation_page
from sgmft.features.encoders.registry import ENCODERS
from small_posts import LABELS, UNUSABLE
from tiny_clip import save_tiny_clip
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
    counts = np.array([labels.count(name) for name in LABELS]) ** (1 / unequal.temperatures[0])
    assert unequal.temperatures[0] != pytest.approx(1, abs=0.05) and len(set(counts)) > 1
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
    rng, drops = np.random.default_rng(0), []
    for telling in ("sofa bed", "exam desk", "boss office", "kitchen sofa", "office meeting"):
        words = rng.permutation(f"{telling} day7 day9 and then green tea".split())
        found = default.explain(Post(" ".join(words)))
        ranked = sorted(range(len(words)), key=lambda i: -found.words[i].contribution)
        top, others = ranked[:2], rng.permutation(len(words))[:2]
        posts = [Post(" ".join(np.delete(words, chosen))) for chosen in (top, others)]
        probs = default.predict_proba(posts)[:, LABELS.index(found.label)]
        drops.append(found.probability - probs)
    assert np.mean(drops, axis=0)[0] > np.mean(drops, axis=0)[1] + 0.05


def test_refusals(default, tiny):
    for post in UNUSABLE:
        with pytest.raises(SgmftError, match="cannot be explained: "):
            default.explain(post)
    with pytest.raises(SgmftError, match="no label 'Moon': use Home, School, Work"):
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
    page = explanation_page([found])
    assert all(picture.seen in page for picture in found.pictures[1:])
    assert all("seen" not in picture for picture in found.to_dict()["pictures"])


@pytest.mark.parametrize("preset", ["default", "elements", "tokens"])
def test_parts_left_out_or_replaced(tiny, small_posts, pictures, preset):
    """They are read as the post that has them so from the start."""
    locator = tiny(preset=preset, val_size=0.0).fit(small_posts)

    def post(text, colours):
        return Post(text, [pictures / f"{name}.png" for name in colours.split()])

    model = ExplainedModel(
        locator.encoder, locator.network, locator.uses_tokens, locator.labels, locator.temperatures
    )
    masked = MaskedPredictor(post("the boss", "red green blue"), model)
    cases = [
        (masked.keep_parts(False, [1, 1, 1]), "", "red green blue"),
        (masked.keep_parts(False, [0, 0, 1]), "", "blue"),
        (masked.keep_parts(True, [1, 0, 1]), "the boss", "red blue"),
        (masked.keep_parts(True, [0, 0, 0]), "the boss", ""),
        (masked.replace_text(["exam"])[0], "exam", "red green blue"),
        (masked.replace_text([""])[0], "", "red green blue"),
        (masked.replace_image(0, [masked.images[1]])[0], "the boss", "green green blue"),
    ]
    found = masked.predict_proba([row for row, *_ in cases])
    expected = locator.predict_proba([post(*words) for _, *words in cases])
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_over_ten_parts_are_sampled(default, pictures):
    images = [pictures / "red.png", pictures / "blue.png"] * 5
    found = default.explain(Post("the boss", images))
    assert len(found.parts) == 11 and not found.exact
    total = found.base + sum(part.contribution for part in found.parts)
    assert total == pytest.approx(found.probability, abs=1e-6)


def test_blank_regions():
    picture = np.arange(10 * 10 * 3).reshape(10, 10, 3).astype(np.uint8)
    changed = blank_regions(picture, np.array([True, False, True, True]))
    assert (changed[:5, 5:] == picture.reshape(-1, 3).mean(0).round()).all()
    same = np.ones((10, 10), bool)
    same[:5, 5:] = False
    assert (changed[same] == picture[same]).all()


@pytest.mark.parametrize("guided", ["text", "image"])
def test_similarity_is_the_networks_own_guidance(tiny, small_posts, guided):
    settings = {"guided": guided, "epochs": 1, "width": 16, "heads": 2}
    locator = tiny(settings, preset="tokens", val_size=0.0, cleaning="paper").fit(small_posts)
    post = Post("sofa, kitchen bed!", small_posts[0].images)
    found = locator.explain(post).similarity
    assert (found.kind, found.grid, found.words) == ("P^e", 2, ("sofa", "kitchen", "bed"))
    values = np.array(found.values)
    assert values.shape == (3, 4)
    np.testing.assert_allclose(values.sum(1 if guided == "text" else 0), 1, atol=1e-5)
    batch = locator.encode([post]).features.batch().to("cpu")
    np.testing.assert_allclose(values, locator.network.element_map(batch)[0], atol=1e-5)
    assert locator.explain(Post("sofa")).similarity is None


def test_similarity_is_of_a_shared_space_or_there_is_none(small_model, small_posts, tmp_path):
    post = Post("sofa, kitchen bed!", small_posts[0].images)
    assert small_model.explain(post).similarity is None
    folder = str(save_tiny_clip(tmp_path / "clip"))
    assert folder not in ENCODERS
    found = SemanticLocator(folder, patch_grid=2).fit(small_posts).explain(post).similarity
    assert (found.kind, found.grid, found.words) == ("cosine", 2, ("sofa", "kitchen", "bed"))
    values = np.array(found.values)
    assert values.shape == (3, 4) and np.abs(values).max() <= 1 + 1e-5
