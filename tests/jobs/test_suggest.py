"""Which posts are suggested for labelling: worth, order, duplicates, labels that are there."""

import json
import shutil
from contextlib import nullcontext
from dataclasses import replace
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from sgmft import Post, SemanticLocator, read_posts
from sgmft.data.source import Source
from sgmft.data.tables import Columns
from sgmft.errors import SgmftError, SgmftWarning
from sgmft.features.features import Features
from sgmft.jobs.suggest import (
    choose_posts,
    labelled_source,
    margin_uncertainty,
    suggest_posts,
    suggest_table,
)
from small_tables import read_rows, write_rows


def made(N=40, seed=0, clusters=4, spread=0.3):
    rng = np.random.default_rng(seed)
    centre = np.repeat(rng.normal(size=(clusters, 14)), N // clusters, 0)
    x = (centre + spread * rng.normal(size=(N, 14))).astype(np.float32)
    has = np.ones(N, bool)
    return Features(x[:, :8], x[:, 8:], has, has.copy())


def slow_worth(features, chosen, weights, covered=()):
    """The objective in a loop over pairs, in float64."""
    rows = []
    for side in (features.text.astype(float), features.image.astype(float)):
        side = (side - side.mean(0)) / side.std(0, ddof=1)
        rows.append(side / np.linalg.norm(side, axis=1, keepdims=True))
    total = 0.0
    for j in range(len(features)):
        best = 0.0
        for i in (*chosen, *covered):
            cosine = sum(float(side[i] @ side[j]) for side in rows) / 2
            best = max(best, max(cosine, 0.0) ** 2)
        total += weights[j] * best * (j not in covered)
    return total


@pytest.mark.parametrize("covered", [(), (3, 17)])
def test_each_choice_is_the_best_there_is(covered):
    features, weights = made(), np.random.default_rng(1).uniform(size=40).astype(np.float32)
    chosen = choose_posts(features, 5, uncertainty=weights, covered=covered, near=2.0)
    for n, i in enumerate(chosen):
        worth = [slow_worth(features, [*chosen[:n], j], weights, covered) for j in range(40)]
        open_posts = [j for j in range(40) if j not in (*chosen[:n], *covered)]
        assert worth[i] == pytest.approx(max(worth[j] for j in open_posts), rel=1e-5)


def test_every_cluster_gets_a_post_before_any_gets_two():
    chosen = choose_posts(made(), 4)
    assert sorted(i // 10 for i in chosen) == [0, 1, 2, 3]
    after = choose_posts(made(), 2, covered=[0, 1, 10])
    assert sorted(i // 10 for i in after) == [2, 3]


def test_uncertain_posts_come_first():
    doubts = np.full(40, 0.01, np.float32)
    doubts[10:20] = 1.0
    assert choose_posts(made(), 1, uncertainty=doubts)[0] // 10 == 1


def test_near_duplicates_are_suggested_once():
    features = made()
    again = features.take(np.arange(80) % 40)
    again.text[40:] += 0.001
    chosen = choose_posts(again, 80)
    assert len({i % 40 for i in chosen}) == len(chosen) <= 40
    assert not set(choose_posts(again, 80, covered=range(40)))


def test_of_many_posts_some_are_looked_at(monkeypatch):
    monkeypatch.setattr("sgmft.jobs.suggest.POOL", 20)
    features = made()
    first = choose_posts(features, 30, near=2.0, seed=1)
    assert len(first) == 20 and first == choose_posts(features, 30, near=2.0, seed=1)
    assert set(first) != set(choose_posts(features, 30, near=2.0, seed=2))


def test_missing_modalities_and_few_posts():
    features, kinds = made(), np.arange(40) % 3
    dirty = Features(features.text, features.image.copy(), kinds != 0, kinds != 1)
    dirty.image[kinds == 1] = float("nan")
    assert len(set(choose_posts(dirty, 10))) == 10
    assert choose_posts(features.take(np.array([5])), 3) == [0]
    assert choose_posts(features.take(np.arange(0)), 3) == []
    with pytest.raises(SgmftError, match="At least 1 post"):
        choose_posts(features, 0)


def test_uncertainty_is_one_less_the_margin():
    probs = np.array([[0.5, 0.5, 0], [1, 0, 0], [0.2, 0.7, 0.1]], np.float32)
    np.testing.assert_allclose(margin_uncertainty(probs), [1, 0, 0.5], atol=1e-6)


@pytest.fixture
def unlabelled(small_posts):
    return [
        Post(p.text, p.images, id=p.id, user=p.user, place=f"t, row {p.id}") for p in small_posts
    ]


def test_posts_with_a_label_and_bad_posts_are_left_out(small_posts, unlabelled, small_model):
    bad = [Post("", images="nowhere.jpg"), Post("x", error="broken")]
    posts = [*small_posts[:10], *unlabelled[:20], *bad]
    found, read = suggest_posts(posts, small_model, 50)
    assert {one.post.id for one in found} <= {p.id for p in unlabelled[10:20]}
    assert found and len(read) == 32 and sum(post.error is not None for post in read) == 2
    for one in found:
        probs = np.sort(small_model.predict_proba([one.post])[0])
        assert one.uncertainty == pytest.approx(1 - probs[-1] + probs[-2], abs=1e-5)
        assert one.prediction.label == small_model.predict([one.post])[0]
    elsewhere, _ = suggest_posts([*unlabelled[:20], *small_posts[:10]], small_model, 50)
    assert [one.post.id for one in elsewhere] == [one.post.id for one in found]
    with pytest.raises(SgmftError, match="nowhere"):
        suggest_posts(posts, small_model, 5, strict=True)


def test_without_a_model_there_is_no_uncertainty(tiny, unlabelled):
    found, _ = suggest_posts([*unlabelled, *unlabelled], SemanticLocator("tiny"), 36)
    ids = [one.post.id for one in found]
    assert len(ids) == len(set(ids)) > 20  # the same post twice is one
    assert all(one.uncertainty is None and one.prediction is None for one in found)


@pytest.fixture
def posts_table(small_posts, tmp_path):
    """A table beside its pictures, one with a name that must be quoted; the last row is bad."""
    folder = tmp_path / "posts"
    (folder / "图 片").mkdir(parents=True)
    rows = []
    for post in small_posts:
        images = [f"图 片/{image.name}" for image in post.images]
        for image in post.images:
            shutil.copy(image, folder / "图 片" / image.name)
        rows.append({"id": post.id, "text": post.text, "image": "|".join(images), "城市": "北京"})
    rows.append({"id": "bad", "text": "", "image": "gone.jpg", "城市": ""})
    return write_rows(rows, folder / "posts.csv")


def annotated(tasks, folder, labels):
    """What Label Studio exports once an annotator is through."""
    fixed = {"from_name": "label", "to_name": "text", "type": "choices"}
    items = []
    for i, task in enumerate(tasks):
        result = fixed | {"value": {"choices": [labels[task["data"]["id"]]]}}
        annotation = {"was_cancelled": False, "result": [result]}
        items.append({"id": 100 + i, "data": task["data"], "predictions": []})
        items[-1]["annotations"] = [annotation]
    (folder / "export.json").write_text(json.dumps(items), "utf-8")
    return folder / "export.json"


@pytest.mark.parametrize("several", [False, True])
def test_tasks_come_back_as_labelled_posts(
    small_posts, small_model, posts_table, tmp_path, several
):
    if several:
        table = read_rows(posts_table)
        shutil.copy(small_posts[0].images[0], posts_table.parent / "b.png")
        table[4]["image"] += "|b.png"
        posts_table = write_rows(table, posts_table.with_suffix(".jsonl"))
    output, places = tmp_path / "new" / "tasks.json", ["Cinema", "Home & <garden>"]
    roundabout = posts_table.parent / ".." / posts_table.parent.name / posts_table.name
    with pytest.warns(SgmftWarning, match=r"like b\.png: move") if several else nullcontext():
        found = suggest_table(Source(str(roundabout)), output, small_model, 30, labels=places)
    assert found.folder == posts_table.parent  # Label Studio takes no ".."
    assert found.summary.errors == {"there is no file …": 1} and found.summary.posts == 37
    assert found.summary.examples == {
        "there is no file …": f"{posts_table.name}, row {38 - several}: there is no file gone.jpg",
    }
    tasks = json.loads(output.read_text("utf-8"))
    assert len(tasks) == found.posts <= 30
    view = ElementTree.parse(found.config).getroot()
    assert [one.get("value") for one in view.iter("Choice")] == [*places, "Home", "School", "Work"]
    (choices,), (image,) = view.iter("Choices"), view.iter("Image")
    assert image.get("valueList" if several else "value") == "$image"
    names = {one.get("name") for one in view}
    for task in tasks:
        assert {"text", "image", "id", "row"} <= task["data"].keys()
        image = task["data"]["image"]  # Label Studio opens no task with an empty list
        assert image == "" or (image and isinstance(image, list if several else str))
        (guess,) = task["predictions"]
        (result,) = guess["result"]
        assert result["from_name"] == choices.get("name") and result["to_name"] in names
        assert 0 < guess["score"] <= 1 and guess["model_version"].startswith("sgmft")
    before = {post.id: post for post in read_posts(posts_table)}
    labels = {post.id: post.label for post in small_posts}
    back = read_posts(annotated(tasks, posts_table.parent, labels))
    assert len(back) == len(tasks)
    for post in back:
        assert post.error is None and post.label == labels[post.id]
        assert (post.text, post.images) == (before[post.id].text, before[post.id].images)
        assert all(path.is_file() for path in post.images)
    done = [Source(str(posts_table.parent / "export.json"))]
    source, output = Source(str(posts_table)), tmp_path / "more.jsonl"
    again = suggest_table(source, output, small_model, 30, labelled=done)
    more = {row["id"] for row in read_rows(output)}
    assert again.labelled == len(back) and not more & {post.id for post in back}


def test_a_table_to_fill_in(small_model, posts_table, tmp_path):
    output = tmp_path / "suggestions.csv"
    suggest_table(Source(str(posts_table)), output, small_model, 5)
    rows = read_rows(output)
    columns = ["id", "text", "image", "城市", "suggested_rank", "uncertainty", "label"]
    assert list(rows[0]) == columns and [row["suggested_rank"] for row in rows] == list("12345")
    assert all(0 <= float(row["uncertainty"]) <= 1 and row["label"] is None for row in rows)
    filled = write_rows(
        [row | {"label": "Home"} for row in rows], posts_table.parent / "filled.csv"
    )
    assert [post.label for post in read_posts(filled)] == ["Home"] * 5


@pytest.mark.parametrize("name", ["filled.csv", "export.json"])
def test_labels_that_were_filled_in_are_not_replaced(small_model, posts_table, tmp_path, name):
    table, output = Source(str(posts_table)), tmp_path / name
    suggest_table(table, output, small_model, 5)
    suggest_table(table, output, small_model, 4)  # as long as nobody has worked on them
    if name.endswith(".csv"):
        rows = read_rows(output)
        rows[2]["label"] = "Home"
        write_rows(rows, output)
    else:
        tasks = json.loads(output.read_text("utf-8"))
        annotated(tasks, tmp_path, {task["data"]["id"]: "Home" for task in tasks})
    before = output.read_bytes()
    with pytest.raises(SgmftError, match=r"holds labels already, which would be lost: .* another"):
        suggest_table(table, output, small_model, 5)
    other = Source(str(write_rows([{"text": "sofa"}], tmp_path / "other.csv")))
    for source, labelled in ((table, []), (other, [table])):
        with pytest.raises(SgmftError, match="is the table that is read"):
            suggest_table(source, posts_table, small_model, 5, labelled=labelled)
    assert output.read_bytes() == before


def test_labelled_tables_are_read_like_the_posts(tmp_path):
    own = Source("posts.csv", Columns(text="words", label="place"), {"split": "train"}, True, True)
    alike = write_rows([{"words": "sofa", "place": "Home"}], tmp_path / "mine.csv")
    assert labelled_source(str(alike), own) == Source(str(alike), own.columns, {}, True, True)
    back = write_rows([{"text": "sofa", "place": "Home"}], tmp_path / "back.csv")
    assert labelled_source(str(back), own).columns == Columns(label="place")
    assert labelled_source("-", own).columns == Columns()  # a stream is read once
    (post,) = labelled_source(str(back), own).read_posts()
    assert (post.text, post.label) == ("sofa", "Home")


def test_a_label_column_of_its_own_is_kept(small_model, tmp_path):
    rows = [{"text": "sofa bed", "label": "Home"}, {"text": "boss desk", "label": ""}]
    rows = [row | {"uncertainty": "x"} for row in rows]
    table, output = write_rows(rows, tmp_path / "p.jsonl"), tmp_path / "out.jsonl"
    suggest_table(Source(str(table)), output, small_model, 5)
    (row,) = read_rows(output)
    assert list(row) == ["text", "label", "input_uncertainty", "suggested_rank", "uncertainty"]
    assert row["text"] == "boss desk" and row["label"] == "" and row["input_uncertainty"] == "x"


def test_what_cannot_be_suggested(tiny, small_model, tmp_path):
    cold, output = SemanticLocator("tiny"), tmp_path / "tasks.json"
    table = write_rows([{"text": "sofa bed", "place": "Home"}], tmp_path / "p.jsonl")
    with pytest.raises(SgmftError, match="Label Studio needs labels"):
        suggest_table(Source(str(table)), output, cold, 5)
    named = Source(str(table), Columns(label="place"))
    with pytest.raises(SgmftError, match="no post to suggest"):
        suggest_table(named, output, cold, 5)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    outside = [{"text": "", "image": str(tmp_path / "a.png")}]
    table = write_rows(outside, tmp_path / "in" / "p.jsonl")
    source = Source(str(table), allow_outside=True)
    with pytest.raises(SgmftError, match=r"row 1: Label Studio cannot be shown .* lies outside"):
        suggest_table(source, output, cold, 5, labels=["Home"])
    assert not output.exists()
    suggest_table(source, tmp_path / "s.csv", cold, 5)
    assert len(read_rows(tmp_path / "s.csv")) == 1


def test_posts_where_a_column_and_the_model_differ_come_first(small_posts, small_model, tmp_path):
    wrong = {"p1": "Work", "p5": "Home", "p9": "School"}  # of a language model, say
    rows = [
        {"id": p.id, "text": p.text, "gpt": wrong.get(p.id, p.label) if p.id != "p2" else ""}
        for p in small_posts
        if p.text
    ]
    table, output = write_rows(rows, tmp_path / "p.csv"), tmp_path / "out.jsonl"
    source = Source(str(table), Columns(label="gpt"))
    found = suggest_table(source, output, small_model, 3, disagree="gpt")
    chosen = read_rows(output)
    assert {row["id"] for row in chosen} == wrong.keys() and found.labelled == 0
    for row in chosen:
        probs = small_model.predict_proba([row["text"]])[0]
        assert row["model_label"] == small_model.labels[probs.argmax()]
        own = dict(zip(small_model.labels, probs, strict=True))[row["gpt"]]
        assert row["uncertainty"] == pytest.approx(1 - own, abs=1e-5)
    every = suggest_table(source, output, small_model, 99, disagree="gpt")
    assert every.posts >= 3  # and no post of which the model says the same
    for row in read_rows(output):
        assert row["model_label"] != row["gpt"] and row["id"] != "p2"
    rows.append({"id": "again", "text": rows[0]["text"], "gpt": "Cinema"})
    write_rows([rows[0] | {"gpt": small_model.predict([rows[0]["text"]])[0]}, *rows[1:]], table)
    suggest_table(source, output, small_model, 99, disagree="gpt")
    assert "again" in {row["id"] for row in read_rows(output)}  # of the same content as another


def test_what_a_model_was_taught_is_said(posts_table, tmp_path, tiny):
    posts = [
        replace(p, label="Home" if i % 2 else "Work") for i, p in enumerate(read_posts(posts_table))
    ]
    model = SemanticLocator("tiny", method="linear-probe").fit(posts)
    rows = [{"id": p.id, "text": p.text, "gpt": "Cinema"} for p in posts if p.text]
    table, output = write_rows(rows, tmp_path / "p.csv"), tmp_path / "out.jsonl"
    with pytest.warns(SgmftWarning, match="was trained with .* says again what it was taught"):
        suggest_table(Source(str(table)), output, model, 3, disagree="gpt")
    rows = [row | {"gpt": model.predict([row["text"]])[0]} for row in rows]
    write_rows(rows, table)
    with pytest.raises(SgmftError, match="no post without a label has one there that the model"):
        suggest_table(Source(str(table)), output, model, 3, disagree="gpt")


def test_labels_in_another_case_and_those_a_model_does_not_know(small_posts, small_model, tmp_path):
    rows = [
        {"id": p.id, "text": p.text, "gpt": str(p.label).upper() if p.id != "p1" else "Beach"}
        for p in small_posts
        if p.text
    ]
    table, output = write_rows(rows, tmp_path / "p.csv"), tmp_path / "out.jsonl"
    with pytest.warns(
        SgmftWarning, match=r"not learned these labels of the column gpt.*\['Beach'\]"
    ):
        suggest_table(Source(str(table)), output, small_model, 3, disagree="gpt")
    found = {row["id"]: row["uncertainty"] for row in read_rows(output)}
    assert found.pop("p1") == 1 and not found  # the model says the same of the others


def test_what_disagree_refuses(small_posts, small_model, posts_table, tmp_path):
    source, output = Source(str(posts_table)), tmp_path / "out.csv"
    with pytest.raises(SgmftError, match="--disagree: the posts have no column 'gpt'"):
        suggest_table(source, output, small_model, 3, disagree="gpt")
    with pytest.raises(SgmftError, match="name it with --model"):
        suggest_table(source, output, SemanticLocator("tiny"), 3, disagree="城市")
