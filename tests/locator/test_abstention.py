"""Prediction sets and typicality against slow loops; locators that may say "cannot tell"."""

import json

import numpy as np
import pytest
from hypothesis import given, strategies as st

from sgmft import Post
from sgmft.data.source import Source
from sgmft.errors import SgmftError
from sgmft.jobs.evaluate import evaluate_table
from sgmft.jobs.predict import predict_table
from sgmft.locator.abstention import FILE, Abstention, HeldOutProbabilities, entropy
from small_tables import read_rows

K = 4


def drawn(n, seed=0, sure=2.0, classes=K):
    """Probabilities (n, K) that mean what they say, and labels drawn by them."""
    rng = np.random.default_rng(seed)
    powers = np.exp(sure * rng.normal(size=(n, classes)))
    probs = powers / powers.sum(1, keepdims=True)
    labels = np.array([rng.choice(classes, p=row) for row in probs])
    return probs.astype(np.float32), labels


def held(probs, labels, *kinds):
    """Rows by turns of these parts, by default of text and pictures."""
    return HeldOutProbabilities(probs, labels, np.resize(kinds or [3], len(labels)).astype(np.int8))


def both(probs):
    return np.full(len(probs), 3)


def slow_sets(held_out, probs, coverage, parts):
    """The labels no more improbable than the own ones of the held-out posts of the same parts.

    Of all of these, where there are too few of the same.
    """
    rows = list(zip(held_out.probabilities, held_out.classes, held_out.parts, strict=True))
    found = []
    for some, kind in zip(probs, parts, strict=True):
        alike = [row for row in rows if row[2] == kind]
        if len(alike) <= 1 / min(coverage, 1 - coverage):
            alike = rows
        scores = sorted(1 - float(row[k]) for row, k, _ in alike)
        place = int(np.ceil((len(scores) + 1) * coverage))
        limit = scores[min(place, len(scores)) - 1]
        found.append([1 - float(p) <= limit + 1e-9 for p in some])
    return found


@pytest.mark.parametrize("coverage", [0.5, 0.8, 0.9, 0.95])
def test_sets_hold_what_a_slow_loop_says(coverage):
    held_out, (probs, _) = held(*drawn(137), *[3] * 20, 2, 2, *[1] * 8), drawn(50, seed=1)
    parts = np.arange(50) % 4
    assert (np.bincount(held_out.parts)[2] < 1 / (1 - coverage)) == (coverage > 0.8)
    found = held_out.sets(probs, coverage, parts).tolist()
    assert found == slow_sets(held_out, probs, coverage, parts)


@pytest.mark.parametrize("sure", [0.5, 3.0])
@pytest.mark.parametrize("coverage", [0.7, 0.9])
def test_the_promised_coverage_is_kept(coverage, sure):
    kept = []
    for seed in range(40):
        held_out = held(*drawn(200, seed, sure))
        probs, labels = drawn(200, 99 - seed, sure)
        kept.append(held_out.sets(probs, coverage, both(probs))[np.arange(200), labels].mean())
    error = np.std(kept) / np.sqrt(len(kept))
    assert abs(np.mean(kept) - coverage) < 4 * error + 1 / 201


def test_a_larger_coverage_takes_no_label_out():
    held_out, (probs, _) = held(*drawn(300)), drawn(80, seed=1)
    small, large = (held_out.sets(probs, c, both(probs)) for c in (0.6, 0.95))
    assert (large >= small).all() and large.sum() > small.sum()
    assert held_out.sets(probs[:0], 0.8, both(probs[:0])).shape == (0, K)


def test_typicality_is_the_share_that_is_at_least_as_undecided():
    held_out, (probs, _) = held(*drawn(60)), drawn(9, seed=2)
    spread = [-sum(p * np.log(p) for p in row if p) for row in held_out.probabilities.tolist()]
    for row, found in zip(probs.tolist(), held_out.typicality(probs, both(probs)), strict=True):
        own = -sum(p * np.log(p) for p in row if p)
        assert found == (1 + sum(other >= own for other in spread)) / 61
    sure = np.eye(K, dtype=np.float32)
    assert held_out.typicality(sure, both(sure)) == pytest.approx(1)
    undecided = np.full((1, K), 1 / K, np.float32)
    assert held_out.typicality(undecided, both(undecided)) == pytest.approx(1 / 61)


def test_posts_like_the_held_out_ones_are_rejected_as_often_as_asked():
    rejected = []
    for seed in range(40):
        probs, _ = drawn(200, 99 - seed)
        found = held(*drawn(200, seed)).typicality(probs, both(probs), 0.1)
        rejected.append((found <= 0.1).mean())
    assert abs(np.mean(rejected) - 0.1) < 4 * np.std(rejected) / np.sqrt(40) + 1 / 201


def test_each_rule_keeps_its_own_labels_back():
    held_out = held(*drawn(200))
    probs = np.array([[0.97, 0.01, 0.01, 0.01], [0.45, 0.45, 0.05, 0.05], [0.25] * 4], np.float32)

    def reasons(**rules):
        return [ruling.reason for ruling in held_out.apply(probs, Abstention(**rules), both(probs))]

    assert reasons() == [None] * 3
    assert reasons(min_probability=0.4) == [None, None, "no label has a probability of 0.4"]
    assert reasons(coverage=0.9) == [None, *["several labels are possible"] * 2]
    assert reasons(reject=0.05) == [None, None, "seems to be of none of the labels"]
    assert reasons(coverage=0.3)[2] == "no label is probable enough"
    rulings = list(held_out.apply(probs, Abstention(0.9, reject=0.05), both(probs)))
    assert [ruling.reason for ruling in rulings][1:] == [
        "several labels are possible",
        "seems to be of none of the labels",
    ]
    assert rulings[0].members.tolist() == [True, False, False, False]
    assert rulings[2].typicality < 0.05 < rulings[0].typicality


@pytest.mark.parametrize("name", ["coverage", "min_probability", "reject"])
@pytest.mark.parametrize("value", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_rules_outside_0_to_1_are_refused(name, value):
    with pytest.raises(SgmftError, match=f"{name} must be above 0 and below 1, not {value}"):
        Abstention(**{name: value})


@pytest.mark.parametrize(
    ("posts", "rules"), [(9, {"coverage": 0.9}), (10, {"coverage": 0.1}), (20, {"reject": 0.05})]
)
def test_too_few_held_out_posts_promise_nothing(posts, rules):
    held_out = held(*drawn(posts))
    with pytest.raises(SgmftError, match=f"this one was on {posts}: train it on more posts"):
        held_out.check(Abstention(**rules))
    held(*drawn(posts + 2)).check(Abstention(**rules))
    HeldOutProbabilities.none(K).check(Abstention(min_probability=0.5))  # asks for none


def test_what_was_saved_is_read_again(tmp_path):
    HeldOutProbabilities.none(K).save(tmp_path)
    assert not (tmp_path / FILE).exists()
    held_out = held(*drawn(12), 1, 2, 3)
    held_out.save(tmp_path)
    again = HeldOutProbabilities.load(tmp_path / FILE, K)
    assert np.array_equal(again.probabilities, held_out.probabilities)
    assert np.array_equal(again.classes, held_out.classes)
    assert np.array_equal(again.parts, held_out.parts)
    with pytest.raises(SgmftError, match="belongs to another model"):
        HeldOutProbabilities.load(tmp_path / FILE, K + 1)
    data = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(data[:20])
    with pytest.raises(SgmftError, match="is damaged"):
        HeldOutProbabilities.load(tmp_path / FILE, K)


@given(
    st.lists(
        st.lists(st.floats(0, 1, width=32), min_size=3, max_size=3).filter(lambda r: sum(r) > 0),
        min_size=12,
        max_size=20,
    ),
    st.floats(0.15, 0.85),
)
def test_any_probabilities_are_judged(rows, coverage):
    probs = np.array(rows, np.float32)
    probs /= probs.sum(1, keepdims=True)
    held_out = held(probs, np.arange(len(probs)) % 3)
    rules = Abstention(coverage, 0.5, 0.2)
    for row, ruling in zip(probs, held_out.apply(probs, rules, both(probs)), strict=True):
        assert 0 < ruling.typicality <= 1
        if ruling.reason is None:
            assert ruling.members.sum() == 1 and ruling.members[row.argmax()]
    assert (entropy(probs) >= 0).all() and (entropy(probs) <= np.log(3) + 1e-6).all()


RULES = Abstention(coverage=0.8, reject=0.2)


def table(tmp_path, posts):
    path = tmp_path / "posts.jsonl"
    rows = [{"text": p.text, "images": list(map(str, p.images)), "label": p.label} for p in posts]
    path.write_text("\n".join(map(json.dumps, [*rows, {"text": "", "images": []}])))
    return Source(str(path), allow_outside=True)


@pytest.mark.parametrize(
    "options",
    [{}, {"method": "late-average"}, {"preset": "tokens", "settings": {"epochs": 1}}],
    ids=str,
)
def test_rules_take_labels_away_and_change_nothing_else(fitted, small_posts, options):
    locator = fitted(val_size=0.4, **options) if options.get("preset") else fitted(**options)
    plain = list(locator.predictions(small_posts))
    decided = list(locator.predictions(small_posts, RULES))
    assert all(p.label_set is p.typicality is p.abstained is None for p in plain)
    for one, other in zip(plain, decided, strict=True):
        assert np.array_equal(one.probabilities, other.probabilities)
        assert other.label == (one.label if other.abstained is None else None)
        assert other.abstained is not None or other.label_set == (other.label,)
        assert other.abstained is None or len(other.label_set) != 1 or other.typicality <= 0.2
    assert locator.predict(small_posts, RULES) == [p.label for p in decided]
    nothing = Post(text="", images=["nowhere.png"])
    (bad,) = locator.predictions([nothing], RULES)
    assert bad.error and bad.label is bad.label_set is bad.abstained is None


def test_a_table_gets_what_the_rules_look_at(fitted, small_posts, tmp_path):
    locator, source = fitted(), table(tmp_path, small_posts)
    summary = predict_table(source, tmp_path / "out.csv", locator, abstain=RULES)
    rows = read_rows(tmp_path / "out.csv")
    names = ["label", "probability", "set", "typicality", "abstained", "error", "warning"]
    assert list(rows[0])[-len(names) - 3 :] == [*names, *(f"p_{label}" for label in locator.labels)]
    for row in rows[:-1]:
        assert bool(row["label"]) == (not row["abstained"])
        assert not row["label"] or json.loads(row["set"]) == [row["label"]]
        assert 0 < float(row["typicality"]) <= 1
    assert rows[-1]["error"] and not rows[-1]["set"] and not rows[-1]["abstained"]
    assert sum(summary.abstained.values()) == sum(bool(row["abstained"]) for row in rows)
    predict_table(source, tmp_path / "one.csv", locator, abstain=Abstention(min_probability=0.5))
    columns = read_rows(tmp_path / "one.csv")[0].keys()
    assert columns & {"set", "typicality", "abstained"} == {"abstained"}


def test_an_evaluation_tells_what_abstaining_brings(fitted, small_posts, tmp_path):
    _, found, _ = evaluate_table(table(tmp_path, small_posts), tmp_path / "eval", fitted())
    assert found.selective.sets and found.selective.curve[0].answered == 1
    page = (tmp_path / "eval" / "report.html").read_text("utf-8")
    assert "cannot tell" in page and "True label in the set" in page
