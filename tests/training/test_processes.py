"""Trainings by several processes, started as a user starts them, against one process alone.

It is also the script that torchrun starts: it writes what each process has of each training.
"""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from clip_posts import write_table
from sgmft.models.baselines.unimodal_heads import (
    AlternatingAdaptation,
    AlternatingAdaptationConfig,
    BalanceMLA,
    BalanceMLAConfig,
    DynamicFusion,
    DynamicFusionConfig,
    UniSMMC,
    UniSMMCConfig,
)
from sgmft.models.network import Network
from sgmft.models.presets import TrainConfig
from sgmft.training.trainer import train
from sgmft.utils import distributed
from small_networks import FAST, SMALL, equal_weights, make_network, mislabelled, weights_of
from synthetic_features import make_features

TESTS = Path(__file__).parents[1]
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]


def launched(*words: Any, **environment: str) -> subprocess.CompletedProcess[str]:
    """Two processes, until all have ended; nobody may wait for ever."""
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1", **environment}
    command = [*TORCHRUN, *map(str, words)]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=600, env=environment, check=False
    )


# --- the same as one process

WIDTHS = {"classes": 3, "text_width": 12, "image_width": 10}
UNEVEN = 25  # posts in steps of 8: the last step has one, and so one of two processes has none


def trainings() -> dict[str, tuple[Network, TrainConfig, bool]]:
    """Networks with their settings, and whether held-out posts choose the epoch."""
    weighted = replace(FAST, class_weights=True, label_smoothing=0.1, modality_dropout=0.3)
    stopping = replace(FAST, epochs=30, patience=2, learning_rate=1e-2)
    found: dict[str, tuple[Network, TrainConfig, bool]] = {
        "class weights": (make_network(replace(SMALL, view="tokens")), weighted, False),
        "early stopping": (make_network(), stopping, True),
    }
    torch.manual_seed(0)
    contrast = UniSMMC(UniSMMCConfig(**WIDTHS, width=16, dropout=0.0, contrast=1.0))
    found["contrast of posts"] = (contrast, FAST, False)
    modulated = BalanceMLA(BalanceMLAConfig(**WIDTHS, width=16, heads=2))
    found["dominant side"] = (modulated, FAST, False)
    own = {**WIDTHS, "width": 16, "dropout": 0.0}
    alternating = AlternatingAdaptation(AlternatingAdaptationConfig(**own))
    found["two steps a batch"] = (alternating, FAST, False)
    found["teacher"] = (make_network(), replace(FAST, teacher="linear-probe"), False)
    found["predicted confidence"] = (DynamicFusion(DynamicFusionConfig(**own)), FAST, False)
    return found


def run_training(name: str) -> tuple[dict[str, torch.Tensor], list[Any]]:
    """Weights and log of one of them."""
    model, config, watched = trainings()[name]
    data = make_features(UNEVEN)
    model.prepare(
        data.features.texts,
        data.features.images,
        *(x for x in (data.features.words, data.features.regions) if x is not None),
    )
    if config.teacher != "none":  # whose answers differ in rounding between machines
        rounded = torch.eye(3)[data.labels] + 1e-3 * distributed.rank()
        data = data._replace(soft=(rounded / rounded.sum(1, keepdim=True)).numpy())
    held = mislabelled(make_features(15, seed=1)) if watched else None
    history = train(model, data, held, config, device="cpu")
    return weights_of(model), [list(epoch) for epoch in history]


@pytest.fixture(scope="module")
def together(tmp_path_factory) -> Path:
    """What each of two processes has of each training."""
    folder = tmp_path_factory.mktemp("together")
    ended = launched(__file__, folder)
    assert ended.returncode == 0, ended.stderr
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("name", trainings())
def test_two_processes_reach_what_one_reaches(together, name):
    paths = [together / f"{name} {i} of 2" for i in range(2)]
    found, other = map(load_file, paths)
    assert equal_weights(found, other), "every process has the same weights to the last bit"
    logs = []
    for path in paths:
        with safe_open(path, "pt") as file:
            logs.append(file.metadata()["history"])
    assert logs[0] == logs[1]
    expected, history = run_training(name)
    for key, x in expected.items():
        if key == "attention.in_proj_bias":  # a softmax does not see the keys' bias: its gradient
            x, found[key] = (y.view(3, -1)[::2] for y in (x, found[key]))  # is rounding alone
        torch.testing.assert_close(found[key], x, rtol=1e-4, atol=1e-5)
    told = json.loads(logs[0])
    assert len(told) == len(history) > 1
    for line, wanted in zip(told, history, strict=True):
        assert line == pytest.approx(wanted, rel=1e-4, abs=1e-5, nan_ok=True)


# --- the command


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("table") / "posts.jsonl"
    words = {"Home": "sofa kitchen bed", "School": "teacher exam desk", "Work": "boss office"}
    pairs = [(f"{text} day{i}", label) for i in range(9) for label, text in words.items()]
    rows = [{"text": text, "label": label} for text, label in pairs]
    path.write_text("\n".join(map(json.dumps, [*rows, {"image": "gone.jpg", "label": "Home"}])))
    return path


def trained(
    table: Path, output: Path, *more: Any, **environment: str
) -> subprocess.CompletedProcess[str]:
    """`sgmft train` by two processes, with dropout, its features in a store beside the model."""
    settings = {"epochs": 6, "patience": 6, "dropout": 0.3, "width": 16, "heads": 2}
    words = [word for item in settings.items() for word in ("--set", "{}={}".format(*item))]
    plugin = "--plugin", TESTS / "multiprocess_plugin.py"
    command = ["-m", "sgmft", *plugin, "train", table, "-o", output]
    words += ["--preset", "tokens", "--encoder", "tiny", "--features", output.parent / "store"]
    return launched(*command, *words, *more, **environment)


@pytest.fixture(scope="module")
def model(table, tmp_path_factory) -> tuple[Path, str]:
    """A model of two processes that nothing interrupted, and what they said."""
    folder = tmp_path_factory.mktemp("whole") / "model"
    ended = trained(table, folder, "--track", folder.parent / "logs")
    assert ended.returncode == 0, ended.stderr
    return folder, ended.stdout + ended.stderr


@pytest.mark.slow
def test_one_model_is_written_and_one_process_speaks(model):
    folder, told = model
    names = ["README.md", "config.json", "held_out.safetensors", "model.safetensors"]
    assert sorted(path.name for path in folder.iterdir()) == names
    assert told.count("Trained on 24 posts, 3 labels") == told.count("Model: ") == 1
    assert told.count("1 of 28 rows could not be used") == 1
    assert len([*(folder.parent / "logs").rglob("events.out.tfevents*")]) > 0
    (store,) = (folder.parent / "store").iterdir()
    assert not any((store / "_mapped").iterdir()), "the files that were mapped are gone"


@pytest.mark.slow
def test_killed_twice_and_started_again(table, model, tmp_path):
    folder = tmp_path / "model"
    for killed in ("process", "launcher"):
        ended = trained(table, folder, SGMFT_TEST_KILL=killed)  # it ends, or this raises
        assert ended.returncode != 0
        assert (folder / "checkpoint" / "choose" / "checkpoint.safetensors").is_file()
        assert not (folder / "config.json").exists()
    ended = trained(table, folder)
    assert ended.returncode == 0, ended.stderr
    one, other = (load_file(path / "model.safetensors") for path in (folder, model[0]))
    assert equal_weights(one, other)
    assert (folder / "config.json").read_text() == (model[0] / "config.json").read_text()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["train", "--preset", "none"], "There is no preset 'none'"),
        (["encode"], "sgmft encode runs in one process"),
    ],
)
def test_a_mistake_says_whose_it_is(tmp_path, words, told):
    second = {**os.environ, "WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}
    ended = subprocess.run(
        [sys.executable, "-m", "sgmft", *words, tmp_path / "x.jsonl", "-o", tmp_path / "m"],
        capture_output=True,
        text=True,
        env=second,
        check=False,
    )
    assert ended.returncode == 2
    assert ended.stderr.startswith(f"sgmft, process 1: {told}")
    assert not any(tmp_path.iterdir())


@pytest.mark.slow
def test_two_processes_fine_tune_as_one_does(run, clip, clip_posts, tmp_path):
    """With LoRA; there is no dropout, and pictures are shown as they are."""
    path = write_table(tmp_path / "posts.jsonl", clip_posts)
    words = (
        *("train", path, "--encoder", clip, "--preset", "tokens"),
        *("--set", "width=16", "--set", "heads=2", "--set", "epochs=2", "--set", "dropout=0"),
        *("--tune", "lora", "--set", "tune.epochs=2", "--set", "tune.patience=2"),
        *("--set", "tune.augment=false", "--set", "tune.batch_size=9", "--allow-outside"),
    )
    alone = run(*words, "-o", tmp_path / "one", "--features", tmp_path / "f1")
    assert alone.returncode == 0, alone.stderr
    more = ("-o", tmp_path / "two", "--features", tmp_path / "f2")
    both = launched("-m", "sgmft", "--plugin", TESTS / "float32_plugin.py", *words, *more)
    assert both.returncode == 0, both.stderr
    for name in ("encoder/adapter_model.safetensors", "model.safetensors"):
        one, two = (load_file(tmp_path / x / name) for x in ("one", "two"))
        assert one.keys() == two.keys()
        for key, x in one.items():
            torch.testing.assert_close(two[key], x, rtol=1e-3, atol=2e-5, msg=key)


if __name__ == "__main__":
    for name in trainings():
        weights, history = run_training(name)
        path = Path(sys.argv[1]) / f"{name} {distributed.rank()} of {distributed.world_size()}"
        save_file(weights, path, {"history": json.dumps(history)})
