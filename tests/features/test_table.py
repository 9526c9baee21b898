"""Vectors of a table stand in for an encoder, and whatever is wrong with them is told."""

from __future__ import annotations

import csv
import math
import pickle

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from sgmft import SemanticLocator, read_posts
from sgmft.data.source import Source
from sgmft.data.tables import Columns
from sgmft.errors import SgmftError
from sgmft.features.encode import encode_all
from sgmft.features.features import PARTS
from sgmft.features.table import WIDTHS, open_features_table, vectors_info
from sgmft.jobs.encode import encode_table
from small_posts import saved_config
from small_tables import read_rows

BY_ID = Columns(image="")
LABELS = ("Home", "School", "Work")
FIRST = 1234567890123456700  # ids of nineteen digits, which a double has no room for
N = 60


@pytest.fixture(scope="module")
def made():
    """Vectors of N posts by their labels; some lack a text, some a picture, none both."""
    rng = np.random.default_rng(0)
    classes = rng.integers(0, 3, N)
    text, image = (rng.normal(size=(3, d))[classes] * 2 for d in (6, 4))
    text, image = (x + rng.normal(size=x.shape) for x in (text, image))
    text[::5], image[1::5] = math.nan, math.nan
    return classes, text.astype(np.float32), image.astype(np.float32)


@pytest.fixture(scope="module")
def folder(made, tmp_path_factory):
    """A table of posts whose pictures are nowhere, the same with texts, and one of vectors."""
    folder = tmp_path_factory.mktemp("vectors")
    for name, texts in (("posts.csv", False), ("texts.csv", True)):
        with (folder / name).open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(["id", "image", "label", *["text"] * texts])
            for i, k in enumerate(made[0]):
                words = [f"{LABELS[k]} again and again"] * texts
                writer.writerow([FIRST + i, f"nowhere/{i}.jpg", LABELS[k], *words])
    write(folder / "vectors.parquet", *made[1:])
    return folder


def lists(vectors):
    return [None if np.isnan(x).all() else x.tolist() for x in vectors]


def write(path, text, image, order=slice(None), names=("text", "image"), **metadata):
    ids = pa.array((FIRST + np.arange(N))[order].tolist())
    table = pa.table([ids, lists(text[order]), lists(image[order])], ["id", *names])
    pq.write_table(table.replace_schema_metadata(metadata), path)
    return path


@pytest.fixture(scope="module")
def model(folder):
    posts = read_posts(folder / "posts.csv", columns=BY_ID)
    locator = SemanticLocator(f"table:{folder / 'vectors.parquet'}").fit(posts)
    locator.save_pretrained(folder / "model")
    return locator


def probabilities(folder, table, posts="posts.csv", model="model"):
    found = SemanticLocator.from_pretrained(folder / model, encoder=f"table:{table}")
    return found.predict_proba(read_posts(folder / posts, columns=BY_ID))


def test_a_model_of_vectors_is_trained_judged_and_asked(run, folder, made, tmp_path):
    words = ("--features-table", "vectors.parquet", "--features", "none")
    done = run("train", "posts.csv", "-o", tmp_path / "model", *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert (
        "Features: vectors of texts (6) and pictures (4) from vectors.parquet, without n-grams"
        in done.stderr
    )
    done = run("evaluate", tmp_path / "model", "posts.csv", "-o", tmp_path, *words, cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "without n-grams of the texts" in (tmp_path / "report.html").read_text("utf-8")
    for name in ("out.csv", "out"):  # a file, and a folder of shards
        output = tmp_path / name
        done = run("predict", tmp_path / "model", "posts.csv", "-o", output, *words, cwd=folder)
        assert done.returncode == 0 and "could not" not in done.stderr, done.stderr
        rows = read_rows(output if output.is_file() else next(output.glob("part-*")))
        done = run("predict", tmp_path / "model", "posts.csv", "-o", output, *words, cwd=folder)
        assert done.returncode == 0, done.stderr  # again, or continued
        right = [row["label"] == LABELS[k] for row, k in zip(rows, made[0], strict=True)]
        assert sum(right) > 0.9 * N
        assert [str(row["id"]) for row in rows] == [str(FIRST + i) for i in range(N)]
        assert not any(row["warning"] or row["error"] for row in rows)
    others = "--features-table", write(tmp_path / "others.parquet", *made[1:])
    done = run(
        "predict", tmp_path / "model", "posts.csv", "-o", tmp_path / "out", *others, cwd=folder
    )
    assert done.returncode == 2 and "another job's result" in done.stderr


def test_a_saved_model_says_what_it_needs(run, folder, model, tmp_path):
    state = saved_config(folder / "model")["encoder"]
    assert state["name"] == "table:vectors.parquet" and str(folder) not in str(state)
    out = "-o", tmp_path / "out.html"
    for words in (
        ("predict", "model", "posts.csv", "-o", tmp_path / "out.csv"),
        ("evaluate", "model", "posts.csv", *out),
        ("explain", "model", "posts.csv", *out),
        ("export", "model", *out),
        ("serve", "model"),
    ):
        done = run(*words, cwd=folder)
        assert done.returncode == 2, done.stderr
        assert "vectors of texts (6) and pictures (4) from vectors.parquet" in done.stderr
        assert "--features-table FILE" in done.stderr
    table = f"table:{folder / 'vectors.parquet'}"
    loaded = SemanticLocator.from_pretrained(folder / "model", encoder=table)
    with pytest.raises(SgmftError, match="nothing else can be encoded"):
        loaded.explain(read_posts(folder / "texts.csv", columns=BY_ID)[0])


def test_rows_in_any_order_and_any_format_give_the_same(folder, model, made, tmp_path):
    _, text, image = made
    expected = probabilities(folder, folder / "vectors.parquet")
    shuffled = np.random.default_rng(1).permutation(N)
    tables = [
        write(tmp_path / "a.parquet", text, image, shuffled),
        write(tmp_path / "b.parquet", text, image, names=("text_embedding", "image_vector")),
    ]
    names = [f"text_{i}" for i in range(6)] + [f"image_{i}" for i in range(4)]
    columns = dict(zip(names, np.hstack([text, image]).T.astype(float), strict=True))
    numbered = {"id": [f" {FIRST + i} " for i in range(N)], **columns}
    pq.write_table(pa.table(dict(reversed(numbered.items()))), tmp_path / "c.parquet")
    fixed = pa.array(lists(text), pa.list_(pa.float64(), 6))
    large = pa.array(lists(image), pa.large_list(pa.float32()))
    ids = pa.array([str(FIRST + i) for i in range(N)]).dictionary_encode()
    words = ["a text is no vector"] * N
    table = pa.table([ids, fixed, large, words], ["id", "text_features", "image", "text"])
    pq.write_table(table, tmp_path / "d.parquet", row_group_size=7)
    with_two = pa.concat_tables([table, table.slice(3, 9)])  # the same again is no contradiction
    pq.write_table(with_two, tmp_path / "e.parquet")
    for name, kind in (("f", np.int64), ("g", "U"), ("h", "S")):
        np.savez(tmp_path / f"{name}.npz", id=np.arange(FIRST, FIRST + N).astype(kind), text=text,
                 image=image.astype(np.float64), others=np.arange(3), note="ours")  # fmt: skip
    tables += [tmp_path / f"{x}.parquet" for x in "cde"] + [tmp_path / f"{x}.npz" for x in "fgh"]
    for path in tables:
        assert np.array_equal(probabilities(folder, path), expected), path.name


def test_a_missing_vector_is_a_missing_side_and_a_missing_row_a_reason(folder, model, made):
    posts = read_posts(folder / "posts.csv", columns=BY_ID)
    lost = [posts[0].__class__(id="0"), posts[0].__class__(text="no id"), *posts]
    found = list(model.predictions(lost))
    assert [x.error for x in found[:2]] == [
        "has no vector in vectors.parquet",
        "has no id to find it by",
    ]
    sides = zip(*(~np.isnan(x[:, 0]) for x in made[1:]), strict=True)
    assert [PARTS[x.parts] for x in found[2:]] == [PARTS[t + 2 * v] for t, v in sides]
    assert not any(x.error for x in found[2:])


def test_skipped_rows_are_counted(run, folder, made, tmp_path):
    few = write(tmp_path / "few.parquet", *made[1:], order=slice(0, 50))
    done = run("train", folder / "posts.csv", "-o", tmp_path / "m", "--features-table", few)
    assert done.returncode == 0 and "10  has no vector in …" in done.stderr
    assert saved_config(tmp_path / "m")["data"]["skipped"] == {"has no vector in …": 10}
    strict = "train", folder / "posts.csv", "-o", tmp_path / "n", "--strict"
    done = run(*strict, "--features-table", few)
    assert done.returncode == 2
    assert "posts.csv, row 52: has no vector in few.parquet." in done.stderr


def test_texts_add_their_n_grams_where_there_are_any(run, folder, model, tmp_path):
    assert not model.network.uses_ngrams
    words = "--features-table", folder / "vectors.parquet", "--features", "none"
    done = run("train", folder / "texts.csv", "-o", tmp_path / "model", *words)
    assert "from vectors.parquet, with n-grams of the texts" in done.stderr
    out = "-o", tmp_path / "out.csv"
    done = run("predict", tmp_path / "model", folder / "texts.csv", *out, *words)
    assert "Some posts have no text" not in done.stderr
    done = run("predict", tmp_path / "model", folder / "posts.csv", *out, *words)
    assert done.returncode == 0 and "Some posts have no text" in done.stderr


def test_a_table_may_lack_a_side_that_the_model_knows(folder, model, made, tmp_path):
    _, text, image = made
    alone = write(tmp_path / "a.parquet", text, np.full_like(image, np.nan))
    found = probabilities(folder, alone)
    assert np.isnan(found).all(1).tolist() == np.isnan(text).all(1).tolist()
    posts = read_posts(folder / "posts.csv", columns=BY_ID)
    SemanticLocator(f"table:{alone}").fit(posts).save_pretrained(tmp_path / "model")
    with_pictures = probabilities(folder, folder / "vectors.parquet", model=tmp_path / "model")
    expected = probabilities(folder, alone, model=tmp_path / "model")
    assert np.array_equal(with_pictures, expected, equal_nan=True)  # which it never learned from
    pickled = pickle.loads(pickle.dumps(model))
    assert np.array_equal(pickled.predict_proba(posts), model.predict_proba(posts))


def test_vectors_of_another_model_are_refused(folder, made, tmp_path):
    _, text, image = made
    posts = read_posts(folder / "posts.csv", columns=BY_ID)
    one = write(tmp_path / "a.parquet", text, image, encoder="jina-clip-v2")
    SemanticLocator(f"table:{one}").fit(posts).save_pretrained(tmp_path / "model")
    assert "jina-clip-v2" in (tmp_path / "model" / "config.json").read_text("utf-8")
    where = {"model": tmp_path / "model", "folder": folder}
    probabilities(table=folder / "vectors.parquet", **where)  # whose maker is not known
    np.savez(tmp_path / "b.npz", id=FIRST + np.arange(N), text=text, encoder="siglip2")
    with pytest.raises(
        SgmftError, match=r"by siglip2 from b.npz, .* by jina-clip-v2 from a.parquet"
    ):
        probabilities(table=tmp_path / "b.npz", **where)
    wide = write(tmp_path / "c.parquet", np.hstack([text, text]), image)
    with pytest.raises(
        SgmftError, match=r"vectors of texts \(12\) .* learned from vectors of texts \(6\)"
    ):
        probabilities(table=wide, **where)


@pytest.fixture(scope="module")
def joint(folder, made, tmp_path_factory):
    """Tables with vectors of text and picture together: alone, and beside those of each."""
    target = tmp_path_factory.mktemp("joint")
    rng, (classes, text, image) = np.random.default_rng(3), made
    both = (3 * rng.normal(size=(3, 5))[classes] + rng.normal(size=(N, 5))).astype(np.float32)
    both[2::7] = math.nan
    ids = (FIRST + np.arange(N)).tolist()
    alone = {f"joint_{i}": pa.array(x, from_pandas=True) for i, x in enumerate(both.T)}
    pq.write_table(pa.table({"id": ids, **alone}), target / "alone.parquet")
    every = {"text": lists(text), "image": lists(image), "joint_embedding": lists(both)}
    pq.write_table(pa.table({"id": ids, **every}), target / "every.parquet")
    return target


def test_vectors_of_both_together_need_no_others(run, folder, made, joint, tmp_path):
    words = "--features-table", joint / "alone.parquet", "--features", "none"
    done = run("train", folder / "texts.csv", "-o", tmp_path / "model", *words)
    assert done.returncode == 0, done.stderr
    told = "Features: vectors of both together (5) from alone.parquet, with n-grams of the texts"
    assert told in done.stderr
    assert saved_config(tmp_path / "model")["data"]["skipped"] == {"has no vector in …": 9}
    found = probabilities(folder, joint / "alone.parquet", model=tmp_path / "model")
    known = ~np.isnan(found).any(1)
    assert known.sum() == N - 9 and (found.argmax(1) == made[0])[known].mean() > 0.9


def test_vectors_of_both_together_stand_beside_the_others(folder, model, made, joint, tmp_path):
    posts = read_posts(folder / "posts.csv", columns=BY_ID)
    locator = SemanticLocator(f"table:{joint / 'every.parquet'}").fit(posts)
    encoded = locator.encode(posts).features
    sides = ~np.isnan(made[1][:, 0]) & ~np.isnan(made[2][:, 0])
    there = np.arange(N) % 7 != 2
    assert encoded.batch().has_joint.tolist() == (sides & there).tolist()
    locator.save_pretrained(tmp_path / "model")
    where = {"folder": folder, "model": tmp_path / "model"}
    found = probabilities(table=joint / "every.parquet", **where)
    assert np.array_equal(found, locator.predict_proba(posts)) and locator.network.together
    less = probabilities(table=folder / "vectors.parquet", **where)
    assert np.array_equal(np.abs(less - found).max(1) > 0, sides & there)
    ignored = probabilities(folder, joint / "every.parquet")  # by a model that knows none
    assert np.array_equal(ignored, model.predict_proba(posts))
    with pytest.raises(SgmftError, match=r"both together \(5\) .* learned from .* together \(4\)"):
        state = saved_config(tmp_path / "model")["model"] | {"joint_width": 4}
        expected = vectors_info("table:a", [state[x] for x in WIDTHS], "light", "")
        open_features_table(str(joint / "every.parquet"), expected=expected)


BAD = {
    "no id": ({"text": [[1.0]]}, "needs a column id"),
    "rounded ids": ({"id": [1.5], "text": [[1.0]]}, "texts or whole numbers"),
    "an empty id": ({"id": ["a", ""], "text": [[1.0], [2.0]]}, "row 2: no id"),
    "a null id": ({"id": ["a", None], "text": [[1.0], [2.0]]}, "row 2: no id"),
    "no vectors": ({"id": ["a"], "words": [[1.0]]}, "it has id, words"),
    "texts": ({"id": ["a"], "text": ["[0.1, 0.2]"]}, "it needs lists"),
    "widths": (
        {"id": ["a", "b", "c"], "text": [None, [1.0, 2.0], [1.0]]},
        "row 3: the text vector has not 2 numbers",
    ),
    "infinite": (
        {"id": ["a", "b"], "image": [[1.0, 2.0], [1.0, math.inf]]},
        "row 2: the image vector is not finite",
    ),
    "a gap": ({"id": ["a"], "text_0": [1.0], "text_2": [1.0]}, "text_1 is not"),
    "half missing": ({"id": ["a"], "text": [[1.0, None]]}, "row 1: the text vector is not finite"),
    "too large": ({"id": ["a"], "text": [[1e300]]}, "not finite"),
    "twice": (
        {"id": ["a", "b", "a"], "text": [[1.0], [1.0], [2.0]]},
        "row 3: the id 'a' came before with another vector",
    ),
    "twice, once missing": ({"id": ["a", "a"], "text": [[1.0], None]}, "came before"),
    "two columns": ({"id": ["a"], "text": [[1.0]], "text_vector": [[2.0]]}, "leave one"),
    "lists of texts": ({"id": ["a"], "text": [["x"]]}, "cannot be used"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_wrong_with_a_table_is_told_in_a_sentence(name, tmp_path):
    columns, reason = BAD[name]
    pq.write_table(pa.table(columns), tmp_path / "bad.parquet")
    with pytest.raises(SgmftError) as told:
        open_features_table(str(tmp_path / "bad.parquet"))
    assert reason in str(told.value) and "bad.parquet" in str(told.value)
    assert "\n" not in str(told.value) and str(told.value).endswith(".")


def test_files_that_are_no_tables_are_refused(tmp_path):
    np.savez(tmp_path / "objects.npz", id=np.array(["a"], object), text=np.ones((1, 2)))
    np.savez(tmp_path / "uneven.npz", id=np.arange(3), text=np.ones((2, 2)))
    (tmp_path / "broken.npz").write_bytes((tmp_path / "uneven.npz").read_bytes()[:100])
    (tmp_path / "broken.parquet").write_bytes(b"PAR1 and nothing else")
    (tmp_path / "empty").mkdir()
    for name in ("objects.npz", "uneven.npz", "broken.npz", "broken.parquet", "empty", "gone.npz"):
        with pytest.raises(SgmftError, match=name):
            open_features_table(str(tmp_path / name))


@pytest.fixture(scope="module")
def encoded(tiny, small_posts, tmp_path_factory):
    """A folder that `sgmft encode` wrote, and the table it was made of."""
    folder = tmp_path_factory.mktemp("encoded")
    with (folder / "posts.csv").open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "image", "label"])
        for post in small_posts:
            writer.writerow([post.id, post.text, "|".join(map(str, post.images)), post.label])
    source = Source(str(folder / "posts.csv"), allow_outside=True)
    encode_table(source, tiny(features=folder / "features"))
    (folder / "ids.csv").write_text(
        "id,label\n" + "".join(f"{x.id},{x.label}\n" for x in small_posts)
    )
    return folder


@pytest.mark.parametrize("preset", ["gated-experts", "elements", "tokens"])
def test_features_that_encode_wrote_predict_as_encoding_does(
    encoded, tiny, small_posts, preset, tmp_path
):
    settings = {"epochs": 2, "width": 16, "heads": 2, "classifier_widths": (12,)}
    options = {} if preset == "gated-experts" else {"preset": preset, "settings": settings}
    direct = SemanticLocator("tiny", **options).fit(small_posts)
    bare = read_posts(encoded / "ids.csv", columns=BY_ID)  # no texts, and no pictures
    looked_up = SemanticLocator(f"table:{encoded / 'features'}", **options).fit(bare)
    expected = direct.predict_proba(small_posts)
    assert np.array_equal(looked_up.predict_proba(bare), expected)
    assert looked_up.training.data.fingerprint == direct.training.data.fingerprint
    direct.save_pretrained(tmp_path / "model")
    table = f"table:{encoded / 'features'}"
    loaded = SemanticLocator.from_pretrained(tmp_path / "model", encoder=table)
    assert np.array_equal(loaded.predict_proba(bare), expected)


def test_ids_of_encoded_posts_can_be_joined(encoded, small_posts):
    (store,) = (encoded / "features").iterdir()
    ids = pa.concat_tables(map(pq.read_table, (store / "_ids").glob("*.parquet")))
    features = pa.concat_tables(map(pq.read_table, store.glob("*.parquet")))
    assert set(ids["key"].to_pylist()) == set(features["key"].to_pylist())
    assert sorted(ids["id"].to_pylist()) == sorted(post.id for post in small_posts)


def test_one_id_for_two_posts_is_refused(tiny, small_posts, tmp_path):
    handle = tiny(features=tmp_path / "features")
    for name, text in (("a", "sofa"), ("b", "desk")):
        (tmp_path / f"{name}.csv").write_text(f"id,text\n1,{text}\n")
        encode_table(Source(str(tmp_path / f"{name}.csv")), handle)
    with pytest.raises(SgmftError, match="two posts with the id '1'"):
        open_features_table(str(tmp_path / "features"))


def test_features_of_posts_without_ids_cannot_be_looked_up(tiny, tmp_path):
    (tmp_path / "posts.csv").write_text("text\nsofa\n")
    encode_table(Source(str(tmp_path / "posts.csv")), tiny(features=tmp_path / "features"))
    with pytest.raises(SgmftError, match="holds no ids: encode a table with a column id"):
        open_features_table(str(tmp_path / "features"))


def test_a_comparison_leaves_out_what_needs_words(run, folder, tmp_path):
    words = "--features-table", folder / "vectors.parquet", "--seeds", 1, "--trials", 1
    words += "--workers", 1, "--epochs", 1, "--tables", "1"
    methods = "--methods", "linear-probe,mplug,gated-experts"
    done = run("compare", folder / "posts.csv", "-o", tmp_path / "report", *words, *methods)
    assert done.returncode == 0, done.stderr
    report = (tmp_path / "report" / "report.md").read_text("utf-8")
    assert "Linear probe" in report and "| mPLUG" not in report and "mplug" in done.stderr


cells = st.one_of(
    st.none(),
    st.lists(st.sampled_from([0.0, -1.5, 1e30, 3.4e39, math.nan, math.inf]), max_size=3),
)


@given(rows=st.lists(st.tuples(st.sampled_from(["p1", " p1", "p2", "", None]), *[cells] * 3)))
def test_any_rows_are_read_or_refused_in_a_sentence(rows, tmp_path):
    path = tmp_path / "rows.parquet"
    kinds = {"id": pa.string(), **dict.fromkeys(("text", "image", "joint"), pa.list_(pa.float64()))}
    columns = [list(x) for x in zip(*rows, strict=True)] or [[]] * 4
    arrays = [pa.array(x, kind) for x, kind in zip(columns, kinds.values(), strict=True)]
    pq.write_table(pa.table(arrays, list(kinds)), path)
    (tmp_path / "posts.csv").write_text("id\np1\np2\np3\n")
    posts = read_posts(tmp_path / "posts.csv", columns=BY_ID)
    open_features_table.__globals__["_lay_out"].cache_clear()  # files of one time stamp
    try:
        table = open_features_table(str(path))
    except SgmftError as error:
        assert str(error).count("\n") == 0 and "rows.parquet" in str(error)
        return
    found = encode_all(posts, table)
    assert len(found.posts) + len(found.refused) == 3 and found.refused[-1].id == "p3"
    batch = found.features.batch()
    assert all(
        np.isfinite(x).all() for x in (batch.text, batch.image, batch.joint) if x is not None
    )
