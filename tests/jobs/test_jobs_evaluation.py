"""The evaluation of a table: its files hold the right figures, and say what was left out."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import confusion_matrix, f1_score, log_loss

from sgmft.data.source import Source
from sgmft.errors import SgmftError
from sgmft.jobs.evaluate import evaluate_table
from small_posts import LABELS
from small_tables import file_names, read_rows, write_rows
from small_tables import rows as rows
from small_tables import table as table


def test_evaluation_files_hold_the_right_figures(rows, small_posts, small_model, tmp_path):
    """Two labels are made wrong, and one is none that the model learned."""
    rows, folder, seen = [dict(row) for row in rows], tmp_path / "e", []
    rows[0]["label"], rows[1]["label"], rows[2]["label"] = "Work", "Home", "Moon"
    source = Source(str(write_rows(rows, small_posts[0].images[0].parent / "truth.csv")))
    summary, evaluation = evaluate_table(
        source, folder, small_model, by=["城市"], on_predicted=seen.append
    )
    assert seen[-1] == 12
    names = ["confusion.png", "metrics.json", "predictions.parquet", "report.html"]
    assert file_names(folder) == names
    found = read_rows(folder / "predictions.parquet")
    assert [row["id"] for row in found] == [row["id"] for row in rows]
    assert [row["true_label"] or "" for row in found] == [row["label"] for row in rows]
    errors = [row["error"] for row in found]
    assert errors[2] == "the model never learned the label 'Moon'"
    assert "no file" in errors[3] and "no label" in errors[11]
    assert summary.posts == 12 and summary.errors == {
        "the model never learned the label …": 1,
        "there is no file …": 1,
        "has no label to compare with": 1,
    }
    good = [row for row in found if row["error"] is None]
    truth, guess = ([row[name] for row in good] for name in ("true_label", "label"))
    probs = np.array([[row[f"p_{place}"] for place in LABELS] for row in good])
    probs /= probs.sum(1, keepdims=True)  # they were float32
    metrics = json.loads((folder / "metrics.json").read_text("utf-8"))
    right = np.equal(truth, guess)
    assert 0 < right.mean() < 1  # or the comparisons below say little
    assert metrics["posts"] == len(good) == 9
    assert metrics["accuracy"]["value"] == pytest.approx(right.mean())
    assert metrics["macro_f1"]["value"] == pytest.approx(f1_score(truth, guess, average="macro"))
    assert metrics["log_loss"] == pytest.approx(log_loss(truth, probs, labels=LABELS), rel=1e-5)
    assert metrics["confusion"] == confusion_matrix(truth, guess, labels=LABELS).tolist()
    cities = [rows[i]["城市"] for i, row in enumerate(found) if row["error"] is None]
    for city, group in metrics["groups"]["城市"].items():
        of_city = [r for r, other in zip(right, cities, strict=True) if other == city]
        assert group["posts"] == len(of_city)
        assert group["accuracy"]["value"] == pytest.approx(np.mean(of_city))
    assert evaluation.to_dict() == metrics
    with Image.open(folder / "confusion.png") as picture:
        assert picture.format == "PNG"
    page = (folder / "report.html").read_text("utf-8")
    assert "Evaluation on truth.csv" in page and "data fingerprint" in page


def test_what_cannot_be_evaluated(rows, small_posts, small_model, table, tmp_path):
    with pytest.raises(SgmftError, match=r"no column 'city' for --by; it has id, text, .*城市"):
        evaluate_table(Source(str(table)), tmp_path / "e", small_model, by=["城市", "city"])
    moons = [row | {"label": "Moon"} for row in rows[:2]]
    table = write_rows(moons, small_posts[0].images[0].parent / "moons.csv")
    with pytest.raises(SgmftError, match=r"can be evaluated: 2 x the model never learned"):
        evaluate_table(Source(str(table)), tmp_path / "e", small_model)
    with pytest.raises(SgmftError, match=r"moons\.csv, row 2: the model never learned"):
        evaluate_table(Source(str(table), strict=True), tmp_path / "e", small_model)
    assert file_names(tmp_path) == []
