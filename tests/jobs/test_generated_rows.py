"""Generated tables: whatever a row holds, it costs no other row, and no more of its post."""

import csv
import json
import shutil
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, strategies as st
from PIL import Image

from sgmft.data.posts import Post
from sgmft.data.source import Source
from sgmft.errors import SgmftError, SgmftWarning
from sgmft.features.encode import encode_all
from sgmft.features.store import FeatureStore
from sgmft.jobs.predict import predict_table
from small_tables import read_rows
from tiny_encoder import TinyEncoder

GOOD, BAD = ("red.png", "green.png"), ("zero.jpg", "cut.png", "note.jpg", "gone.jpg", "../x.jpg")
REASONS = ("is empty", "cut off", "is not a picture", "there is no file", "lies outside")
TEXTS = ("sofa bed", "teacher exam desk", "boss", "", "  ", "=1+1 office", "@小明")
# One user object, two documents of MongoDB, lists; `predict` needs none of these columns.
CELLS = ("", "7", "5.01235E+15", "501234567890123000", {"$oid": "6"}, ["a", "b"], 7, None)

rows_of_posts = st.lists(
    st.fixed_dictionaries(
        {
            "text": st.sampled_from(TEXTS),
            "image": st.lists(st.sampled_from(GOOD + BAD), max_size=4).map("|".join),
            "id": st.sampled_from(CELLS),
            "user": st.sampled_from(CELLS),
            "label": st.sampled_from(["Home", " Home", "home ", ["Home", "Work"], {"a": 1}, None]),
        }
    ),
    min_size=1,
    max_size=8,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("generated")
    for name in GOOD:
        Image.new("RGB", (16, 16), name.partition(".")[0]).save(folder / name)
    (folder / "zero.jpg").touch()
    (folder / "cut.png").write_bytes((folder / "red.png").read_bytes()[:40])
    (folder / "note.jpg").write_text("a note")
    return folder


def write(path, rows, headers=()):
    """Write rows as JSON lines, or as CSV with the header again before the rows `headers`."""
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        return path
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file)
        table.writerow(rows[0])
        for i, row in enumerate(rows):
            if i in headers:
                table.writerow(rows[0])
            table.writerow(x if isinstance(x, str) else json.dumps(x) for x in row.values())
    return path


def names(row):
    return [name for name in row["image"].split("|") if name]


def what_is_left(row, folder):
    """The post as if nothing bad had been in its row."""
    return Post(row["text"], [folder / x for x in names(row) if x in GOOD])


def predict(path, model):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", SgmftWarning)
        output = path.with_name("out.jsonl")
        summary = predict_table(Source(str(path)), output, model)
    return summary, read_rows(output)


@given(rows_of_posts)
def test_a_label_from_what_is_left(folder, small_model, rows):
    summary, found = predict(write(folder / "posts.jsonl", rows), small_model)
    expected = list(small_model.predictions([what_is_left(row, folder) for row in rows]))
    assert len(found) == summary.posts == len(rows)
    for given_row, row, other in zip(rows, found, expected, strict=True):
        for name in ("text", "image"):
            assert row[name] == given_row[name]
        assert (row["label"] is None) == (row["error"] is not None)
        assert row["label"] == other.label
        if other.label is not None:
            probs = [row[f"p_{label}"] for label in small_model.labels]
            np.testing.assert_allclose(probs, other.probabilities, atol=1e-5)
        told = f"{row['error']}; {row['warning']}"
        for name in names(given_row):
            if name in BAD:
                assert REASONS[BAD.index(name)] in told and name.removeprefix("../") in told
        for name in ("id", "user", "label"):
            if isinstance(x := given_row[name], dict) and (len(x) != 1 or min(x)[:1] != "$"):
                assert f"{name}: an object where one value is needed" in told
    assert summary.used == sum(row["label"] is not None for row in found)
    assert sum(summary.warnings.values()) >= sum(
        row["warning"] is not None and row["error"] is None for row in found
    )
    assert summary.examples.keys() == summary.errors.keys() | summary.warnings.keys()


@given(rows_of_posts, st.sets(st.integers(0, 7)))
def test_repeated_headers_are_left_out_and_change_nothing(folder, small_model, rows, headers):
    headers = {i for i in headers if i < len(rows)}
    plain = predict(write(folder / "plain.csv", rows), small_model)[1]
    path = write(folder / "joined.csv", rows, headers)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        predict_table(Source(str(path)), folder / "out.jsonl", small_model)
    for row, other in zip(read_rows(folder / "out.jsonl"), plain, strict=True):
        told = {key: row.pop(key) for key in ("warning", "error")}
        assert row == {key: x for key, x in other.items() if key not in told}
    counted = [str(x.message) for x in said if "repeat the header" in str(x.message)]
    assert len(counted) == bool(headers)
    assert all(f"are left out: {len(headers)}," in sentence for sentence in counted)


@given(rows_of_posts, st.sets(st.sampled_from(["zero.jpg", "cut.png", "note.jpg", "gone.jpg"])))
def test_a_store_never_answers_with_what_a_file_was_before(folder, rows, repaired):
    """Files are repaired between two runs: the second equals one that knows of no first."""
    place = folder / "repaired"
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir()
    for path in folder.iterdir():
        if path.suffix in (".png", ".jpg"):
            shutil.copy(path, place)
    posts = [Post(row["text"], [place / name for name in names(row)]) for row in rows]
    encoder = TinyEncoder()

    def encode(known):
        return encode_all(posts, encoder, tokens=True, store=known)

    def store():
        return FeatureStore(place / "store", encoder.info, True)

    first = encode(store())
    assert same(first, encode(None)) and same(first, encode(store()))
    for name in repaired:
        Image.new("RGB", (16, 16), "blue").save(place / name, "PNG")
    assert same(encode(store()), encode(None))
    for name in repaired:
        shutil.copy(folder / "note.jpg", place / name)
    assert same(encode(store()), encode(None))


def same(one, other):
    def told(encoded):
        return [(post.text, post.error, post.warnings) for post in encoded.posts + encoded.refused]

    features = (one.features, other.features)
    texts, images = ([np.asarray(getattr(x, name)) for x in features] for name in ("text", "image"))
    return (
        one.keys == other.keys
        and told(one) == told(other)
        and np.array_equal(*texts)
        and np.array_equal(*images)
    )


@given(rows_of_posts)
def test_strict_refuses_a_row_of_which_something_is_bad(folder, small_model, rows):
    path = write(folder / "strict.jsonl", rows)
    found = predict(path, small_model)[1]
    bad = [i for i, row in enumerate(found, 1) if row["error"] or row["warning"]]
    source = replace(Source(str(path)), strict=True)
    output = Path(folder / "strict-out.jsonl")
    if not bad:
        assert predict_table(source, output, small_model).used == len(rows)
        return
    numbers = "|".join(map(str, bad))  # a row is read before the pictures of those before it
    with pytest.raises(SgmftError, match=rf"strict\.jsonl, row ({numbers}): "):
        predict_table(source, output, small_model)
