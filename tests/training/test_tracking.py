"""`fit(track=...)`: settings and figures of every epoch in TensorBoard, MLflow or W&B."""

import importlib
import math
import sys
import time

import pytest

from sgmft import SemanticLocator
from sgmft.errors import SgmftError
from sgmft.training.history import Epoch
from tiny_encoder import TinyEncoder


@pytest.fixture
def runs(tmp_path, monkeypatch):
    """Returns the runs of an MLflow file store: parameters, and (step, value) of metrics."""
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri((tmp_path / "store").as_uri())

    def runs():
        client = mlflow.MlflowClient()
        for run in reversed(client.search_runs(["0"])):
            found = {x: client.get_metric_history(run.info.run_id, x) for x in run.data.metrics}
            values = {x: [(y.step, y.value) for y in some] for x, some in found.items()}
            yield run, {name: sorted(some) for name, some in values.items()}

    yield runs
    mlflow.set_tracking_uri(None)


def series(history, name):
    return [pytest.approx((i, getattr(x, name)), nan_ok=True) for i, x in enumerate(history, 1)]


def test_mlflow_has_parameters_each_epoch_and_what_was_chosen(tiny, small_posts, runs):
    seen = list[Epoch]()
    locator = tiny({"patience": 2}, val_size=0.25)
    locator.fit(small_posts, track="mlflow", on_epoch=seen.append)
    ((run, metrics),) = runs()
    assert run.info.status == "FINISHED"
    assert {"method": "sgmft", "preset": "elements", "encoder": "tiny", "epochs": "3"}.items() <= (
        run.data.params.items()
    )
    assert len(seen) >= 3 and math.isnan(seen[-1].val_loss), "trained anew on all posts"
    for name in ("loss", "accuracy", "epoch", "val_loss"):
        assert metrics[name] == series(seen, name)
    for name, value in locator.training.metrics.items():
        assert metrics[name] == [(len(seen) + 1, pytest.approx(value))]


def test_the_default_logs_its_one_line_and_runs_stand_in_the_callers(tiny, small_posts, runs):
    mlflow = importlib.import_module("mlflow")
    locator = tiny(preset="default")
    with mlflow.start_run() as outer:
        locator.fit(small_posts, track="mlflow")
        assert mlflow.active_run().info.run_id == outer.info.run_id
    (own, metrics), _ = sorted(runs(), key=lambda x: x[0].info.run_id == outer.info.run_id)
    assert own.data.tags["mlflow.parentRunId"] == outer.info.run_id
    assert own.data.params["method"] == "gated-experts"
    (line,) = locator.training.history
    assert metrics["val_accuracy"] == [(1, pytest.approx(line["val_accuracy"]))]


def test_a_training_that_fails_is_no_finished_run(tiny, small_posts, runs):
    with pytest.raises(SgmftError, match="diverged"):
        tiny({"learning_rate": 1e30}).fit(small_posts, track="mlflow")
    ((run, _),) = runs()
    assert run.info.status == "FAILED"


def test_tensorboard_has_a_file_in_the_folder(tiny, small_posts, tmp_path):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    seen = list[Epoch]()
    tiny(val_size=0.25).fit(small_posts, track=tmp_path, on_epoch=seen.append)
    (file,) = tmp_path.glob("events.out.tfevents*")
    events = EventAccumulator(str(file)).Reload()
    for name in ("loss", "accuracy", "val_loss", "gate_entropy"):
        found = [(event.step, event.value) for event in events.Scalars(name)]
        assert found == [
            pytest.approx(x.expected, rel=1e-5, nan_ok=True) for x in series(seen, name)
        ]
    assert "settings/text_summary" in events.Tags()["tensors"]


def test_wandb_has_a_run_offline(tiny, small_posts, tmp_path, monkeypatch):
    pytest.importorskip("wandb")
    monkeypatch.chdir(tmp_path)
    tiny(preset="default").fit(small_posts, track="wandb")
    (folder,) = (tmp_path / "wandb").glob("offline-run-*")
    file, end = next(folder.glob("run-*.wandb")), time.monotonic() + 20
    while file.stat().st_size < 100:  # its own process writes
        assert time.monotonic() < end
        time.sleep(0.1)


@pytest.mark.parametrize("tool", ["mlflow", "wandb", "tensorboard"])
def test_a_tool_that_is_missing_is_told_before_any_work(tool, small_posts, tmp_path, monkeypatch):
    class Unused(TinyEncoder):
        def encode_texts(self, texts, tokens):
            raise AssertionError("texts were encoded")

    from sgmft.features.encoders.registry import ENCODERS

    monkeypatch.setitem(ENCODERS, "unused", Unused)
    name = "torch.utils.tensorboard" if tool == "tensorboard" else tool
    monkeypatch.setitem(sys.modules, name, None)
    track = tmp_path / "logs" if tool == "tensorboard" else tool
    with pytest.raises(SgmftError, match=rf"pip install 'sgmft\[{tool}\]'"):
        SemanticLocator("unused", features=None).fit(small_posts, track=track)
    assert not (tmp_path / "logs").exists()
