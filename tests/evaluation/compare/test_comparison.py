"""A comparison from posts to tables: fair, resumable, and not stopped by what fails."""

import csv
import json
import math
import re
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.metrics import f1_score

from sgmft import SemanticLocator
from sgmft.data.posts import BAD_LABEL, Post
from sgmft.errors import Message, SgmftError, SgmftWarning
from sgmft.evaluation.compare import runs
from sgmft.evaluation.compare.catalogue import make_plan, read_catalogue
from sgmft.evaluation.compare.prepare import Split, load_data, load_features, prepare_comparison
from sgmft.evaluation.compare.report import write_report
from sgmft.evaluation.compare.results import (
    make_figures,
    make_tables,
    read_predictions,
    write_predictions,
    write_runs,
)
from sgmft.evaluation.compare.runs import Comparison, Run, inputs_read, suggest
from sgmft.features.encode import encode_all
from sgmft.features.encoders.registry import ENCODERS
from sgmft.models import registry
from sgmft.models.registry import METHODS
from sgmft.utils.files import write_json

FAST = "linear-probe,text-only,late-average,unis-mmc"
BY_LABEL = Split(by="label")


@pytest.fixture
def data_of(tiny, tmp_path):
    """Prepares posts for the rows of a plan."""

    def prepare(posts, split, rows="text-only", plan=None, **options):
        plan = plan or make_plan("1,5", "", rows, encoder="tiny")
        store = tmp_path / "features"
        return prepare_comparison(posts, plan, store, split, **options)

    return prepare


@pytest.fixture
def compare(data_of, small_posts, tmp_path):
    """Makes a comparison on the small posts; the same folder each time."""

    def make(
        methods=FAST, posts=None, split=BY_LABEL, tables="1", figures="", answers=None, **options
    ):
        options = {"seeds": 2, "trials": 2, "epochs": 2} | options
        plan = make_plan(tables, figures, methods, encoder="tiny", **options)
        posts = small_posts if posts is None else posts
        data = data_of(posts, split, plan=plan, answers=answers)
        write_json(tmp_path / "comparison" / "data.json", asdict(data))
        load_data.cache_clear()
        load_features.cache_clear()
        return Comparison(tmp_path / "comparison", plan, data)

    return make


def probabilities_of(comparison, key):
    return read_predictions(comparison.folder, comparison.found[key], comparison.data.labels)


def lines_of(comparison):
    (table,) = make_tables(comparison)
    return {line.key: line for line in table.lines}


def watch_runs(monkeypatch):
    """Note the name of every run that is really executed from now on."""
    done, execute = [], runs.execute_run

    def watched(run):
        done.append(run.name(load_data(Path(run.folder))))
        return execute(run)

    monkeypatch.setattr(runs, "execute_run", watched)
    return done


def sides_of(data, posts, division=0):
    """Training and test posts, of which those held out for trials are training posts."""
    known = {(post.place, post.id or ""): post for post in posts}
    train, test = data.divisions[division].train, data.divisions[division].where("test")
    assert sorted(train + test) == list(range(len(data.keys)))
    held_out = data.divisions[division].where("validation")
    assert held_out and set(held_out) < set(train)
    return tuple([known[data.places[i]] for i in side] for side in (train, test))


def users_of(data, posts, division=0):
    """The users of the training posts, and those of the test posts."""
    return tuple({post.user for post in side} for side in sides_of(data, posts, division))


@pytest.mark.parametrize(("epochs", "unseen"), [(1, ["test"]), (None, ["test", "validation"])])
def test_posts_that_are_not_learned_from_decide_nothing_about_columns(
    compare, small_posts, epochs, unseen
):
    posts = [
        replace(post, row={"n": i % 7, "c": f"c{i % 3}"}) for i, post in enumerate(small_posts)
    ]
    made = compare("gated-experts,text-only", posts, attributes=["n", "c"])
    run, other = (
        made._run(made.plan.known[x], 0, epochs=epochs) for x in ("gated-experts", "text-only")
    )
    roles = made.data.divisions[0].roles
    odd = {"n": "1e9", "c": "odd"}
    rows = zip(made.data.attributes, roles, strict=True)
    changed = replace(made.data, attributes=[odd if role in unseen else x for x, role in rows])
    (_, before), (_, after) = (runs._training_task(run, data) for data in (made.data, changed))
    same = (before.attributes == after.attributes).all(1)
    assert same.tolist() == [role not in unseen for role in roles]
    assert run.name(made.data) != run.name(changed)
    assert other.name(made.data) == other.name(changed)  # it reads none, so it is not run again
    assert runs._training_task(other, changed)[1].attributes is None


def test_auto_splits_by_user_and_validation_posts_are_training_posts(data_of, small_posts):
    data = data_of(small_posts, Split())
    train, test = users_of(data, small_posts)
    assert test and not test & train
    json.dumps(data.encoded["tiny/light"].info)


def test_two_users_are_divided_once(data_of, small_posts):
    """One of them is left to train on, whose posts are then divided by label."""
    posts = [replace(post, user="ab"[i % 2]) for i, post in enumerate(small_posts)]
    assert len(users_of(data_of(posts, Split()), posts)[True]) == 1
    with pytest.raises(SgmftError, match="two users or more, and the posts name 1"):
        data_of(posts, Split(by="user"))


def test_a_column_can_hold_the_split(data_of, small_posts):
    parts = ["test" if i % 5 == 0 else "train" for i in range(len(small_posts))]
    posts = [replace(x, row={"part": part}) for x, part in zip(small_posts, parts, strict=True)]
    data = data_of(posts, Split(test=("part", "test")), by=["part"])
    assert [i for i, part in enumerate(data.groups["part"]) if part == "test"] == data.divisions[
        0
    ].where("test")


def test_mistakes_are_found_before_anything_is_encoded(data_of, small_posts, monkeypatch):
    monkeypatch.setattr("sgmft.evaluation.compare.prepare.open_encoder", None)
    for split, by, message in (
        (Split(test=("part", "test")), [], "--test: no column 'part'"),
        (Split(by="place"), [], "cannot be split by 'place': use auto, label, user"),
        (BY_LABEL, ["season"], "no column 'season'"),
    ):
        with pytest.raises(SgmftError, match=message):
            data_of(small_posts, split, by=by)


def test_a_post_that_one_encoder_cannot_use_is_left_out_for_all(data_of, small_posts):
    only_stop_words = Post("the of", [], id="stop", label="Home", user="u0")
    posts = [*small_posts, only_stop_words, Post("sofa", [], id="none")]
    posts[1] = replace(posts[1], images=["p/gone.jpg"], place="t.csv, row 3")
    data = data_of(posts, BY_LABEL, "text-only,cleaning-paper")
    assert set(data.encoded) == {"tiny/light", "tiny/paper"}
    assert len(data.keys) == len(small_posts) and sum(data.left_out.values()) == 2
    assert data.warnings == {"there is no file …": 1}
    assert data.examples["there is no file …"] == "t.csv, row 3: there is no file gone.jpg"


def test_a_label_without_training_posts_is_left_out(data_of, small_posts):
    posts = [replace(x, row={"part": "train"}) for x in small_posts]
    posts[3:6] = (replace(x, row={"part": "test"}) for x in posts[3:6])
    posts.append(replace(posts[4], id="moon", label="Moon"))
    data = data_of(posts, Split(test=("part", "test")))
    assert "Moon" not in data.labels and data.classes.count(-1) == 0
    assert data.left_out == {"the model never learned the label …": 1}


def test_encoders_are_compared_on_the_same_posts(compare, monkeypatch):
    monkeypatch.setitem(ENCODERS, "other", ENCODERS["tiny"])
    comparison = compare(None, tables="6", encoders=["tiny", "other"], seeds=1)
    comparison.run()
    lines = lines_of(comparison)
    keys = [f"{x}@{name}" for name in ("tiny", "other") for x in ("gated-experts", "linear-probe")]
    assert list(lines) == keys
    assert lines[keys[0]].against is None and lines[keys[2]].against.value == 0  # the same features
    assert np.array_equal(
        *(probabilities_of(comparison, f"linear-probe@{x}") for x in ("tiny", "other"))
    )
    assert "of features a post" in lines[keys[3]].note
    with pytest.raises(SgmftError, match="compared in Table 6"):
        compare(None, tables="1", encoders=["tiny", "other"])


def test_a_picture_is_encoded_once_for_all_cleanings(data_of, small_posts, monkeypatch):
    seen, real = [], ENCODERS["tiny"].encode_images

    def watched(self, pictures, tokens):
        seen.append((self.info.cleaning, len(pictures)))
        return real(self, pictures, tokens)

    monkeypatch.setattr(ENCODERS["tiny"], "encode_images", watched)
    data = data_of(small_posts, BY_LABEL, "sgmft-tokens,cleaning-paper,cleaning-none")
    assert len(data.encoded) == 3
    assert seen == [("light", 9), ("paper", 0), ("none", 0)]


def test_finished_work_of_before_has_the_same_names():
    """A setting that is new is in the name of a run's files only where it is used."""
    encoded = {"x": SimpleNamespace(info={"fingerprint": "f"})}
    data: Any = SimpleNamespace(encoded=encoded, fingerprints=["d"], attributes=())
    rows = read_catalogue().rows
    names = {key: Run("folder", rows[key], "x", epochs=3).name(data) for key in rows}
    assert names["mplug"] == "mplug-seed0-ebaf7a2883"
    assert names["sgmft-tokens"] == "sgmft-tokens-seed0-ac5c99d484"
    assert names["gated-experts"] == "sgmft-seed0-640829f63c"  # as 0.1 called it
    assert len(set(names.values())) == len(rows)


def test_rows_are_tried_run_and_tested_against_the_reference(compare):
    comparison = compare()
    reports = []
    comparison.run(lambda *progress: reports.append(progress))
    total = 2 + 5 * 2  # trials of the only row that is tuned, runs
    assert [report[:2] for report in reports] == [(done, total) for done in range(1, total + 1)]
    lines = lines_of(comparison)
    assert lines.pop("gated-experts").against is None  # the reference is shown, too
    assert set(lines) == {"unis-mmc", "linear-probe", "text-only", "late-average"}
    truth = np.array(comparison.data.classes)[comparison.data.divisions[0].where("test")]
    for key, line in lines.items():
        assert line.summary is not None and line.summary.seeds == 2 and not line.failed
        assert line.against is not None and line.parameters and line.seconds is not None
        right = probabilities_of(comparison, key).argmax(-1) == truth
        assert line.summary.accuracy.mean == pytest.approx(right.mean())
        assert ("learning_rate=" in line.setting) == (key == "unis-mmc") == bool(line.setting)
    reads = {key: line.reads for key, line in lines.items()}
    assert reads == {
        "unis-mmc": "text vector, picture vector, projected to 256 numbers",
        "linear-probe": "text vector, picture vector",
        "text-only": "text vector",
        "late-average": "text vector, picture vector",
    }
    own = comparison.found["gated-experts"][0].runs[0]["reads"]
    assert own == "text vector, picture vector, n-grams of the raw text"
    write_predictions(comparison, comparison.folder / "all.parquet")
    rows = pq.read_table(comparison.folder / "all.parquet").to_pylist()
    assert len(rows) == 5 * 2 * len(truth)
    assert {row["row"] for row in rows} == {*lines, "gated-experts"}
    some = [row for row in rows if (row["row"], row["seed"]) == ("text-only", 1)]
    got = [[row[f"p_{label}"] for label in comparison.data.labels] for row in some]
    np.testing.assert_array_equal(got, probabilities_of(comparison, "text-only")[1])


def test_every_row_runs_on_every_split_with_every_seed(compare, small_posts, monkeypatch):
    compare("unis-mmc", seeds=1).run()  # on the usual split, which is the first of five folds
    done, reports = watch_runs(monkeypatch), []
    comparison = compare("unis-mmc,text-only", split=Split(by="label", folds=5))
    comparison.run(lambda *progress: reports.append(progress))
    assert reports[-1][:2] == (5 * (2 + 3 * 2),) * 2
    assert len(done) == len(set(done)) == 5 * (2 + 3 * 2) - 4
    data, lines = comparison.data, lines_of(comparison)
    tested = [post for n in range(5) for post in sides_of(data, small_posts, n)[1]]
    assert sorted(post.id for post in tested) == sorted(post.id for post in small_posts)
    truth = [data.labels.index(post.label) for post in tested]
    right = probabilities_of(comparison, "unis-mmc").argmax(-1) == truth
    sizes = np.cumsum([len(x.where("test")) for x in data.divisions])[:-1]
    expected = np.mean([part.mean() for part in np.split(right, sizes, axis=1)])
    summary, gap = lines["unis-mmc"].summary, lines["unis-mmc"].against
    assert summary.accuracy.mean == pytest.approx(expected)
    assert (summary.splits, summary.seeds) == (5, 2) and gap.p_posts is not None
    write_predictions(comparison, comparison.folder / "all.parquet")
    rows = pq.read_table(comparison.folder / "all.parquet", columns=["row", "split", "seed"])
    assert len({tuple(row.values()) for row in rows.to_pylist()}) == 3 * 5 * 2
    write_runs(comparison, make_tables(comparison), path := comparison.folder / "runs.csv")
    with path.open(encoding="utf-8-sig") as file:
        found = [row for row in csv.DictReader(file) if row["metric"] == "accuracy"]
    assert len(found) == 3 * 5 * 2
    values = [float(row["value"]) for row in found if row["row"] == "unis-mmc"]
    assert np.mean(values) == pytest.approx(expected)
    assert np.std(values, ddof=1) == pytest.approx(summary.accuracy.sd)
    lost = comparison.found["text-only"][2].runs[1]["name"]
    (comparison.folder / "cells" / f"{lost}.json").unlink()
    early = compare("unis-mmc,text-only", split=Split(by="label", folds=5), finished_only=True)
    early.run()  # only seeds that are finished on every split are shown
    assert lines_of(early)["text-only"].summary.seeds == 1


@pytest.mark.parametrize(
    ("variant", "full", "tables"),
    [("clip-sim", "sgmft-tokens", "2"), ("elements-softmax", "elements", "5")],
)
def test_the_best_trial_is_chosen_and_a_variant_takes_its_setting(compare, variant, full, tables):
    reports = []
    comparison = compare(f"{full},{variant}", tables=tables, seeds=1, trials=3)
    found = comparison.run(lambda *progress: reports.append(progress))
    assert len({trial["settings"]["learning_rate"] for trial in found[full][0].trials}) == 3
    best = min(found[full][0].trials, key=lambda trial: trial["val_loss"])
    chosen = [found[key][0].choice["settings"] for key in (full, variant)]
    assert chosen == [best["settings"]] * 2
    words = "words, regions, " if full == "sgmft-tokens" else ""
    reads = f"text vector, picture vector, {words}projected to 256 numbers"
    assert [found[key][0].runs[0]["reads"] for key in (full, variant)] == [reads] * 2
    assert found[full][0].runs[0]["epochs"] == best["epochs"] and len(found[variant][0].trials) == 1
    assert reports[-1][0] == reports[-1][1] == 4 + len(comparison.rows)  # trials, runs


def test_a_search_suggests_settings_by_earlier_losses_and_goes_on(compare, monkeypatch):
    first, reports = compare("unis-mmc", seeds=1, epochs=1, search=True), []
    first.run(lambda *progress: reports.append(progress))
    (before,) = first.found["unis-mmc"]
    assert reports[-1][0] == reports[-1][1]
    done = watch_runs(monkeypatch)
    again = compare("unis-mmc", seeds=1, epochs=1, trials=12, search=True)
    (found,) = again.run()["unis-mmc"]
    assert found.searched[:2] == before.searched and len(done) in (10, 11)  # and the best's run
    own = METHODS["unis-mmc"].preset().train
    assert found.searched[0]["learning_rate"] == own.learning_rate
    for settings in found.searched:
        assert settings.keys() == {"learning_rate", "weight_decay", "dropout", "width"}
        assert 1 / 31 < settings["learning_rate"] / own.learning_rate < 31
        assert settings["width"] in (128, 256, 512) and 0 <= settings["dropout"] <= 0.5
    assert len({x["learning_rate"] for x in found.searched}) == 12
    best = min(found.trials, key=lambda trial: trial["val_loss"])
    assert found.choice["settings"] == best["settings"] and len(found.trials) == 12


def test_what_a_row_sets_itself_is_not_searched_nor_is_a_trial_that_failed_in_the_way():
    row = read_catalogue().rows["unis-mmc"]
    row = replace(row, settings={"dropout": 0.2, "width": 64})
    first = suggest(row, [], [])
    assert first.keys() == {"learning_rate", "weight_decay"}
    second = suggest(row, [first], [math.inf])
    assert second == suggest(row, [first], [math.inf]) and second != first


def test_finished_work_is_not_done_again_and_lost_work_is(compare, monkeypatch):
    some = "text-only,unis-mmc"
    first = compare(some)
    first.run()
    before = probabilities_of(first, "unis-mmc")
    done = watch_runs(monkeypatch)
    compare(some).run()
    assert done == []
    lost = first.found["unis-mmc"][0].runs[1]["name"]
    (first.folder / "cells" / f"{lost}.json").unlink()
    again = compare(some)
    again.run()
    assert done == [lost]
    assert (probabilities_of(again, "unis-mmc") == before).all()
    more = compare(some, seeds=3)
    more.run()
    assert len(done) == 1 + 3  # one more seed of each row
    names = {path.name.split("-seed")[0] for path in first.folder.glob("cells/*-seed0-*")}
    assert "sgmft" in names and "gated-experts" not in names  # as 0.1 named the default's files


def test_what_is_finished_can_be_looked_at_before_the_rest(compare, small_posts, monkeypatch):
    compare("text-only", seeds=1).run()
    done = watch_runs(monkeypatch)
    early = compare("text-only,unis-mmc", finished_only=True)
    early.run()
    lines = lines_of(early)
    assert lines["text-only"].summary.seeds == 1
    assert lines["unis-mmc"].summary is None and not lines["unis-mmc"].failed
    assert done == []
    changed = [replace(small_posts[0], label="Work"), *small_posts[1:]]
    compare("text-only", posts=changed, seeds=1).run()
    assert len(done) == 2  # other posts are other work, of the reference too


def test_the_same_posts_in_another_order_are_other_work(compare, small_posts):
    """Predictions are paired row by row: those of another order would be of other posts."""
    test = [replace(post, row={"part": "test"}) for post in small_posts[:12]]
    train = [replace(post, row={"part": "train"}) for post in small_posts[12:]]
    found = []
    for posts in ([*train, *test], [*train, *test[::-1]]):
        comparison = compare("text-only", posts=posts, seeds=1, split=Split(test=("part", "test")))
        comparison.run()
        found.append(lines_of(comparison)["text-only"].summary.accuracy.mean)
    assert found[0] == found[1]


PROBE = METHODS["linear-probe"]


class Broken(PROBE.network):
    def fit(self, batch, labels, rng, weights=None):
        raise ValueError("it does not work")


class Diverging(PROBE.network):
    def forward(self, batch):
        output = super().forward(batch)
        return output._replace(logits=output.logits * np.float32("nan"))


@pytest.mark.parametrize(
    ("network", "reason"), [(Broken, "it does not work"), (Diverging, "has diverged")]
)
def test_a_failed_row_says_why_and_does_not_stop_the_rest(compare, monkeypatch, network, reason):
    method = replace(PROBE, name="broken", title="Broken")
    monkeypatch.setitem(METHODS, "broken", replace(method, network=network))
    comparison = compare("broken,text-only")
    comparison.run()
    lines = lines_of(comparison)
    assert lines["broken"].summary is None and lines["text-only"].summary is not None
    assert all(reason in failure for failure in lines["broken"].failed) and lines["broken"].failed
    early = compare("broken,text-only", finished_only=True)
    early.run()
    assert lines_of(early)["broken"].failed == lines["broken"].failed
    monkeypatch.setitem(METHODS, "broken", method)
    fixed = compare("broken,text-only")
    fixed.run()  # a failure is tried again
    assert len(fixed.found["broken"][0].runs) == 2


PLUGIN = """
import os
from dataclasses import replace
from sgmft.models.registry import METHODS

PROBE = METHODS["linear-probe"]

class Deadly(PROBE.network):
    def fit(self, batch, labels, rng, weights=None):
        os._exit(9)

METHODS["deadly"] = replace(PROBE, name="deadly", title="Deadly", network=Deadly)
"""


@pytest.mark.slow
def test_two_processes_find_the_same_and_survive_one_that_dies(compare, tmp_path, monkeypatch):
    alone = compare("text-only,unis-mmc")
    alone.run()
    expected = {key: probabilities_of(alone, key) for key in ("text-only", "unis-mmc")}
    alone.folder.rename(tmp_path / "alone")
    monkeypatch.setattr(registry, "LOADED", [])
    monkeypatch.setattr(runs, "LOADED", registry.LOADED)
    monkeypatch.setitem(METHODS, "deadly", METHODS["text-only"])  # taken away again at the end
    (tmp_path / "deadly.py").write_text(PLUGIN)
    registry.load_plugin(tmp_path / "deadly.py")
    together = compare("deadly,text-only,unis-mmc", workers=2, trials=2)
    found = together.run()
    assert "died" in " ".join(found["deadly"][0].failed) and not found["deadly"][0].runs
    for key, value in expected.items():
        assert (probabilities_of(together, key) == value).all()


def test_a_run_is_what_the_locator_itself_trains(compare, small_posts):
    """SG-MFT as printed, which chooses nothing: the same probabilities to the last bit."""
    comparison = compare("sgmft-paper", seeds=1)
    comparison.run()
    train, test = sides_of(comparison.data, small_posts)
    locator = SemanticLocator("tiny", preset="paper", settings={"epochs": 2})
    expected = locator.fit(train).predict_proba(test)
    assert locator.labels == comparison.data.labels
    found = probabilities_of(comparison, "sgmft-paper")[0].astype(np.float32)
    np.testing.assert_array_equal(found, expected)
    assert comparison.found["sgmft-paper"][0].trials == []


def test_the_default_and_its_parts_choose_inside_the_training_posts(compare, small_posts):
    """No trials; a part is what the locator trains with that setting, before its calibration."""
    parts = {"default-gate", "default-joint", "default-lexical", "cleaning-paper"}
    comparison = compare(",".join(parts), tables="5", seeds=1)
    found = comparison.run()
    assert set(found) == {"gated-experts", *parts}
    assert all(x.trials == [] and not x.failed and len(x.runs) == 1 for (x,) in found.values())
    probs = {key: probabilities_of(comparison, key)[0] for key in found}
    for key in ("default-joint", "default-lexical"):
        assert not np.array_equal(probs[key], probs["gated-experts"])
    train, test = sides_of(comparison.data, small_posts)
    for key, settings in (("gated-experts", {}), ("default-lexical", {"lexical": False})):
        locator = SemanticLocator("tiny", settings=settings).fit(train)
        locator.training.temperatures = (1.0,) * 4
        np.testing.assert_array_equal(probs[key].astype(np.float32), locator.predict_proba(test))


def test_figures_come_from_the_rows_first_seed(compare):
    comparison = compare(None, tables="4", figures="9", seeds=1, trials=1, epochs=1)
    comparison.run()
    tables = make_tables(comparison)
    figure, *confusions = make_figures(comparison, tables, comparison.folder)
    assert figure.number == "9" and "<svg" in figure.svg
    assert sorted(figure.files) == ["figure-9.pdf", "figure-9.png", "figure-9.svg"]
    assert [x.number for x in confusions] == ["C1", "C2"]
    assert confusions[0].title == f"Confusions of {tables[0].reference}"
    files = [name for x in (figure, *confusions) for name in x.files]
    assert all((comparison.folder / name).stat().st_size > 1000 for name in files)
    test = len(comparison.data.divisions[0].where("test"))
    summaries = [x.summary for x in tables[0].lines if x.summary]
    assert all(np.sum(x.confusion) == test * x.seeds for x in summaries)


def test_answers_from_outside_are_a_row_and_none_is_wrong(compare, small_posts, tmp_path):
    file = tmp_path / "gpt.csv"
    told = [(post.id, post.label) for post in small_posts]
    told[::5] = [(name, "somewhere") for name, _ in told[::5]]
    file.write_text("id,label\n" + "".join(f"{x},{y}\n" for x, y in told[:-9]), "utf-8")
    posts = [replace(post, row={"mine": post.label}) for post in small_posts]
    answers = {"gpt": str(file), "truth": "mine"}
    comparison = compare("text-only", posts, answers=answers, seeds=1)
    comparison.run()
    lines, data = lines_of(comparison), comparison.data
    assert list(lines) == ["gpt", "truth", "text-only", "gated-experts"]
    test = data.divisions[0].where("test")
    truth = [data.labels[data.classes[i]] for i in test]
    given = [dict(told[:-9]).get(data.places[i][1], "") for i in test]
    line, right = lines["gpt"], np.array(given) == np.array(truth)
    assert 0 < right.mean() < 1
    assert line.summary.accuracy.mean == pytest.approx(right.mean())
    expected = f1_score(truth, given, labels=data.labels, average="macro", zero_division=0)
    assert line.summary.macro_f1.mean == pytest.approx(expected)
    assert [x.label for x in line.summary.per_class] == data.labels
    none = sum(x not in data.labels for x in given)
    assert line.note.endswith(f"{none} of {len(test)} are none of the labels, so wrong.")
    assert math.isnan(line.summary.calibration_error.mean) and line.parameters is None
    assert lines["truth"].summary.accuracy.mean == 1
    write_runs(comparison, make_tables(comparison), tmp_path / "runs.csv")
    runs = (tmp_path / "runs.csv").read_text("utf-8").splitlines()
    assert f"gpt,1,0,accuracy,{right.mean()}" in runs and "truth,1,0,accuracy,1.0" in runs
    gap = np.mean(right) - lines_of(comparison)["truth"].summary.accuracy.mean
    base = lines["truth"].against.value
    assert line.against.value - base == pytest.approx(gap) and line.against.p_holm >= line.against.p


def test_answers_say_what_a_thousand_of_them_cost(compare, small_posts, tmp_path):
    costs = [f"{0.1 * (i % 3)},{100 + i % 2},1e-05" for i in range(36)]
    costs[-1] = ",,"  # of a row without an answer
    lines = (f"{x.id},{x.label},{y}\n" for x, y in zip(small_posts, costs, strict=True))
    file = tmp_path / "gpt.csv"
    file.write_text("id,label,llm_seconds,llm_tokens,llm_price\n" + "".join(lines), "utf-8")
    row = {"mine": "Home", "llm_seconds": 2.0}
    posts = [replace(post, row=row) for post in small_posts]
    comparison = compare("text-only", posts, answers={"gpt": str(file), "own": "mine"}, seeds=1)
    comparison.run()
    found = lines_of(comparison)
    assert found["gpt"].note.endswith("A thousand posts: 97 s, 100,486 tokens, price 0.01.")
    assert found["own"].note.endswith("so wrong. A thousand posts: 2,000 s.")
    how = {"title": "x", "tables": make_tables(comparison), "data": {}, "versions": {}}
    for language, cost in {"en": "A thousand posts", "zh": "每千条帖子"}.items():
        page = write_report(tmp_path / language, **how, language=language)
        for path in (page, page.with_suffix(".md")):
            assert re.search(f"{cost}[:：] ?97 s, 100,486 tokens", path.read_text("utf-8")), path


def test_answers_that_say_how_sure_they_are_have_a_calibration_error(
    compare, small_posts, tmp_path
):
    said = [("Home", 0.9), ("Home", 0.6), ("", ""), ("Work", "")]
    lines = (f"{x.id},{y},{p}\n" for x, (y, p) in zip(small_posts, said * 9, strict=True))
    file = tmp_path / "gpt.csv"
    file.write_text("id,label,probability\n" + "".join(lines), "utf-8")
    comparison = compare("text-only", small_posts, answers={"gpt": str(file)}, seeds=1)
    comparison.run()
    line, data = lines_of(comparison)["gpt"], comparison.data
    test = data.divisions[0].where("test")
    truth = [data.labels[data.classes[i]] for i in test]
    given = [
        dict(zip((x.id for x in small_posts), said * 9, strict=True))[data.places[i][1]]
        for i in test
    ]
    right = np.array([y == label for (y, _), label in zip(given, truth, strict=True)])
    sure = np.array([p or 1.0 for _, p in given])  # what does not say so counts as certain
    bins = np.minimum((sure * 15).astype(int), 14)
    error = sum(
        abs(right[bins == b].mean() - sure[bins == b].mean()) * (bins == b).mean()
        for b in set(bins)
    )
    assert line.summary.accuracy.mean == pytest.approx(right.mean())
    assert line.summary.calibration_error.mean == pytest.approx(error, abs=1e-6)


def test_answers_that_are_no_labels_are_named(compare, small_posts, tmp_path):
    file = tmp_path / "gpt.jsonl"
    file.write_text('{"id": "p1", "label": {"a": 1}}\n', "utf-8")
    with pytest.raises(SgmftError, match=r"gpt.jsonl, row 1: "):
        compare("text-only", small_posts, answers={"gpt": str(file)}, seeds=1)
    posts = [replace(post, row={"mine": {"a": 1}}) for post in small_posts]
    with pytest.raises(SgmftError, match="--answers own=mine: "):
        compare("text-only", posts, answers={"own": "mine"}, seeds=1)


def test_costs_with_thousands_between_commas(compare, small_posts, tmp_path):
    posts = [replace(post, row={"mine": "Home", "llm_tokens": "1,203"}) for post in small_posts]
    comparison = compare("text-only", posts, answers={"own": "mine"}, seeds=1)
    comparison.run()
    assert "A thousand posts: 1,203,000 tokens." in lines_of(comparison)["own"].note


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("id,answer\na,home\n", "gpt.csv, row 2: the columns id and label are needed"),
        ("id,label\na,home\na,work\n", "row 3: a has another label further up"),
        ("id,label\nunknown,home\n", "has no label for any of the posts.*'unknown'"),
        (None, "--answers gpt=.*gpt.csv: it is no column of the posts, and no file"),
    ],
)
def test_answers_that_do_not_fit_are_refused(data_of, small_posts, tmp_path, text, message):
    file = tmp_path / "gpt.csv"
    if text is not None:
        file.write_text(text)
    with pytest.raises(SgmftError, match=message):
        data_of(small_posts, BY_LABEL, answers={"gpt": str(file)})


def test_answers_that_are_no_label_at_all_are_refused_and_some_are_told(data_of, small_posts):
    numbered = enumerate(small_posts)
    rows = [{"mine": x.label.lower(), "some": x.label if i % 2 else "?"} for i, x in numbered]
    posts = [replace(x, row=row) for x, row in zip(small_posts, rows, strict=True)]
    with pytest.raises(SgmftError, match=r"none of its answers is a label of the posts; .* home"):
        data_of(posts, BY_LABEL, answers={"mine": "mine"})
    with pytest.warns(SgmftWarning, match="18 answers are none of the labels"):
        data_of(posts, BY_LABEL, answers={"some": "some"})


def test_a_probability_of_an_answer_that_is_none_is_refused(data_of, small_posts, tmp_path):
    (tmp_path / "gpt.csv").write_text("id,label,probability\np1,Home,95%\n", "utf-8")
    with pytest.raises(SgmftError, match="the probability '95%' of p1 is no number from 0 to 1"):
        data_of(small_posts, BY_LABEL, answers={"gpt": str(tmp_path / "gpt.csv")})


def test_posts_of_which_none_can_be_used_are_refused_with_the_reasons(data_of):
    posts = [Post("a", warnings=(Message(BAD_LABEL, reason="an object"),)) for _ in range(3)]
    with pytest.raises(SgmftError, match="0 posts can be used, and two are needed: 3 x label: an"):
        data_of(posts, BY_LABEL)


def test_settings_hold_class_weights_and_attributes(compare, small_posts):
    comparison = compare("linear-probe", small_posts, seeds=1, balanced=True)
    assert comparison.settings(comparison.plan.known["linear-probe"])["class_weights"] is True


@pytest.mark.parametrize("order", [[4, 1, 8, 1, 4], [4, 1]])
def test_what_a_model_reads_is_found_of_posts_in_any_order(small_model, small_posts, order):
    posts = encode_all(small_posts, small_model.encoder, tokens=False).features
    expected = inputs_read(small_model.network, posts, "tiny")
    assert "text" in expected
    assert inputs_read(small_model.network, posts.take(np.array(order)), "tiny") == expected
