import numpy as np
import pytest
from hypothesis import given, strategies as st

from sgmft.evaluation.shares import Change, PrivacyRule, ShareEstimator, maximise, onto_simplex
from sgmft.locator.abstention import HeldOutProbabilities

TRAINED = np.array([0.5, 0.3, 0.2])


def posts_of(shares, number, rng):
    """Classes of posts, and calibrated probabilities of a model that learned from `TRAINED`."""
    classes = rng.choice(3, number, p=shares)
    seen = np.eye(3)[classes] * 2 + rng.normal(size=(number, 3))
    density = np.exp(2 * seen - 2) * TRAINED  # likelihood ratios of normal distributions
    return classes, density / density.sum(1, keepdims=True)


def estimator_of(probs, users=None, held_out=None):
    users = np.arange(len(probs)) if users is None else users
    parts = np.full(len(probs), 3)
    return ShareEstimator(probs, probs.argmax(1), users, parts, held_out)


def held_out_of(rng, number=600):
    classes, probs = posts_of(TRAINED, number, rng)
    return HeldOutProbabilities(probs, classes, np.full(number, 3))


def test_maximise_is_expectation_maximisation():
    rng = np.random.default_rng(0)
    density, weights = rng.random((20, 4)) + 0.01, rng.random(20)
    slow = [0.1, 0.2, 0.3, 0.4]
    for _ in range(3):
        new = [0.0] * 4
        for row, weight in zip(density, weights, strict=True):
            whole = sum(p * x for p, x in zip(slow, row, strict=True))
            for k in range(4):
                new[k] += weight * slow[k] * row[k] / whole
        slow = [x / sum(new) for x in new]
    start = np.array([0.1, 0.2, 0.3, 0.4])
    assert np.allclose(maximise(density, weights, start, most=3), slow, atol=1e-12)
    assert maximise(density, weights, start).sum() == pytest.approx(1)


@given(st.lists(st.floats(-3, 3), min_size=2, max_size=6))
def test_onto_simplex_is_the_nearest(numbers):
    x = np.array([numbers])
    found = onto_simplex(x)
    assert found.min() >= 0 and found.sum() == pytest.approx(1)
    others = np.random.default_rng(0).dirichlet(np.full(len(numbers), 0.3), 200)
    assert np.linalg.norm(found - x) <= np.linalg.norm(others - x, axis=1).min() + 1e-9
    assert np.allclose(onto_simplex(found), found)


def test_without_held_out_posts_shares_are_means():
    rng = np.random.default_rng(0)
    probs, weights, rows = rng.dirichlet(np.ones(3), 30), rng.random(12), np.arange(5, 17)
    shares = estimator_of(probs)
    found = shares.draw(
        shares.estimate(rows, weights), rows, weights, shares.estimate(np.arange(30))
    )
    assert np.allclose(found.share, weights @ probs[rows] / weights.sum())
    counted = np.bincount(probs[rows].argmax(1), weights, 3) / weights.sum()
    assert np.allclose(found.counted, counted)


def test_shifted_shares_are_corrected_and_intervals_hold_them():
    rng = np.random.default_rng(1)
    errors, covered = [], []
    for _ in range(120):
        true = rng.dirichlet(np.ones(3))
        shares = estimator_of(posts_of(true, 300, rng)[1], held_out=held_out_of(rng))
        found = shares.draw(shares.estimate(np.arange(300)), np.arange(300))
        errors.append([np.abs(x - true).mean() for x in (found.counted, found.share)])
        covered.append((found.low <= true) & (true <= found.high))
        assert found.share.sum() == pytest.approx(1)
        assert ((found.low <= found.share) & (found.share <= found.high)).all()
    counted, ours = np.mean(errors, 0)
    assert ours < 0.6 * counted
    assert 0.91 < np.mean(covered) < 0.99


@pytest.mark.parametrize("whole", [False, True])
def test_shares_within_chance_are_nearer_to_the_posts_own_than_counts(whole):
    rng = np.random.default_rng(2)
    usual = np.array([0.1, 0.3, 0.6]) if whole else TRAINED
    errors, few = [], np.arange(60)
    for _ in range(60):
        classes, probs = posts_of(usual, 600, rng)
        shares = estimator_of(probs, held_out=held_out_of(rng))
        every = shares.estimate(np.arange(600)) if whole else None
        plain = shares.estimate(few)
        drawn = shares.draw(plain, few, whole=every)
        own = np.bincount(classes[few], minlength=3) / len(few)
        found = plain.counted, plain.share, drawn.share
        errors.append([[np.abs(x - y).mean() for x in found] for y in (own, usual)])
    for counted, estimated, ours in np.mean(errors, 0):
        assert ours < counted and ours < estimated


def test_parts_are_corrected_by_posts_of_the_same_parts():
    """Posts without pictures, whose probabilities say little, do not spoil those of the others."""
    rng = np.random.default_rng(3)
    classes, probs = posts_of(TRAINED, 900, rng)
    vague = np.tile(TRAINED, (900, 1)) * 0.9 + probs * 0.1
    held_out = HeldOutProbabilities(
        np.r_[probs, vague], np.r_[classes, classes], np.repeat([3, 1], 900)
    )
    true = np.array([0.1, 0.2, 0.7])
    _, new = posts_of(true, 2000, rng)
    users, labels = np.arange(2000), new.argmax(1)
    found = ShareEstimator(new, labels, users, np.full(2000, 3), held_out).estimate(users)
    assert np.abs(found.share - true).max() < 0.05
    blurred = 0.9 * TRAINED + 0.1 * new
    found = ShareEstimator(blurred, labels, users, np.full(2000, 1), held_out).estimate(users)
    assert np.abs(found.share - true).max() < 0.08
    rare = ShareEstimator(new, labels, users, np.full(2000, 2), held_out).estimate(users)
    assert np.isfinite(rare.share).all()  # no post with pictures alone was held_out


def test_a_model_that_tells_nothing_is_no_error():
    same = np.tile(TRAINED, (90, 1))
    held_out = HeldOutProbabilities(same, np.arange(90) % 3, np.full(90, 3))
    shares = estimator_of(same, held_out=held_out)
    found = shares.draw(shares.estimate(np.arange(90)), np.arange(90))
    assert np.allclose(found.share, TRAINED, atol=0.01) and (found.high - found.low).min() > 0


def test_posts_of_one_user_are_resampled_together():
    rng = np.random.default_rng(4)
    probs = np.eye(3)[rng.integers(3, size=60)]
    often, users = np.repeat(probs, 10, axis=0), np.repeat(np.arange(60), 10)
    one = estimator_of(probs).estimate(np.arange(60))
    same = estimator_of(often, users).estimate(np.arange(600))
    apart = estimator_of(often).estimate(np.arange(600))
    width = [(x.high - x.low).mean() for x in (one, same, apart)]
    assert width[1] == pytest.approx(width[0], rel=0.1)
    assert width[2] < 0.5 * width[1]


def test_a_label_that_nobody_gave_may_still_have_a_share():
    found = estimator_of(np.eye(3)[[0] * 5]).estimate(np.arange(5))
    assert found.share.tolist() == [1, 0, 0]
    assert found.low[0] < 0.9 and found.high[1] > 0.1
    assert found.low.min() >= 0 and found.high.max() <= 1


def test_changes_are_found_beyond_chance_only():
    rng = np.random.default_rng(5)
    held_out, seen = held_out_of(rng), []
    for shift in [0.0] * 60 + [0.3] * 5:
        true = TRAINED - [shift, 0, -shift]
        probs = np.r_[posts_of(TRAINED, 150, rng)[1], posts_of(true, 150, rng)[1]]
        shares = estimator_of(probs, held_out=held_out)
        halves = [shares.estimate(np.arange(150) + x) for x in (0, 150)]
        seen.append(Change.between(*halves))
    assert np.mean([x.p.min() < 0.05 for x in seen[:60]]) < 0.13
    for change in seen[60:]:
        assert change.p[0] < 0.01 and change.difference[0] < -0.1 < 0.1 < change.difference[2]
        assert change.high[0] < 0 and change.low[2] > 0


def test_the_order_of_labels_does_not_matter():
    rng = np.random.default_rng(7)
    held_out, (_, probs) = held_out_of(rng), posts_of([0.2, 0.2, 0.6], 100, rng)
    turned = [2, 0, 1]
    other = HeldOutProbabilities(
        held_out.probabilities[:, turned], np.argsort(turned)[held_out.classes], held_out.parts
    )
    one = estimator_of(probs, held_out=held_out).estimate(np.arange(100))
    two = estimator_of(probs[:, turned], held_out=other).estimate(np.arange(100))
    assert np.allclose(one.share[turned], two.share, atol=1e-6)


@given(st.data())
def test_nothing_can_be_told_from_what_is_shown(data):
    """Of each line, the hidden cells are of enough users together, or none is shown, or hidden."""
    users = np.array(data.draw(st.lists(st.integers(-1, 12), min_size=1, max_size=60)))
    days, hours = (
        data.draw(st.lists(st.integers(0, 3), min_size=len(users), max_size=len(users)))
        for _ in range(2)
    )
    rule = PrivacyRule(users, data.draw(st.integers(1, 6)))
    cells = {}
    for row, key in enumerate(zip(days, hours, strict=True)):
        cells.setdefault(key, []).append(row)
    cells = {key: np.array(rows) for key, rows in cells.items()}
    lines = [[key for key in cells if key[i] == x] for i in (0, 1) for x in range(4)]
    for chosen in ([cells], [cells, *lines]):
        shown = rule.choose(cells, chosen)
        for rows in shown.values():
            posts = np.unique_counts(users[rows]).counts
            assert len(posts) >= rule.least
            assert rule.least == 1 or posts.max() <= posts.sum() / 2
        for line in chosen:
            hidden = [cells[key] for key in line if key not in shown]
            if hidden and any(key in shown for key in line):
                assert rule.allows(np.concatenate(hidden))


def test_everything_is_shown_where_it_may():
    rule = PrivacyRule(np.arange(40), 5)
    cells = {key: np.arange(10 * key, 10 * key + 10) for key in range(4)}
    assert rule.choose(cells, [cells]).keys() == cells.keys()
    cells[3] = cells[3][:2]
    assert (
        len(rule.choose(cells, [cells])) == 2
    )  # a second is hidden: else the total tells the third
    assert [rule.round(x) for x in (0, 7, 8, 12.4)] == [0, 5, 10, 10]


@pytest.mark.parametrize("labels", [1, 30])
def test_shares_lie_within_their_intervals_with_one_label_and_with_many(labels):
    probs, rows = np.eye(labels)[[labels - 1] * 10], np.arange(10)
    for held_out in (None, HeldOutProbabilities(probs, probs.argmax(1), np.full(10, 3))):
        shares = estimator_of(probs, held_out=held_out)
        found = shares.draw(shares.estimate(rows), rows)
        assert found.share.sum() == pytest.approx(1)
        assert ((found.low <= found.share) & (found.share <= found.high)).all()
