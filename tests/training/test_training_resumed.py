"""Training stopped and started again: the same to the last bit, or from the first epoch on."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sgmft.errors import SgmftWarning
from sgmft.features.features import LabelledFeatures
from sgmft.models.presets import TrainConfig
from sgmft.models.sgmft import SGMFTConfig
from sgmft.training.trainer import Epoch, load_training_state, train
from small_networks import (
    FAST,
    SMALL,
    equal_weights,
    history_text,
    make_network,
    mislabelled,
    weights_of,
)
from small_networks import steps as steps
from synthetic_features import make_features

FILE = "checkpoint.safetensors"


class StopHereError(Exception):
    pass


STOPPED = replace(FAST, epochs=6, batch_size=10, learning_rate=1e-2, schedule="cosine")
DROPPING = replace(SMALL, dropout=0.3)


def run(
    config: TrainConfig = STOPPED,
    model: SGMFTConfig = DROPPING,
    *,
    data: LabelledFeatures | None = None,
    held: LabelledFeatures | None = None,
    checkpoint: Path | None = None,
    stop: int = 0,
    seed: int = 0,
) -> tuple[dict[str, torch.Tensor], list[Epoch], list[Epoch]]:
    """Weights, history, and the epochs that were really trained; `stop` raises after that epoch."""
    network = make_network(model, seed)
    told: list[Epoch] = []

    def on_epoch(epoch: Epoch) -> None:
        told.append(epoch)
        if epoch.epoch == stop:
            raise StopHereError

    history = train(
        network, data or make_features(24), held, config, checkpoint=checkpoint, on_epoch=on_epoch
    )
    return weights_of(network), history, told


@pytest.mark.parametrize("view", ["elements", "tokens"])
@pytest.mark.parametrize("patience", [0, 4])
@pytest.mark.parametrize("stop", [1, 2, 4])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, view, patience, stop):
    model = replace(DROPPING, view=view)
    held = mislabelled(make_features(15, seed=1)) if patience else None
    config = replace(STOPPED, epochs=7, patience=patience)
    weights, history, _ = run(config, model, held=held)
    assert len(history) > stop
    with pytest.raises(StopHereError):
        run(config, model, held=held, checkpoint=tmp_path / "c", stop=stop)
    torch.rand(7)  # whatever else the process drew
    resumed, again, told = run(config, model, held=held, checkpoint=tmp_path / "c")
    assert equal_weights(weights, resumed)
    assert history_text(again) == history_text(history) == history_text(told)


def test_interrupted_after_every_epoch(tmp_path):
    weights, history, _ = run()
    for stop in range(1, STOPPED.epochs + 1):
        with pytest.raises(StopHereError):
            run(checkpoint=tmp_path, stop=stop)
    resumed, again, _ = run(checkpoint=tmp_path)
    assert equal_weights(weights, resumed) and history_text(again) == history_text(history)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {folders!r}
import sgmft.training.trainer as checkpoint
import test_training_resumed as t

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
    script = KILLED.format(folders=[str(folder) for folder in Path(__file__).parents[:2]])
    ended = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr
    with safe_open(tmp_path / FILE, "pt") as file:
        assert len(json.loads(file.metadata()["progress"])["history"]) == 2
    weights, history, _ = run()
    resumed, again, _ = run(checkpoint=tmp_path)
    assert equal_weights(weights, resumed) and history_text(again) == history_text(history)


def test_a_finished_run_is_not_run_again(tmp_path, steps):
    weights, history, _ = run(checkpoint=tmp_path)
    assert steps
    steps.clear()
    resumed, again, _ = run(checkpoint=tmp_path)
    assert not steps
    assert equal_weights(weights, resumed) and history_text(again) == history_text(history)


def test_the_random_state_is_part_of_it():
    dropping, _, _ = run()
    plain, _, _ = run(model=SMALL)
    assert not equal_weights(dropping, plain)  # so that the tests above do test dropout


def changed(part: str) -> dict[str, Any]:
    data = make_features(24)
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
        "fewer posts": {"data": make_features(23)},
        "validation": {"held": make_features(9, seed=3)},
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
    assert equal_weights(found, expected) and history_text(history) == history_text(
        clean
    ) == history_text(told)
    assert len(steps) == taken  # from the first epoch on


def damaged(path: Path, how: str) -> None:
    whole = path.read_bytes()
    if how == "cut":
        path.write_bytes(whole[: len(whole) // 2])
    elif how == "empty":
        path.write_bytes(b"")
    elif how == "not safetensors":
        path.write_bytes(b"\x80\x04 not at all" * 50)
    elif how == "a flipped bit":
        path.write_bytes(whole[:-5] + bytes([whole[-5] ^ 4]) + whole[-4:])
    elif how == "no progress":
        save_file(load_file(path), path)
    else:
        save_file(load_file(path), path, {"progress": '{"history": ['})


@pytest.mark.parametrize(
    "how", ["cut", "empty", "not safetensors", "no progress", "broken progress", "a flipped bit"]
)
def test_a_damaged_checkpoint_is_named_and_ignored(tmp_path, how):
    with pytest.raises(StopHereError):
        run(checkpoint=tmp_path, stop=2)
    damaged(tmp_path / FILE, how)
    with pytest.warns(SgmftWarning, match=f"{tmp_path / FILE} is damaged"):
        found, history, _ = run(checkpoint=tmp_path)
    expected, clean, _ = run()
    assert equal_weights(found, expected) and history_text(history) == history_text(clean)


def test_a_checkpoint_is_one_safetensors_file_without_pickle(tmp_path):
    held = mislabelled(make_features(15, seed=1))
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


def test_a_checkpoint_from_before_there_were_several_processes(tmp_path):
    with pytest.raises(StopHereError):
        run(checkpoint=tmp_path, stop=2)
    tensors, path = load_file(tmp_path / FILE), tmp_path / FILE
    with safe_open(path, "pt") as file:
        told = file.metadata()
    tensors["random"] = tensors.pop("random/0")
    save_file(tensors, path, told)
    weights, history, _ = run()
    resumed, again, _ = run(checkpoint=tmp_path)
    assert equal_weights(weights, resumed) and history_text(again) == history_text(history)


def test_a_process_that_was_not_there_has_dropout_of_its_own(tmp_path):
    with pytest.raises(StopHereError):
        run(checkpoint=tmp_path, stop=2)
    with safe_open(tmp_path / FILE, "pt") as file:
        identity = json.loads(file.metadata()["progress"])["identity"]
    model = make_network(DROPPING)
    optimizer = torch.optim.AdamW(model.parameters())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    assert load_training_state(tmp_path, identity, model, optimizer, process=1) is not None
    assert torch.equal(torch.get_rng_state(), before)
    assert load_training_state(tmp_path, identity, model, optimizer) is not None
    assert not torch.equal(torch.get_rng_state(), before)
