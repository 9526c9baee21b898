"""`track=...`: settings and figures of epochs, and of a comparison's runs, in other tools."""

import csv
import importlib
import json
import math
import re
import shutil
import sys
import time

import pytest

from sgmft import SemanticLocator
from sgmft.data.source import Source
from sgmft.errors import SgmftError, SgmftWarning
from sgmft.evaluation.compare.catalogue import make_plan
from sgmft.evaluation.compare.prepare import Split
from sgmft.features.encoders.registry import ENCODERS
from sgmft.jobs.compare import compare_table
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


@pytest.fixture
def unused(monkeypatch):
    """An encoder that fails where it has work to do."""

    class Unused(TinyEncoder):
        def encode_texts(self, texts, tokens):
            raise AssertionError("texts were encoded")

    monkeypatch.setitem(ENCODERS, "unused", Unused)
    return "unused"


@pytest.mark.parametrize("tool", ["mlflow", "wandb", "tensorboard"])
def test_a_tool_that_is_missing_is_told_before_any_work(
    tool, unused, small_posts, tmp_path, monkeypatch
):
    name = "torch.utils.tensorboard" if tool == "tensorboard" else tool
    monkeypatch.setitem(sys.modules, name, None)
    track = tmp_path / "logs" if tool == "tensorboard" else tool
    with pytest.raises(SgmftError, match=rf"pip install 'sgmft\[{tool}\]'"):
        SemanticLocator(unused, features=None).fit(small_posts, track=track)
    assert not (tmp_path / "logs").exists()


@pytest.mark.parametrize("tool", ["mlflow", "tensorboard"])
def test_a_tool_that_cannot_be_opened_is_an_error_before_any_work(
    tool, unused, small_posts, tmp_path, monkeypatch
):
    track = tmp_path / "logs"
    track.write_text("not a folder")
    if tool == "mlflow":
        mlflow, track = pytest.importorskip("mlflow"), "mlflow"
        monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")  # where nothing listens
        mlflow.set_tracking_uri(None)
    with pytest.raises(SgmftError, match=rf"^Logging to {re.escape(str(track))} failed: .*\.$"):
        SemanticLocator(unused, features=None).fit(small_posts, track=track)


def test_a_tool_that_fails_later_is_warned_of_once_and_training_goes_on(
    tiny, small_posts, tmp_path, runs
):
    seen = list[Epoch]()

    def on_epoch(epoch):
        if not seen:
            shutil.rmtree(tmp_path / "store")
            (tmp_path / "store").write_text("in place of the folder")
        seen.append(epoch)

    with pytest.warns(SgmftWarning) as heard:
        locator = tiny().fit(small_posts, track="mlflow", on_epoch=on_epoch)
    told = [str(x.message) for x in heard if "Logging" in str(x.message)]
    assert len(told) == 1 and told[0].endswith("Nothing more is logged.")
    assert len(seen) > 2 and len(locator.predict(small_posts[:1])) == 1
    again = tiny().fit(small_posts)
    assert (again.predict_proba(small_posts) == locator.predict_proba(small_posts)).all()


@pytest.fixture
def compare(tiny, small_posts, tmp_path):
    """Compares two methods on the texts of the small posts."""
    rows = [{"id": x.id, "text": x.text, "label": x.label} for x in small_posts if x.text]
    table = tmp_path / "posts.jsonl"
    table.write_text("\n".join(map(json.dumps, rows)), "utf-8")

    def run(track, encoder="tiny"):
        options = {"encoder": encoder, "seeds": 1, "trials": 2, "epochs": 1}
        plan = make_plan("1", "", "text-only,unis-mmc", **options)
        split = Split(folds=2)
        compare_table(Source(str(table)), tmp_path / "report", plan, split=split, track=track)
        with (tmp_path / "report" / "runs.csv").open(encoding="utf-8-sig") as file:
            return [*csv.DictReader(file)]

    return run


def test_a_comparison_logs_each_run_with_its_settings_and_figures(compare, runs):
    lines = compare("mlflow")
    outer, *own = sorted(runs(), key=lambda x: len(x[0].data.params))
    assert "command" in outer[0].data.params and len(own) == 3 * 2  # rows, splits
    for run, metrics in own:
        assert run.data.tags["mlflow.parentRunId"] == outer[0].info.run_id
        where = {name: run.data.params[name] for name in ("row", "split", "seed")}
        expected = {x["metric"]: float(x["value"]) for x in lines if where.items() <= x.items()}
        assert {name: value for name, ((_, value),) in metrics.items()} == pytest.approx(expected)
        assert {"accuracy", "macro_f1"} <= expected.keys()
        assert ("learning_rate" in run.data.params) == (where["row"] == "unis-mmc")


def test_a_comparison_has_a_folder_of_tensorboard_for_each_run(compare, tmp_path):
    compare(tmp_path / "logs")
    folders = {x.name for x in (tmp_path / "logs").iterdir() if x.is_dir()}
    assert len(folders) == 3 * 2 and "unis-mmc, split 2, seed 0" in folders, folders


def test_nor_does_a_comparison_begin_with_a_tool_that_cannot_be_opened(compare, unused, tmp_path):
    (tmp_path / "logs").write_text("not a folder")
    with pytest.raises(SgmftError, match=r"^Logging to .*logs failed: "):
        compare(tmp_path / "logs", unused)
    assert not (tmp_path / "report").exists()
