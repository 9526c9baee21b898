"""A comparison from posts to tables: fair, resumable, and not stopped by what fails."""

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from sgmft import SemanticLocator
from sgmft.data.posts import Post
from sgmft.evaluation.compare import scheduler
from sgmft.evaluation.compare.catalogue import make_plan
from sgmft.evaluation.compare.prepare import Split, load_data, load_features, prepare_comparison
from sgmft.evaluation.compare.results import (
    make_figures,
    make_tables,
    read_predictions,
    write_predictions,
)
from sgmft.evaluation.compare.scheduler import Comparison
from sgmft.models.baselines.linear_probe import METHODS as PROBES
from sgmft.models.registry import METHODS
from sgmft.utils.files import write_json

FAST = "linear-probe,text-only,late-average,unis-mmc"


@pytest.fixture
def compare(tiny, small_posts, tmp_path, monkeypatch):
    """Makes a comparison on the small posts; the same folder each time."""

    def make(
        methods: str = FAST, posts: Any = None, split: Split | None = None, **options: Any
    ) -> Comparison:
        chosen = {"figures": "", "tables": "1", "seeds": 2, "trials": 2, "epochs": 2} | options
        tables, figures = chosen.pop("tables"), chosen.pop("figures")
        plan = make_plan(tables, figures, methods, encoder="tiny", **chosen)
        folder = tmp_path / "comparison"
        data = prepare_comparison(
            small_posts if posts is None else posts,
            plan.rows(),
            "tiny",
            tmp_path / "features",
            split or Split(by="label"),
        )
        write_json(folder / "data.json", asdict(data))
        load_data.cache_clear()
        load_features.cache_clear()
        return Comparison(folder, plan, data)

    return make


def probabilities_of(comparison: Comparison, key: str) -> np.ndarray[Any, Any]:
    return read_predictions(comparison.folder, comparison.found[key], comparison.data.labels)


def watch_runs(monkeypatch) -> list[str]:
    """Note the name of every run that is really executed from now on."""
    done: list[str] = []
    execute = scheduler.execute_run

    def watched(run):
        done.append(run.name(load_data(run.data_path)))
        return execute(run)

    monkeypatch.setattr(scheduler, "execute_run", watched)
    return done


def test_rows_are_tried_run_and_tested_against_the_reference(compare):
    comparison = compare()
    reports = []
    comparison.run(lambda *progress: reports.append(progress))
    total = 2 + 5 * 2  # trials of the only row that is tuned, runs
    assert [report[:2] for report in reports] == [(done, total) for done in range(1, total + 1)]
    (table,) = make_tables(comparison)
    assert [line.key for line in table.lines] == ["unis-mmc", "linear-probe", "text-only",
                                                  "late-average"]  # fmt: skip
    for line in table.lines:
        assert line.summary is not None and line.summary.seeds == 2 and not line.failed
        assert line.against is not None and line.parameters and line.seconds is not None
        truth = [comparison.data.classes[i] for i, t in enumerate(comparison.data.test) if t]
        right = probabilities_of(comparison, line.key).argmax(-1) == np.array(truth)
        assert line.summary.accuracy.mean == pytest.approx(right.mean())
    assert "learning_rate=" in table.lines[0].setting
    assert [line.setting for line in table.lines[1:]] == ["", "", ""]


@pytest.mark.parametrize(
    ("variant", "full", "tables"),
    [("clip-sim", "sgmft-tokens", "2"), ("elements-softmax", "elements", "5")],
)
def test_the_best_trial_is_chosen_and_a_variant_takes_its_setting(compare, variant, full, tables):
    reports = []
    comparison = compare(f"{full},{variant}", tables=tables, seeds=1, trials=3)
    found = comparison.run(lambda *progress: reports.append(progress))
    assert len({trial["settings"]["learning_rate"] for trial in found[full].trials}) == 3
    best = min(found[full].trials, key=lambda trial: trial["val_loss"])
    chosen = [found[key].choice["settings"] for key in (full, variant)]
    assert chosen == [best["settings"]] * 2
    assert found[full].runs[0]["epochs"] == best["epochs"] and len(found[variant].trials) == 1
    assert reports[-1][0] == reports[-1][1] == 4 + len(comparison.rows)  # trials, runs


def test_finished_work_is_not_done_again_and_lost_work_is(compare, monkeypatch):
    first = compare()
    first.run()
    before = probabilities_of(first, "unis-mmc")
    done = watch_runs(monkeypatch)
    compare().run()
    assert done == []
    lost = first.found["unis-mmc"].runs[1]["name"]
    (first.folder / "cells" / f"{lost}.json").unlink()
    again = compare()
    again.run()
    assert done == [lost]
    assert (probabilities_of(again, "unis-mmc") == before).all()
    more = compare(seeds=3)
    more.run()
    assert len(done) == 1 + 5  # one more seed of each row
    names = {path.name.split("-seed")[0] for path in first.folder.glob("cells/*-seed0-*")}
    assert "sgmft" in names and "gated-experts" not in names  # as 0.1 named the default's files


def test_what_is_finished_can_be_looked_at_before_the_rest(compare, monkeypatch):
    compare("text-only", seeds=1).run()
    done = watch_runs(monkeypatch)
    early = compare("text-only,unis-mmc", finished_only=True)
    early.run()
    (table,) = make_tables(early)
    lines = {line.key: line for line in table.lines}
    assert lines["text-only"].summary.seeds == 1
    assert lines["unis-mmc"].summary is None and not lines["unis-mmc"].failed
    assert done == []


def test_other_posts_are_other_work(compare, small_posts, monkeypatch):
    compare("linear-probe").run()
    done = watch_runs(monkeypatch)
    changed = [replace(small_posts[0], label="Work"), *small_posts[1:]]
    compare("linear-probe", posts=changed).run()
    assert len(done) == 2 * 2  # two rows, the reference among them, and two seeds


def test_the_same_posts_in_another_order_are_other_work(compare, small_posts):
    """Predictions are paired row by row: those of another order would be of other posts."""
    test = [replace(post, row={"part": "test"}) for post in small_posts[:12]]
    train = [replace(post, row={"part": "train"}) for post in small_posts[12:]]
    found = {}
    for name, posts in (("first", [*train, *test]), ("second", [*train, *test[::-1]])):
        comparison = compare("text-only", posts=posts, seeds=1, split=Split(test=("part", "test")))
        comparison.run()
        (table,) = make_tables(comparison)
        found[name] = [line.summary.accuracy.mean for line in table.lines]
    assert found["first"] == found["second"]


class Broken(PROBES[0].network):
    def solve(self, batch, labels):
        raise ValueError("it does not work")


class Diverging(PROBES[0].network):
    def forward(self, batch):
        output = super().forward(batch)
        return output._replace(logits=output.logits * float("nan"))


@pytest.mark.parametrize(
    ("network", "reason"), [(Broken, "it does not work"), (Diverging, "has diverged")]
)
def test_a_failed_row_says_why_and_does_not_stop_the_rest(compare, monkeypatch, network, reason):
    method = replace(PROBES[0], name="broken", title="Broken")
    monkeypatch.setitem(METHODS, "broken", replace(method, network=network))
    comparison = compare("broken,text-only")
    comparison.run()
    lines = {line.key: line for line in make_tables(comparison)[0].lines}
    assert lines["broken"].summary is None and lines["text-only"].summary is not None
    assert all(reason in failure for failure in lines["broken"].failed) and lines["broken"].failed
    monkeypatch.setitem(METHODS, "broken", method)
    fixed = compare("broken,text-only")
    fixed.run()  # a failure is tried again
    assert len(fixed.found["broken"].runs) == 2


PLUGIN = """
import os
from dataclasses import replace
from sgmft.models.baselines.linear_probe import METHODS as PROBES
from sgmft.models.registry import METHODS

class Deadly(PROBES[0].network):
    def solve(self, batch, labels):
        os._exit(9)

METHODS["deadly"] = replace(PROBES[0], name="deadly", title="Deadly", network=Deadly)
"""


@pytest.mark.slow
def test_two_processes_find_the_same_and_survive_one_that_dies(compare, tmp_path, monkeypatch):
    from sgmft.models import plugins

    alone = compare("text-only,unis-mmc")
    alone.run()
    expected = {key: probabilities_of(alone, key) for key in ("text-only", "unis-mmc")}
    alone.folder.rename(tmp_path / "alone")
    monkeypatch.setattr(plugins, "LOADED", [])
    monkeypatch.setattr(scheduler, "LOADED", plugins.LOADED)
    monkeypatch.setitem(METHODS, "deadly", METHODS["text-only"])  # taken away again at the end
    (tmp_path / "deadly.py").write_text(PLUGIN)
    plugins.load_plugin(tmp_path / "deadly.py")
    together = compare("deadly,text-only,unis-mmc", workers=2, trials=2)
    found = together.run()
    assert "died" in " ".join(found["deadly"].failed) and not found["deadly"].runs
    for key, value in expected.items():
        assert (probabilities_of(together, key) == value).all()


def split_posts(comparison: Comparison, posts: list[Post]) -> tuple[list[Post], list[Post]]:
    """Training and test posts."""
    places = {(post.place, post.id or ""): post for post in posts}
    parts: dict[bool, list[Post]] = {True: [], False: []}
    for place, test in zip(comparison.data.places, comparison.data.test, strict=True):
        parts[test].append(places[place])
    return parts[False], parts[True]


def test_a_run_is_what_the_locator_itself_trains(compare, small_posts):
    """SG-MFT as printed, which chooses nothing: the same probabilities to the last bit."""
    comparison = compare("sgmft-paper", seeds=1)
    comparison.run()
    train, test = split_posts(comparison, small_posts)
    locator = SemanticLocator("tiny", preset="paper", settings={"epochs": 2})
    expected = locator.fit(train).predict_proba(test)
    assert locator.labels == comparison.data.labels
    found = probabilities_of(comparison, "sgmft-paper")[0].astype(np.float32)
    np.testing.assert_array_equal(found, expected)
    assert comparison.found["sgmft-paper"].trials == []


def test_the_default_and_its_parts_choose_inside_the_training_posts(compare, small_posts):
    """No trials; a part is what the locator trains with that setting, before its calibration."""
    comparison = compare("default-gate,default-joint,default-lexical", tables="5", seeds=1)
    found = comparison.run()
    assert set(found) == {"gated-experts", "default-gate", "default-joint", "default-lexical"}
    assert all(x.trials == [] and not x.failed and len(x.runs) == 1 for x in found.values())
    probs = {key: probabilities_of(comparison, key)[0] for key in found}
    for key in ("default-joint", "default-lexical"):
        assert not np.array_equal(probs[key], probs["gated-experts"])
    train, test = split_posts(comparison, small_posts)
    for key, settings in (("gated-experts", {}), ("default-lexical", {"lexical": False})):
        locator = SemanticLocator("tiny", settings=settings).fit(train)
        locator.training.temperature = 1.0
        np.testing.assert_array_equal(probs[key].astype(np.float32), locator.predict_proba(test))


def test_a_row_like_one_without_trials_has_none(compare):
    reports = []
    comparison = compare("cleaning-paper", tables="5", seeds=1, trials=1, epochs=1)
    comparison.run(lambda *progress: reports.append(progress))
    assert reports[-1][0] == reports[-1][1] == 2


def test_figures_come_from_the_rows_first_seed(compare):
    comparison = compare(None, tables="4", figures="9", seeds=1, trials=1, epochs=1)
    comparison.run()
    (figure,) = make_figures(comparison, comparison.folder)
    assert figure.number == "9" and "<svg" in figure.svg
    assert sorted(figure.files) == ["figure-9.png", "figure-9.svg"]
    assert all((comparison.folder / name).stat().st_size > 1000 for name in figure.files)


def test_raw_predictions_hold_every_run(compare):
    comparison = compare("linear-probe,text-only")
    comparison.run()
    write_predictions(comparison, comparison.folder / "all.parquet")
    rows = pq.read_table(comparison.folder / "all.parquet").to_pylist()
    test = sum(comparison.data.test)
    assert len(rows) == 3 * 2 * test
    assert {row["row"] for row in rows} == {"linear-probe", "text-only", "gated-experts"}
    some = [row for row in rows if (row["row"], row["seed"]) == ("text-only", 1)]
    got = [[row[f"p_{label}"] for label in comparison.data.labels] for row in some]
    np.testing.assert_array_equal(got, probabilities_of(comparison, "text-only")[1])
