"""The training loop on small made-up features: what it minimises, keeps, repeats and resumes."""

from __future__ import annotations

import copy
import json
import math
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.nn.functional import cross_entropy

from made_up import INFO, Centres, posts
from sgmft.features import Features
from sgmft.nn import SGMFT, Batch, ModelConfig, Network, NetworkConfig, Output
from sgmft.nn.network import TwoSided
from sgmft.presets import TrainConfig
from sgmft.training import EVALUATION_BATCH, Epoch, LabelledFeatures, answer, train

SMALL = ModelConfig(
    classes=3,
    text_width=12,
    image_width=10,
    width=16,
    heads=2,
    hidden_ratio=1.0,
    classifier_widths=(12,),
    dropout=0.0,
    scale="standard",
    gate="sigmoid",
)
FAST = TrainConfig(epochs=6, batch_size=8, learning_rate=3e-3)
FILE = "checkpoint.safetensors"


def mislabelled(data: LabelledFeatures) -> LabelledFeatures:
    """Every other post with a wrong label: a validation loss on these soon rises."""
    labels = data.labels.clone()
    labels[::2] = (labels[::2] + 1) % 3
    return LabelledFeatures(data.features, labels)


def fresh(config: ModelConfig = SMALL, seed: int = 0) -> SGMFT:
    torch.manual_seed(seed)
    return SGMFT(config)


def weights_of(model: Network) -> dict[str, torch.Tensor]:
    return {name: x.clone() for name, x in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(x, other[n]) for n, x in one.items())


def figures(history: list[Epoch]) -> str:
    return repr([tuple(epoch) for epoch in history])  # NaN equals NaN as a word


# --- learning


@pytest.mark.parametrize("view", ["elements", "tokens"])
def test_loss_falls_and_the_classes_are_learned(view):
    model = fresh(replace(SMALL, view=view))
    data = posts()
    history = train(model, data, posts(15, seed=1), replace(FAST, epochs=12))
    assert [epoch.epoch for epoch in history] == list(range(1, 13))
    assert history[-1].loss < history[0].loss / 2
    assert history[-1].accuracy > 0.95 and history[-1].val_accuracy > 0.9
    logits, _, guidance = answer(model, data.features)
    assert (logits.argmax(-1) == data.labels).float().mean() > 0.95
    assert not model.training
    assert guidance.isfinite().all() and (guidance > 0).all() and (guidance <= 1 + 1e-5).all()
    assert 0 < history[0].gate_entropy <= 1 and 0 < history[0].element_entropy <= 1


def test_figures_of_an_epoch_without_validation_or_guidance_are_nan():
    history = train(fresh(replace(SMALL, sim=False)), posts(), None, replace(FAST, epochs=1))
    values = history[0]._asdict()
    assert {name for name, x in values.items() if math.isnan(x)} == {
        "val_loss",
        "val_accuracy",
        "gate_entropy",
        "element_entropy",
    }


@pytest.mark.parametrize("view", ["elements", "tokens"])
@pytest.mark.parametrize("lacking", ["text", "image"])
def test_a_side_that_every_post_lacks(view, lacking):
    model, data = fresh(replace(SMALL, view=view)), posts(lacking=lacking)
    history = train(model, data, None, FAST)
    assert history[-1].loss < history[0].loss
    assert answer(model, data.features).logits.isfinite().all()
    assert answer(model, posts(5, seed=2).features).logits.isfinite().all()


def test_two_classes():
    model = fresh(replace(SMALL, classes=2))
    history = train(model, posts(20, classes=2), posts(6, classes=2, seed=1), FAST)
    assert history[-1].val_accuracy == 1


@pytest.mark.parametrize("count", [3, 9])
def test_one_post_per_class_and_a_last_batch_of_one(count):
    model, data = fresh(), posts(count)
    history = train(model, data, None, replace(FAST, epochs=30))
    assert history[-1].loss < history[0].loss
    assert answer(model, data.features).logits.isfinite().all()


# --- the loss


def first_loss(data: LabelledFeatures, **settings: Any) -> tuple[float, torch.Tensor]:
    """The reported loss of the first step, all posts in one batch, and the logits it is of."""
    model = fresh()
    logits = answer(copy.deepcopy(model), data.features).logits
    size = len(data.labels)
    history = train(model, data, None, replace(FAST, epochs=1, batch_size=size, **settings))
    return history[0].loss, logits.double()


def uneven() -> LabelledFeatures:
    data, rows = posts(), torch.tensor([0, 3, 6, 9, 12, 1, 4, 2])  # five, two and one of a class
    return LabelledFeatures(data.features.take(rows), data.labels[rows])


def test_plain_loss_is_the_mean_of_minus_log_p():
    data = uneven()
    loss, logits = first_loss(data)
    log_p = logits - logits.exp().sum(1, keepdim=True).log()
    assert loss == pytest.approx(-float(log_p[range(8), data.labels].mean()), rel=1e-5)


def test_class_weights_are_inverse_frequencies():
    data = uneven()
    loss, logits = first_loss(data, class_weights=True)
    log_p = (logits - logits.exp().sum(1, keepdim=True).log()).tolist()
    # Each class weighs the same in total: the mean over classes of the mean over its posts.
    means = []
    for k in range(3):
        of_class = [-row[k] for row, label in zip(log_p, data.labels, strict=True) if label == k]
        means.append(sum(of_class) / len(of_class))
    assert loss == pytest.approx(sum(means) / 3, rel=1e-5)
    assert loss != pytest.approx(first_loss(data)[0], rel=1e-3)


def test_label_smoothing_spreads_a_share_of_the_target():
    data = uneven()
    loss, logits = first_loss(data, label_smoothing=0.3)
    log_p = logits - logits.exp().sum(1, keepdim=True).log()
    expected = -0.7 * log_p[range(8), data.labels].mean() - 0.3 * log_p.mean()
    assert loss == pytest.approx(float(expected), rel=1e-5)


class SideBySide(TwoSided):
    """The text's classes and the picture's, each with a head; only the text's is the answer."""

    def __init__(self, config: NetworkConfig) -> None:
        super().__init__(config, 8)
        self.heads = nn.ModuleList(nn.Linear(8, config.classes) for _ in range(2))

    def forward(self, batch: Batch) -> Output:
        text, image = self.pooled_inputs(batch)
        return Output(self.heads[0](text), text, parts={"image": self.heads[1](image)})

    def loss(self, output: Output, labels: torch.Tensor, criterion: Any) -> torch.Tensor:
        assert output.parts is not None
        return criterion(output.logits, labels) + criterion(output.parts["image"], labels)


def test_a_networks_own_objective_is_minimised_and_the_cross_entropy_told():
    torch.manual_seed(0)
    model, data = SideBySide(NetworkConfig(3, 12, 10)), posts()
    model.prepare(data.features.text, data.features.image, None, None)
    before = weights_of(model)
    everything = data.features.batch(torch.arange(45))
    with torch.no_grad():
        told = float(cross_entropy(model(everything).logits, data.labels))
    history = train(model, data, None, replace(FAST, epochs=20, batch_size=45, learning_rate=0.03))
    assert history[0].loss == pytest.approx(told, rel=1e-5)  # of the logits alone
    output = model(everything)
    for logits in (output.logits, output.parts["image"]):  # the other head by `loss` alone
        assert (logits.argmax(-1) == data.labels).float().mean() > 0.95
    after = weights_of(model)
    learned = {name for name in before if not torch.equal(before[name], after[name])}
    expected = {f"heads.{i}.{kind}" for i in (0, 1) for kind in ("weight", "bias")}
    expected |= {f"{side}.project.{k}" for side in ("text", "image") for k in ("weight", "bias")}
    assert learned == expected


# --- networks that are solved at once


@pytest.mark.parametrize("watched", [False, True])
def test_a_solved_network_has_one_line_of_log(tmp_path, watched):
    model, data, held = Centres(NetworkConfig(3, 12, 10)), posts(), mislabelled(posts(15, seed=1))
    told: list[Epoch] = []
    history = train(
        model,
        data,
        held if watched else None,
        replace(FAST, epochs=50, patience=3),
        checkpoint=tmp_path / "c",
        on_epoch=told.append,
    )
    (line,) = history
    assert figures(told) == figures(history)
    assert (line.epoch, line.epochs) == (1, 1)
    assert not model.training
    for k in range(3):
        mean = data.features.text[data.labels == k].mean(0)
        torch.testing.assert_close(model.means[k], mean)
    for name, of in (("", data), ("val_", held)):
        if of is held and not watched:
            assert math.isnan(line.val_loss) and math.isnan(line.val_accuracy)
            continue
        logits = answer(model, of.features).logits
        loss, right = cross_entropy(logits, of.labels), logits.argmax(-1) == of.labels
        assert getattr(line, f"{name}loss") == pytest.approx(float(loss))
        assert getattr(line, f"{name}accuracy") == pytest.approx(float(right.float().mean()))
    assert math.isnan(line.gate_entropy) and math.isnan(line.element_entropy)


class LeavingOut(Centres):
    """Says of each post what is far from the truth when it is left out; reads n-grams."""

    reads_ngrams = True

    def solve(self, batch: Batch, labels: torch.Tensor) -> torch.Tensor:
        super().solve(batch, labels)
        assert batch.ngrams is not None and len(batch.ngrams) == len(labels)
        return nn.functional.one_hot((labels + 1) % 3, 3).float()

    def forward(self, batch: Batch) -> Output:
        assert batch.ngrams is not None
        counts = torch.stack([(batch.ngrams == 100 + k).sum(1) for k in range(3)], 1)
        return Output(10.0 * counts, batch.text)


@pytest.mark.parametrize("watched", [False, True])
def test_without_validation_posts_what_is_said_of_posts_left_out_stands_for_them(watched):
    data, held = posts(), posts(15, seed=1)
    model = LeavingOut(NetworkConfig(3, 12, 10))
    (line,) = train(model, data, held if watched else None, FAST)
    assert line.accuracy == 1 and line.loss == pytest.approx(math.log1p(2 * math.exp(-10)), rel=0.1)
    assert line.val_accuracy == (1 if watched else 0)
    loss = line.loss if watched else math.log(math.e + 2)  # -log p, the 1 on a wrong class
    assert line.val_loss == pytest.approx(loss)


def test_n_grams_reach_the_networks_that_read_them_and_no_others():
    data, seen = posts(EVALUATION_BATCH + 3), []

    class Reading(SideBySide):
        def forward(self, batch: Batch) -> Output:
            seen.append(batch.ngrams)
            return super().forward(batch)

    for reads in (False, True):
        model = Reading(NetworkConfig(3, 12, 10))
        model.reads_ngrams = reads
        seen.clear()
        train(model, data, posts(15, seed=1), replace(FAST, epochs=1, batch_size=100))
        answer(model, data.features)
        assert len(seen) == 3 + 1 + 2 and all((x is not None) is reads for x in seen)
    assert seen[-1][:, 0].tolist() == [100 + i % 3 for i in range(EVALUATION_BATCH, len(data[1]))]


# --- answers


@pytest.mark.parametrize("view", ["elements", "tokens"])
def test_answers_are_the_networks_in_the_order_of_the_posts(view):
    count = EVALUATION_BATCH + 3  # more than one batch
    features = posts(count).features
    model = fresh(replace(SMALL, view=view)).eval()
    with torch.no_grad():
        output = model(features.batch(torch.arange(count)))
    found = answer(model.train(), features)
    assert not model.training
    expected = output.logits, output.fused, torch.stack(tuple(output.guidance), 1)
    for one, other in zip(found, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-5)


def test_answers_without_guidance_are_nan_there():
    found = answer(fresh(replace(SMALL, sim=False)), posts(4).features)
    assert found.guidance.shape == (4, 2) and found.guidance.isnan().all()
    assert found.logits.isfinite().all()


@pytest.mark.parametrize("view", ["elements", "tokens"])
def test_no_posts_no_answers(view):
    found = answer(fresh(replace(SMALL, view=view)), Features.of([], INFO, True))
    assert found.logits.shape == (0, 3)
    assert found.guidance.shape == (0, 2) and len(found.fused) == 0


# --- the optimiser


@pytest.fixture
def steps(monkeypatch):
    """Learning rate of each parameter group at each step of Adam, as it is taken."""
    taken = []

    class Watched(torch.optim.AdamW):
        def step(self, *args, **kwargs):
            taken.append([group["lr"] for group in self.param_groups])
            return super().step(*args, **kwargs)

    monkeypatch.setattr(torch.optim, "AdamW", Watched)
    return taken


def test_cosine_schedule_falls_from_the_rate_to_zero_over_all_steps(steps):
    train(fresh(), posts(20), None, replace(FAST, epochs=4, schedule="cosine"))
    total = 4 * 3  # epochs x batches of at most eight
    expected = [3e-3 * (1 + math.cos(math.pi * i / total)) / 2 for i in range(total)]
    assert [rates[0] for rates in steps] == pytest.approx(expected)


def test_without_schedule_the_rate_stays(steps):
    train(fresh(), posts(20), None, replace(FAST, epochs=2))
    assert steps == [[3e-3]] * 6


# --- which epoch is kept


def test_early_stopping_keeps_the_best_epochs_weights():
    model = fresh()
    held = mislabelled(posts(15, seed=1))
    config = replace(FAST, epochs=60, patience=3, learning_rate=1e-2)
    history = train(model, posts(), held, config)
    losses = [epoch.val_loss for epoch in history]
    best = losses.index(min(losses))
    assert len(history) == best + 1 + 3 < 60
    logits = answer(model, held.features).logits
    assert float(cross_entropy(logits, held.labels)) == pytest.approx(min(losses), rel=1e-6)
    accuracy = float((logits.argmax(-1) == held.labels).float().mean())
    assert accuracy == pytest.approx(history[best].val_accuracy)
    assert losses[-1] > min(losses) * 1.01


def test_without_patience_all_epochs_are_trained_and_the_last_is_kept():
    model, held = fresh(), mislabelled(posts(15, seed=1))
    history = train(model, posts(), held, replace(FAST, epochs=15, learning_rate=1e-2))
    logits = answer(model, held.features).logits
    loss = float(cross_entropy(logits, held.labels))
    assert len(history) == 15
    assert loss == pytest.approx(history[-1].val_loss, rel=1e-6)
    assert loss > min(epoch.val_loss for epoch in history) * 1.01


def test_patience_without_validation_trains_all_epochs():
    assert len(train(fresh(), posts(), None, replace(FAST, patience=1))) == FAST.epochs


# --- one seed


def test_the_seed_decides_initial_weights_dropout_and_order():
    def run(initial: int, order: int, dropout: float = 0.0) -> dict[str, torch.Tensor]:
        model = fresh(replace(SMALL, dropout=dropout), initial)
        train(model, posts(), None, replace(FAST, epochs=2, seed=order))
        return weights_of(model)

    assert same(run(0, 0, 0.5), run(0, 0, 0.5))
    assert not same(run(0, 0, 0.5), run(1, 0, 0.5))
    assert not same(run(0, 0), run(0, 1))


# --- stopped and started again


class StopHereError(Exception):
    pass


STOPPED = replace(FAST, epochs=6, batch_size=10, learning_rate=1e-2, schedule="cosine")
DROPPING = replace(SMALL, dropout=0.3)


def run(
    config: TrainConfig = STOPPED,
    model: ModelConfig = DROPPING,
    *,
    data: LabelledFeatures | None = None,
    held: LabelledFeatures | None = None,
    checkpoint: Path | None = None,
    stop: int = 0,
    seed: int = 0,
) -> tuple[dict[str, torch.Tensor], list[Epoch], list[Epoch]]:
    """Weights, history, and the epochs that were really trained; `stop` raises after that epoch."""
    network = fresh(model, seed)
    told: list[Epoch] = []

    def on_epoch(epoch: Epoch) -> None:
        told.append(epoch)
        if epoch.epoch == stop:
            raise StopHereError

    history = train(
        network, data or posts(24), held, config, checkpoint=checkpoint, on_epoch=on_epoch
    )
    return weights_of(network), history, told


@pytest.mark.parametrize("view", ["elements", "tokens"])
@pytest.mark.parametrize("patience", [0, 4])
@pytest.mark.parametrize("stop", [1, 2, 4])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, view, patience, stop):
    model = replace(DROPPING, view=view)
    held = mislabelled(posts(15, seed=1)) if patience else None
    config = replace(STOPPED, epochs=7, patience=patience)
    weights, history, _ = run(config, model, held=held)
    assert len(history) > stop
    with pytest.raises(StopHereError):
        run(config, model, held=held, checkpoint=tmp_path / "c", stop=stop)
    torch.rand(7)  # whatever else the process drew
    resumed, again, told = run(config, model, held=held, checkpoint=tmp_path / "c")
    assert same(weights, resumed)
    assert figures(again) == figures(history) == figures(told)


def test_interrupted_after_every_epoch(tmp_path):
    weights, history, _ = run()
    for stop in range(1, STOPPED.epochs + 1):
        with pytest.raises(StopHereError):
            run(checkpoint=tmp_path, stop=stop)
    resumed, again, _ = run(checkpoint=tmp_path)
    assert same(weights, resumed) and figures(again) == figures(history)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = [{tests!r}]
import sgmft.checkpoint as checkpoint
import test_training as t

written, write = 0, checkpoint.save_file
def save_file(tensors, path, metadata):  # the third checkpoint is killed half-way
    global written
    written += 1
    write(tensors, path, metadata)
    if written == 3:
        with open(path, "r+b") as file:
            file.truncate(Path(path).stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint.save_file = save_file
t.run(checkpoint=Path(sys.argv[1]))
"""


def test_killed_while_writing_a_checkpoint(tmp_path):
    script = KILLED.format(tests=str(Path(__file__).parent))
    ended = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr
    with safe_open(tmp_path / FILE, "pt") as file:
        assert len(json.loads(file.metadata()["progress"])["history"]) == 2
    weights, history, _ = run()
    resumed, again, _ = run(checkpoint=tmp_path)
    assert same(weights, resumed) and figures(again) == figures(history)


def test_a_finished_run_is_not_run_again(tmp_path, steps):
    weights, history, _ = run(checkpoint=tmp_path)
    assert steps
    steps.clear()
    resumed, again, _ = run(checkpoint=tmp_path)
    assert not steps
    assert same(weights, resumed) and figures(again) == figures(history)


def test_the_random_state_is_part_of_it():
    dropping, _, _ = run()
    plain, _, _ = run(model=SMALL)
    assert not same(dropping, plain)  # so that the tests above do test dropout


def changed(part: str) -> dict[str, Any]:
    data = posts(24)
    features = data.features
    return {
        "rate": {"config": replace(STOPPED, learning_rate=2e-2)},
        "seed of the order": {"config": replace(STOPPED, seed=5)},
        "initial weights": {"seed": 5},
        "dropout": {"model": replace(DROPPING, dropout=0.2)},
        "labels": {"data": LabelledFeatures(features, data.labels.flip(0))},
        "texts": {"data": LabelledFeatures(replace(features, text=features.text + 1), data.labels)},
        "pictures": {
            "data": LabelledFeatures(replace(features, image=features.image * 2), data.labels)
        },
        "n-grams": {
            "data": LabelledFeatures(
                replace(
                    features, ngrams=replace(features.ngrams, values=features.ngrams.values + 1)
                ),
                data.labels,
            )
        },
        "fewer posts": {"data": posts(23)},
        "validation": {"held": posts(9, seed=3)},
    }[part]


@pytest.mark.parametrize(
    "part",
    [
        "rate",
        "seed of the order",
        "initial weights",
        "dropout",
        "labels",
        "texts",
        "pictures",
        "n-grams",
        "fewer posts",
        "validation",
    ],
)
def test_a_checkpoint_of_another_run_is_ignored(tmp_path, part, steps):
    with pytest.raises(StopHereError):
        run(checkpoint=tmp_path, stop=2)
    options, taken = changed(part), len(steps)
    found, history, told = run(**options, checkpoint=tmp_path)
    taken = len(steps) - taken
    steps.clear()
    expected, clean, _ = run(**options)
    assert same(found, expected) and figures(history) == figures(clean) == figures(told)
    assert len(steps) == taken  # from the first epoch on


def damaged(path: Path, how: str) -> None:
    whole = path.read_bytes()
    if how == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "not safetensors":
        path.write_bytes(b"\x80\x04 not at all" * 50)
    elif how == "no progress":
        save_file(load_file(path), path)
    else:
        save_file(load_file(path), path, {"progress": '{"history": ['})


@pytest.mark.parametrize(
    "how", ["cut", "empty", "not safetensors", "no progress", "broken progress"]
)
def test_a_damaged_checkpoint_is_ignored(tmp_path, how):
    with pytest.raises(StopHereError):
        run(checkpoint=tmp_path, stop=2)
    damaged(tmp_path / FILE, how)
    found, history, _ = run(checkpoint=tmp_path)
    expected, clean, _ = run()
    assert same(found, expected) and figures(history) == figures(clean)


def test_a_checkpoint_is_one_safetensors_file_without_pickle(tmp_path):
    held = mislabelled(posts(15, seed=1))
    with pytest.raises(StopHereError):
        run(replace(STOPPED, patience=5), held=held, checkpoint=tmp_path / "a" / "b", stop=2)
    (path,) = (tmp_path / "a" / "b").iterdir()
    assert path.name == FILE
    size = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + size])  # what the format says, read by hand
    end = max(x["data_offsets"][1] for name, x in header.items() if name != "__metadata__")
    assert path.stat().st_size == 8 + size + end  # and nothing after it
    names = load_file(path).keys()
    kinds = {name.partition("/")[0] for name in names}
    assert kinds == {"model", "best", "optimizer", "random"}
    assert len(json.loads(header["__metadata__"]["progress"])["history"]) == 2


# --- TensorBoard


def test_tracking_writes_tensorboard_files(tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    history = train(fresh(), posts(), posts(9, seed=1), replace(FAST, epochs=3), track=tmp_path)
    logs = [EventAccumulator(str(x)).Reload() for x in tmp_path.rglob("events.out.tfevents*")]
    (events,) = [log for log in logs if "loss" in log.Tags()["scalars"]]
    for name in ("loss", "accuracy", "val_loss", "gate_entropy"):
        values = [event.value for event in events.Scalars(name)]
        assert values == pytest.approx([getattr(epoch, name) for epoch in history], rel=1e-5)
