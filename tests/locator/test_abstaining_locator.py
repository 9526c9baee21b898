"""A locator, a table and an evaluation that may answer "cannot tell"."""

import csv
import json

import numpy as np
import pytest

from sgmft import Post
from sgmft.data.source import Source
from sgmft.jobs.evaluate import evaluate_table
from sgmft.jobs.predict import predict_table
from sgmft.locator.abstention import Abstention

RULES = Abstention(coverage=0.8, reject=0.2)


def table(tmp_path, posts):
    path = tmp_path / "posts.jsonl"
    rows = [{"text": p.text, "images": list(map(str, p.images)), "label": p.label} for p in posts]
    path.write_text("\n".join(map(json.dumps, [*rows, {"text": "", "images": []}])))
    return Source(str(path), allow_outside=True)


@pytest.mark.parametrize(
    "options",
    [{}, {"method": "late-average"}, {"preset": "tokens", "settings": {"epochs": 1}}],
    ids=str,
)
def test_rules_take_labels_away_and_change_nothing_else(fitted, small_posts, options):
    locator = fitted(val_size=0.4, **options) if options.get("preset") else fitted(**options)
    plain = list(locator.predictions(small_posts))
    decided = list(locator.predictions(small_posts, RULES))
    assert all(p.label_set is p.typicality is p.abstained is None for p in plain)
    for one, other in zip(plain, decided, strict=True):
        assert np.array_equal(one.probabilities, other.probabilities)
        assert other.label == (one.label if other.abstained is None else None)
        assert other.abstained is not None or other.label_set == (other.label,)
        assert other.abstained is None or len(other.label_set) != 1 or other.typicality <= 0.2
    assert locator.predict(small_posts, RULES) == [p.label for p in decided]
    nothing = Post(text="", images=["nowhere.png"])
    (bad,) = locator.predictions([nothing], RULES)
    assert bad.error and bad.label is bad.label_set is bad.abstained is None


def test_a_table_gets_what_the_rules_look_at(fitted, small_posts, tmp_path):
    locator, source = fitted(), table(tmp_path, small_posts)
    summary = predict_table(source, tmp_path / "out.csv", locator, abstain=RULES)
    with (tmp_path / "out.csv").open(encoding="utf-8-sig") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0])[-4:] == ["set", "typicality", "abstained", "error"]
    for row in rows[:-1]:
        assert bool(row["label"]) == (not row["abstained"])
        assert not row["label"] or json.loads(row["set"]) == [row["label"]]
        assert 0 < float(row["typicality"]) <= 1
    assert rows[-1]["error"] and not rows[-1]["set"] and not rows[-1]["abstained"]
    assert sum(summary.abstained.values()) == sum(bool(row["abstained"]) for row in rows)
    predict_table(source, tmp_path / "one.csv", locator, abstain=Abstention(min_probability=0.5))
    with (tmp_path / "one.csv").open(encoding="utf-8-sig") as file:
        assert next(iter(csv.DictReader(file))).keys() & {"set", "typicality", "abstained"} == {
            "abstained"
        }


def test_an_evaluation_tells_what_abstaining_brings(fitted, small_posts, tmp_path):
    _, found = evaluate_table(table(tmp_path, small_posts), tmp_path / "eval", fitted())
    assert found.selective.sets and found.selective.curve[0].answered == 1
    page = (tmp_path / "eval" / "report.html").read_text("utf-8")
    assert "cannot tell" in page and "True label in the set" in page
