"""A network that learns from the answers of a method without epochs, too."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.baselines.test_every_method import task
from sgmft.errors import SgmftError
from sgmft.models.arrays import softmax
from sgmft.models.gated_experts import GatedExperts
from sgmft.models.registry import get_method
from sgmft.training.fit import fit_network, train_on_all, train_with_validation

TEACHERS = "gated-experts", "linear-probe", "late-average"


def by_folds(work, teacher):
    """Probabilities of the task's posts by the teacher, fitted without the post."""
    method = get_method(teacher)
    alone = replace(work, method=method, preset=method.preset(None, {"seed": 0}))
    return softmax(fit_network(alone, []).held_out.logits)


def same(first, second):
    return all(
        torch.equal(x, y)
        for x, y in zip(first.state_dict().values(), second.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize(
    ("name", "teacher"),
    [*(("sgmft tokens", x) for x in TEACHERS), ("low-rank attributes", "late-average")],
)
def test_it_learns_the_mean_of_label_and_answer(name, teacher):
    work = task(name, teacher=teacher)
    truth = np.eye(work.classes)[work.data.labels]
    soft = ((truth + by_folds(work, teacher)) / 2).astype(np.float32)
    alone = task(name)
    expected = train_on_all(replace(alone, data=alone.data._replace(soft=soft)), 2)
    assert same(train_on_all(work, 2), expected)
    assert not same(train_on_all(alone, 2), expected)


def test_soft_labels_are_averaged_as_they_are():
    work = task("low-rank", teacher="linear-probe")
    soft = np.random.default_rng(0).dirichlet(np.ones(work.classes), len(work.data.labels))
    work = replace(work, data=work.data._replace(soft=soft.astype(np.float32)))
    means = ((soft.astype(np.float32) + by_folds(work, "linear-probe")) / 2).astype(np.float32)
    alone = task("low-rank")
    expected = train_on_all(replace(alone, data=alone.data._replace(soft=means)), 1)
    assert same(train_on_all(work, 1), expected)


def test_the_teacher_does_not_see_validation_posts():
    work, held = task("sgmft tokens", teacher="gated-experts", epochs=1), [0, 3, 5, 8]
    changed = work.data.labels.copy()
    changed[held] = (changed[held] + 1) % work.classes
    other = replace(work, data=work.data._replace(labels=changed))
    first, second = (train_with_validation(x, held) for x in (work, other))
    assert same(first.model, second.model)
    assert first.selected.val_loss != second.selected.val_loss  # which goes by the labels alone


def test_the_teacher_is_given_no_tokens(monkeypatch):
    """All posts at once, of which they would fill the memory."""
    real, seen = GatedExperts.fit, []

    def watched(self, batch, *more):
        seen.append((batch.text_tokens, batch.image_tokens, len(batch.text)))
        return real(self, batch, *more)

    monkeypatch.setattr(GatedExperts, "fit", watched)
    work = task("sgmft tokens", teacher="gated-experts")
    train_on_all(work, 1)
    assert seen == [(None, None, len(work.data.labels))]


@pytest.mark.parametrize("name", ["gated-experts", "linear-probe"])
def test_a_method_without_epochs_has_none(name):
    with pytest.raises(SgmftError, match=f"{name} has no setting 'teacher'"):
        get_method(name).preset(None, {"teacher": "linear-probe"})


def test_a_network_cannot_be_one():
    expected = "--set teacher=sgmft: expected none or gated-experts or linear-probe"
    with pytest.raises(SgmftError, match=expected):
        get_method("sgmft").preset(None, {"teacher": "sgmft"})
