"""Logistic regressions for several penalties, against scikit-learn."""

import math
import warnings

import numpy as np
import pytest
import threadpoolctl
import torch
from regression_data import D, K, dense, scikit
from regression_data import tight as tight
from scipy.sparse import csr_matrix

from sgmft.models.logistic import ABSENT, Block, log_frequencies, logistic_paths

PENALTIES = (3.0, 0.3, 0.03)


def logistic_path(x, labels, classes, penalties):
    """Of all rows."""
    whole = Block(torch.ones_like(labels, dtype=torch.bool))
    return (found for (found,) in logistic_paths(x, labels, classes, penalties, [whole]))


def probabilities(solution, x):
    weight, bias = solution
    return (x.double() @ weight.T + bias).softmax(-1).numpy()


@pytest.mark.parametrize("classes", [2, 3, 5])
def test_each_solution_is_scikit_learns(classes):
    x, labels = dense(classes=classes)
    solutions = list(logistic_path(x, labels, classes, PENALTIES))
    found = [probabilities(s, x) for s in solutions]
    for p, penalty in zip(found, PENALTIES, strict=True):
        expected = scikit(x.numpy(), labels, penalty).predict_proba(x.numpy())
        np.testing.assert_allclose(p, expected, atol=0.03)
    assert np.abs(found[0] - found[1]).max() > 0.05 < np.abs(found[1] - found[2]).max()
    sizes = [float(s.weight.norm()) for s in solutions]
    assert sizes == sorted(sizes)


def test_each_solution_is_where_the_gradient_vanishes(tight):
    x, labels = dense()
    for solution, penalty in zip(logistic_path(x, labels, K, PENALTIES), PENALTIES, strict=True):
        weight, bias = (part.double().requires_grad_() for part in solution)
        logits = x @ weight.T + bias
        loss = torch.nn.functional.cross_entropy(logits, labels)
        (loss + penalty * weight.square().sum() / 2).backward()
        assert weight.grad.abs().max() < 1e-5 and bias.grad.abs().max() < 1e-5


def test_starting_from_the_solution_before_changes_nothing(tight):
    x, labels = dense()
    path = list(logistic_path(x, labels, K, PENALTIES))
    for solution, penalty in zip(path, PENALTIES, strict=True):
        (alone,) = logistic_path(x, labels, K, [penalty])
        np.testing.assert_allclose(probabilities(solution, x), probabilities(alone, x), atol=1e-5)


def test_a_sparse_matrix_is_as_good_as_an_array(tight):
    x, labels = dense()
    x[x < 1] = 0
    both = (logistic_path(m, labels, K, PENALTIES) for m in (x, csr_matrix(x.numpy())))
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one.weight, other.weight, atol=1e-4, rtol=0)
        torch.testing.assert_close(one.bias, other.bias, atol=1e-4, rtol=0)


@pytest.mark.parametrize("present", [[0, 2, 3], [1, 3]])
def test_a_class_without_posts_is_told_of_none_and_disturbs_no_other(present):
    x, labels = dense(classes=len(present))
    named = torch.tensor(present)[labels]
    absent = sorted({*range(5)} - {*present})
    tasks = ((named, 5), (labels, len(present)))
    paths = (logistic_path(x, y, k, PENALTIES) for y, k in tasks)
    for wide, narrow in zip(*paths, strict=True):
        assert wide.weight.shape == (5, D) and wide.bias.shape == (5,)
        assert (wide.weight[absent] == 0).all() and (wide.bias[absent] == ABSENT).all()
        p = probabilities(wide, x)
        assert p[:, absent].max() < 1e-12
        np.testing.assert_allclose(p[:, present], probabilities(narrow, x), atol=1e-6)


def test_of_one_class_only_its_name_is_learned():
    x, labels = dense()
    solutions = list(logistic_path(x, torch.full_like(labels, 1), K, PENALTIES))
    assert len(solutions) == len(PENALTIES)
    for solution in solutions:
        assert (solution.weight == 0).all() and solution.bias.tolist() == [ABSENT, 0.0, ABSENT]


def test_the_solver_stopping_early_warns_nobody(monkeypatch):
    monkeypatch.setattr("sgmft.models.logistic.MAX_ITERATIONS", 1)
    x, labels = dense()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(logistic_path(x, labels, K, PENALTIES))


def test_log_frequencies():
    found = log_frequencies(torch.tensor([2, 0, 2, 2]), 4)
    expected = [math.log(0.25), ABSENT, math.log(0.75), ABSENT]
    torch.testing.assert_close(found, torch.tensor(expected))
    none = log_frequencies(torch.zeros(0, dtype=torch.long), 4)
    assert none.isfinite().all() and (none == none[0]).all()


@pytest.mark.parametrize("threads", [1, 2])
def test_the_search_takes_as_many_threads_as_torch(threads, monkeypatch):
    import scipy.optimize

    seen, minimize = [], scipy.optimize.minimize

    def watched(*given, **named):
        pools = threadpoolctl.threadpool_info()
        seen.extend(pool["num_threads"] for pool in pools if pool["user_api"] == "blas")
        return minimize(*given, **named)

    monkeypatch.setattr(scipy.optimize, "minimize", watched)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    x, labels = dense()
    list(logistic_path(x, labels, K, PENALTIES))
    assert seen and set(seen) == {threads}


def folds(x, count=4):
    """Parts that each leave a fold out, with means and deviations of their own."""
    fold = torch.arange(len(x)) % count
    kept = [fold != f for f in range(count)]
    return [Block(rows, x[rows].mean(0), x[rows].std(0)) for rows in kept]


@pytest.mark.parametrize("most", [2**22, 60, 1], ids=["together", "in groups", "one by one"])
def test_parts_are_solved_as_if_each_were_alone(most, tight, monkeypatch):
    monkeypatch.setattr("sgmft.models.logistic.MAX_NUMBERS", most * K)
    x, labels = dense()
    parts = folds(x)
    parts[1] = Block(parts[1].rows & (labels != 0), *parts[1][1:])  # one that lacks a class
    for penalty, found in zip(
        PENALTIES, logistic_paths(x, labels, K, PENALTIES, parts), strict=True
    ):
        for number, (solution, (rows, mean, deviation)) in enumerate(
            zip(found, parts, strict=True)
        ):
            own = ((x - mean) / deviation).numpy()
            expected = scikit(own[rows], labels[rows], penalty).predict_proba(own)
            p = probabilities(solution, x)
            if number == 1:
                assert p[:, 0].max() < 1e-12 and (solution.weight[0] == 0).all()
                p = p[:, 1:]
            np.testing.assert_allclose(p, expected, atol=1e-4)


def test_a_part_never_sees_the_other_rows(tight):
    x, labels = dense()
    parts = folds(x)
    changed = x.clone()
    changed[::4] = 100 * x[::4]  # the first part's own fold
    before, after = (next(logistic_paths(m, labels, K, [0.1], parts)) for m in (x, changed))
    torch.testing.assert_close(after[0].weight, before[0].weight, atol=1e-5, rtol=0)
    assert not torch.isclose(after[1].weight, before[1].weight, atol=1e-2).all()


def test_a_matrix_without_columns_leaves_the_frequencies():
    labels = torch.tensor([0, 1, 1, 1])
    for x in (torch.zeros(4, 0), csr_matrix((4, 0), dtype=np.float32)):
        (solution,) = logistic_path(x, labels, 2, [1.0])
        assert solution.weight.shape == (2, 0)
        torch.testing.assert_close(solution.bias.softmax(0).float(), torch.tensor([0.25, 0.75]))
