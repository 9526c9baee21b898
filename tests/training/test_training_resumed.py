"""Training stopped and started again: the same to the last bit, or from the first epoch on."""

import json
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from sgmft.errors import SgmftWarning
from sgmft.features.features import LabelledFeatures
from sgmft.models.presets import TrainConfig
from sgmft.models.sgmft import SGMFTConfig
from sgmft.training.history import Epoch
from sgmft.training.trainer import load_training_state, train
from small_networks import (
    FAST,
    SMALL,
    StopHereError,
    equal_weights,
    history_text,
    make_network,
    mislabelled,
    weights_of,
)
from synthetic_features import make_features

FILE = "checkpoint.safetensors"
STOPPED = replace(FAST, epochs=4, batch_size=16, learning_rate=1e-2, schedule="cosine")
DROPPING = replace(SMALL, dropout=0.3)


class Run(NamedTuple):
    weights: dict[str, torch.Tensor]
    history: list[Epoch]

    def same_as(self, other: "Run") -> bool:
        histories = history_text(self.history), history_text(other.history)
        return equal_weights(self.weights, other.weights) and histories[0] == histories[1]


def run(
    checkpoint: Path | None = None,
    config: TrainConfig = STOPPED,
    model: SGMFTConfig = DROPPING,
    data: LabelledFeatures | None = None,
    held: LabelledFeatures | None = None,
    seed: int = 0,
    stop: int = 0,
) -> Run:
    """A training; `stop` raises after that epoch. All epochs are told, restored ones too."""
    network, told = make_network(model, seed), []

    def on_epoch(epoch: Epoch) -> None:
        told.append(epoch)
        if epoch.epoch == stop:
            raise StopHereError

    data = data or make_features(24)
    history = train(network, data, held, config, checkpoint=checkpoint, on_epoch=on_epoch)
    assert history_text(told) == history_text(history)
    return Run(weights_of(network), history)


def interrupt(checkpoint: Path, stop: int = 2, **options: Any) -> Path:
    with pytest.raises(StopHereError):
        run(checkpoint, stop=stop, **options)
    return checkpoint / FILE


def metadata(path: Path) -> dict[str, str]:
    with safe_open(path, "pt") as file:
        return file.metadata()


@pytest.fixture(scope="module")
def whole() -> Run:
    return run()


@pytest.fixture(scope="module")
def interrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint of a run that was stopped after its second epoch."""
    return interrupt(tmp_path_factory.mktemp("interrupted"))


@pytest.fixture
def stopped(interrupted: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copy(interrupted, tmp_path))


@pytest.fixture(scope="module", params=["elements", "tokens"])
def view(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module", params=[0, 4])
def uninterrupted(request: pytest.FixtureRequest, view: str) -> tuple[Run, dict[str, Any]]:
    """A run with or without patience, and its options."""
    options = {
        "model": replace(DROPPING, view=view),
        "held": mislabelled(make_features(15, seed=1)) if request.param else None,
        "config": replace(STOPPED, epochs=7, patience=request.param),
    }
    return run(**options), options


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_interrupted_and_resumed_equals_uninterrupted(tmp_path, uninterrupted, stop):
    expected, options = uninterrupted
    assert len(expected.history) > stop
    interrupt(tmp_path / "c", stop, **options)
    torch.rand(7)  # whatever else the process drew
    assert run(tmp_path / "c", **options).same_as(expected)


def test_interrupted_after_every_epoch(tmp_path, whole):
    for stop in range(1, STOPPED.epochs + 1):
        interrupt(tmp_path, stop)
    assert run(tmp_path).same_as(whole)


KILLED = """
import os, signal, sys
from pathlib import Path
sys.path[:0] = {folders!r}
import sgmft.training.trainer as trainer
import test_training_resumed as t

written, write = 0, trainer.save_file
def save_file(tensors, path, metadata):  # the third checkpoint is killed half-way
    global written
    written += 1
    write(tensors, path, metadata)
    if written == 3:
        with open(path, "r+b") as file:
            file.truncate(Path(path).stat().st_size // 2)
        os.kill(os.getpid(), signal.SIGKILL)
trainer.save_file = save_file
t.run(Path(sys.argv[1]))
"""


@pytest.mark.slow
def test_killed_while_writing_a_checkpoint(tmp_path, whole):
    script = KILLED.format(folders=[str(folder) for folder in Path(__file__).parents[:2]])
    ended = subprocess.run([sys.executable, "-c", script, tmp_path], capture_output=True, text=True)
    assert ended.returncode == -9, ended.stderr
    assert len(json.loads(metadata(tmp_path / FILE)["progress"])["history"]) == 2
    assert run(tmp_path).same_as(whole)


def test_a_finished_run_is_not_run_again(tmp_path, whole, steps):
    assert run(tmp_path).same_as(whole) and steps
    steps.clear()
    assert run(tmp_path).same_as(whole) and not steps


def test_the_random_state_is_part_of_it(whole):
    plain = run(model=SMALL)
    assert not equal_weights(whole.weights, plain.weights)  # so that the tests above test dropout


DATA, LABELS = make_features(24)[:2]
WORDS = replace(DATA.ngrams, values=DATA.ngrams.values + 1)
OTHERS = {
    "rate": {"config": replace(STOPPED, learning_rate=2e-2)},
    "seed of the order": {"config": replace(STOPPED, seed=5)},
    "initial weights": {"seed": 5},
    "dropout": {"model": replace(DROPPING, dropout=0.2)},
    "labels": {"data": LabelledFeatures(DATA, LABELS[::-1])},
    "texts": {"data": LabelledFeatures(replace(DATA, text=DATA.text + 1), LABELS)},
    "pictures": {"data": LabelledFeatures(replace(DATA, image=DATA.image * 2), LABELS)},
    "n-grams": {"data": LabelledFeatures(replace(DATA, ngrams=WORDS), LABELS)},
    "fewer posts": {"data": make_features(23)},
    "validation": {"held": make_features(9, seed=3)},
}


@pytest.mark.parametrize("part", OTHERS)
def test_a_checkpoint_of_another_run_is_ignored(tmp_path, stopped, part, steps):
    found, taken = run(tmp_path, **OTHERS[part]), len(steps)
    steps.clear()
    assert found.same_as(run(**OTHERS[part]))
    assert len(steps) == taken  # from the first epoch on


DAMAGES = {
    "cut": lambda path, whole: path.write_bytes(whole[: len(whole) // 2]),
    "empty": lambda path, _: path.write_bytes(b""),
    "not safetensors": lambda path, _: path.write_bytes(b"\x80\x04 not at all" * 50),
    "a flipped bit": lambda path, whole: path.write_bytes(
        whole[:-5] + bytes([whole[-5] ^ 4]) + whole[-4:]
    ),
    "no progress": lambda path, _: save_file(load_file(path), path),
    "broken progress": lambda path, _: save_file(
        load_file(path), path, {"progress": '{"history": ['}
    ),
}


@pytest.mark.parametrize("how", DAMAGES)
def test_a_damaged_checkpoint_is_named_and_ignored(tmp_path, stopped, whole, how):
    DAMAGES[how](stopped, stopped.read_bytes())
    with pytest.warns(SgmftWarning, match=f"{stopped} is damaged"):
        assert run(tmp_path).same_as(whole)


def test_a_checkpoint_is_one_safetensors_file_without_pickle(tmp_path):
    folder, held = tmp_path / "a" / "b", mislabelled(make_features(15, seed=1))
    path = interrupt(folder, config=replace(STOPPED, patience=5), held=held)
    assert [*folder.iterdir()] == [path]
    size = int.from_bytes(path.read_bytes()[:8], "little")
    header = json.loads(path.read_bytes()[8 : 8 + size])  # what the format says, read by hand
    end = max(x["data_offsets"][1] for name, x in header.items() if name != "__metadata__")
    assert path.stat().st_size == 8 + size + end  # and nothing after it
    kinds = {name.partition("/")[0] for name in load_file(path)}
    assert kinds == {"model", "best", "optimizer", "random"}
    assert len(json.loads(header["__metadata__"]["progress"])["history"]) == 2


@pytest.mark.filterwarnings("error::sgmft.errors.SgmftWarning")
def test_a_checkpoint_from_before_there_were_several_processes(tmp_path, stopped, whole, steps):
    tensors, told = load_file(stopped), metadata(stopped)
    tensors["random"] = tensors.pop("random/0")
    save_file(tensors, stopped, {"progress": told["progress"]})  # nor was there a digest
    assert run(tmp_path).same_as(whole)
    assert len(steps) == 2 * (STOPPED.epochs - 2), "it went on, and did not start anew"


def test_a_process_that_was_not_there_has_dropout_of_its_own(tmp_path, stopped):
    identity = json.loads(metadata(stopped)["progress"])["identity"]
    model = make_network(DROPPING)
    optimizer = torch.optim.AdamW(model.parameters())
    torch.manual_seed(1)
    before = torch.get_rng_state()
    for process in (1, 0):
        assert load_training_state(tmp_path, identity, model, optimizer, process) is not None
        assert torch.equal(torch.get_rng_state(), before) == (process == 1)
