"""What is doubtful in a table: said, counted, and no reason to refuse a row."""

import json
import warnings
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, strategies as st

from sgmft.data.posts import Post, require_known, require_label
from sgmft.data.source import JobSummary, Source, warn_about_odd_labels
from sgmft.data.tables import Columns, iter_posts, read_posts
from sgmft.errors import Message, SgmftError, SgmftWarning, join_messages, make_printable


def write(path: Path, *rows: object) -> Path:
    """Write rows as CSV lines or JSON lines, by the suffix."""
    lines = [row if isinstance(row, str) else json.dumps(row) for row in rows]
    path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("key", "rounded"),
    [
        ("5.01235E+15", True),
        ("5e+18", True),
        ("501234567890123000", True),
        ("5012345678901230", False),  # one in ten ends so
        ("501234567890123456", False),
        ("1000", False),
        ("1E5", False),
        ("page 5.0E+15", False),
    ],
)
def test_rounded_ids(tmp_path, key, rounded):
    (post,) = read_posts(write(tmp_path / "p.csv", "id,text", f"{key},a"))
    assert post.error is None and post.id == key
    assert [x.template[:27] for x in post.warnings] == ["the id {id!r} was rounded; "] * rounded


def test_ids_that_were_rounded_to_one(tmp_path):
    rows = ["5012345678901230,a", "5012345678901230,b"]
    first, second = read_posts(write(tmp_path / "p.csv", "id,text", *rows))
    assert first.warnings == ()
    assert [x.kind[:21] for x in second.warnings] == [
        "the id … is already t",
        "the id … was rounded;",
    ]


def test_one_post_twice_is_told_from_two_posts_of_one_id(tmp_path):
    rows = ["1,a,Home", "2,b,Home", "1,a, Home", "1,c,Home"]
    posts = read_posts(write(tmp_path / "p.csv", "id,text,label", *rows))
    assert [post.warnings for post in posts[2:]] == [
        ("is the post of row 2 again",),
        ("the id '1' is already that of row 2",),
    ]
    assert all(post.error is None and post.label == "Home" for post in posts)
    needed = [require_label(post) for post in posts]
    assert [post.error for post in needed] == [None, None, "is the post of row 2 again", None]
    with pytest.raises(SgmftError, match=r"p\.csv, row 4: is the post of row 2 again"):
        list(iter_posts(tmp_path / "p.csv", strict=True))


def test_the_same_posts_in_two_tables_of_a_folder(tmp_path):
    rows = [{"id": "1", "text": "a"}, {"id": "2", "text": "b"}]
    write(tmp_path / "a.csv", "id,text", "1,a", "2,b")
    write(tmp_path / "b.jsonl", *rows)
    with pytest.warns(SgmftWarning, match=r"2 posts of b\.jsonl are in a\.csv as well"):
        posts = read_posts(tmp_path)
    assert [post.warnings for post in posts[2:]] == [
        ("is the post of row 2 of a.csv again",),
        ("is the post of row 3 of a.csv again",),
    ]
    write(tmp_path / "b.jsonl", {"id": "1", "text": "another"}, {"id": "1", "text": "third"})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        *_, other, third = read_posts(tmp_path)
    assert other.warnings == () and third.warnings == ("the id '1' is already that of row 1",)


def test_same_posts_without_ids_in_another_order(tmp_path):
    write(tmp_path / "a.csv", "text", "a", "b", "b")
    write(tmp_path / "b.csv", "text", "b", "a", "b")
    write(tmp_path / "c.csv", "text", "a", "a", "b")
    with pytest.warns(SgmftWarning) as said:
        assert not any(post.warnings for post in read_posts(tmp_path))
    (sentence,) = (str(x.message) for x in said)
    assert "3 posts of b.csv are in a.csv as well, so that they are read twice" in sentence


@pytest.mark.parametrize("again", ["id,text", " id , text ", "\ufeffid,text"])
def test_headers_in_the_middle_are_left_out(tmp_path, again):
    path = write(tmp_path / "p.csv", "id,text", "1,a", again, "2,text", again)
    with pytest.warns(SgmftWarning, match=r"p\.csv: rows that repeat.*: 2, .* row 3\.") as said:
        posts = read_posts(path)
    assert [(post.id, post.text) for post in posts] == [("1", "a"), ("2", "text")]
    assert len(said) == 1


@pytest.mark.parametrize(
    "rows",
    [
        ["id,text,label", "1,a,x", "text,label,id", "b,y,2"],
        ["id,text,label,time", "1,a,x,7", "id,text,label", "2,b,y"],
        ["id,text,label", "1,a,x", "id,time,text,label", "2,7,b,y"],
        ["id,text,label", "1,a,x", "ID,Content,Label", "2,b,y"],
        ["编号,内容,标签", "1,a,x", "post_id,text,category", "2,b,y"],
    ],
)
def test_rows_below_another_header_are_read_by_it(tmp_path, rows):
    path = write(tmp_path / "p.csv", *rows, *rows[:2], rows[3])
    with pytest.warns(SgmftWarning, match=r"p\.csv: .*header.* first row 3\."):
        one, two, again, bad = read_posts(path)
    for post, found in ((one, ("1", "a", "x")), (two, ("2", "b", "y")), (again, ("1", "a", "x"))):
        assert (post.id, post.text, post.label, post.error) == (*found, None)
    assert (bad.error is not None) == (rows[3].count(",") > rows[0].count(","))


@pytest.mark.parametrize("row", ["text,x", "a,text", "text,text", "0,1"])
def test_posts_that_hold_a_name_of_a_column_are_no_headers(tmp_path, row):
    path = write(tmp_path / "p.csv", "text,label,0,1", f"{row},1,0", "a,b")
    assert [post.text for post in read_posts(path)] == [row.split(",")[0], "a"]


def test_cells_that_a_command_does_not_need(tmp_path):
    row = {"text": "a", "id": {"oid": "6"}, "user": {"age": 7}, "label": ["x", "y"]}
    (post,) = read_posts(write(tmp_path / "p.jsonl", row))
    assert (post.error, post.id, post.user, post.label) == (None, None, None, None)
    assert post.row == row and [x.template for x in post.warnings] == [
        f"{role}: {{reason}}" for role in ("id", "label", "user")
    ]
    assert require_label(post).error == "label: several labels (x, y) where one is needed"
    unlabelled = Post("a")
    assert require_label(unlabelled).error is None
    assert require_label(unlabelled, "no label").error == "no label"


def test_a_text_that_is_none_leaves_the_pictures(tmp_path):
    used, bad = read_posts(
        write(tmp_path / "p.jsonl", {"text": ["a"], "image": "b.jpg"}, {"text": ["a"]})
    )
    assert used.error is None and used.warnings == (bad.error,)
    assert bad.error == "text: a list where one value is needed"


def test_labels_that_look_alike():
    with pytest.warns(
        SgmftWarning,
        match=r"alone .*: 'Home' and 'home'; 'A B' and 'ＡＢ' and 'a_b'; '学校' and '學校'\.",
    ) as said:
        labels = ["Home", "home", "Work", "A B", "ＡＢ", "a_b", "Home", "学校", "學校"]
        warn_about_odd_labels(labels)
    assert len(said) == 1
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_about_odd_labels(["Home", "Work", "Home", "1", "-1", "1.5", "15"])


def test_labels_that_predict_wrote_are_told(tmp_path):
    path = write(
        tmp_path / "p.csv", "text,input_label,label,probability,error,warning", "a,b,c,1,,"
    )
    with pytest.warns(SgmftWarning, match="the column label is what a model predicted"):
        assert [post.label for post in Source(str(path)).read_labelled()] == ["c"]
    with warnings.catch_warnings(action="error"):
        named = Source(str(path), Columns(label="input_label"))
        assert [post.label for post in named.read_labelled()] == ["b"]


def test_labels_beside_the_column_of_suggestions_are_told(tmp_path):
    path = write(tmp_path / "p.csv", "text,suggested_rank,label,mine", "a,1,,Home", "b,2,,Work")
    with pytest.raises(SgmftError, match=r"has no label in any row: .* --column label=mine\."):
        Source(str(path)).read_labelled(least=2)


# --- kinds of reasons


def test_kinds_are_those_of_templates():
    missing = [Message("there is no file {name}", name=x) for x in ("a b.jpg", "'c'.png", "7")]
    assert {x.kind for x in missing} == {"there is no file …"}
    assert join_messages(missing).kind == "there is no file …"
    number = Message("{name} has {count:,} pixels", name="a.png", count=7)
    assert join_messages([number, missing[0], number]).kind == "… has … pixels; there is no file …"
    assert make_printable(Message("no {name}", name="a\nb")).kind == "no …"
    assert make_printable(Message("no {name}", name="a\nb")) == "no a?b"
    assert Message("label: {reason}", reason=missing[0]).kind == "label: there is no file …"
    assert Message("{id!r} is there", id="x").kind == "… is there"


reasons = st.sampled_from([Message("no {x}", x=1), Message("no {x}", x=2), "plain", "bad 'a'"])
posts = st.builds(
    Post,
    error=st.none() | reasons,
    warnings=st.lists(reasons, max_size=3).map(tuple),
    place=st.sampled_from(["t, row 1", "t, row 2"]),
)


@given(st.lists(posts), st.lists(posts))
def test_summaries_add_up(one, two):
    whole = JobSummary.of([*one, *two])
    parts = JobSummary.of(one) + JobSummary.of(two)
    assert whole == parts
    assert whole.used == sum(post.error is None for post in [*one, *two])
    for count in whole.warnings.values():
        assert 0 < count <= whole.used
    assert whole.examples.keys() == whole.errors.keys() | whole.warnings.keys()


@pytest.mark.parametrize(
    ("cell", "left"),
    [
        (["a.jpg", 7, "b.jpg"], ["a.jpg", "b.jpg"]),
        ([["x"], {"x": 1}, "b.jpg"], ["b.jpg"]),
        ("a.jpg|data:image/png;base64,!!|b.jpg", ["a.jpg", "b.jpg"]),
        (["../a.jpg", "b.jpg", "http://x.cn/a.jpg"], ["b.jpg"]),
    ],
)
def test_one_bad_name_costs_the_others_nothing(tmp_path, cell, left):
    (post,) = read_posts(write(tmp_path / "p.jsonl", {"image": cell}))
    assert post.error is None and [x.name for x in post.images] == left
    parts = cell if isinstance(cell, list) else cell.split("|")
    assert len(post.warnings) == len(parts) - len(left)


def test_labels_that_seem_to_be_none_or_several_are_told():
    with pytest.warns(SgmftWarning, match="'-' is learned as a label like any other") as said:
        warn_about_odd_labels(["Home", "-", "School;Home", "+1"])
    assert "'School;Home', which joins labels" in str(said[1].message) and len(said) == 2


def test_rows_that_are_cut_off_are_counted(tmp_path):
    path = write(
        tmp_path / "p.csv", "id,text,image,label", "1,a,,Home", "2,b", "", "3,c,,Work", "4"
    )
    with pytest.warns(SgmftWarning, match=r"p\.csv: 2 rows have fewer cells .* in row 3"):
        posts = list(read_posts(path))
    assert [post.text for post in posts] == ["a", "b", "c", ""]


def test_a_key_that_comes_twice_loses_nothing(tmp_path):
    path = tmp_path / "p.jsonl"
    path.write_text('{"text": "a", "text": "b", "label": "Home"}\n', "utf-8")
    with pytest.warns(SgmftWarning, match="with the name of an earlier one are read as text 2"):
        (post,) = read_posts(path)
    assert post.row == {"text": "a", "text 2": "b", "label": "Home"} and post.text == "a"


def test_a_label_in_another_spelling_is_the_models():
    composed, apart, true = "Caf\u00e9", "Cafe\u0301", Post("a", label="TRUE")
    found = require_known(Post("a", label=composed), [apart, "Home"])
    assert found.label == apart and "is read as" in found.warnings[0]
    assert require_known(true, ["true", "false"]).label == "true"
    assert require_known(Post("a", label="home"), ["Home"]).error is not None
    assert require_known(true, ["True", "true"]).error is not None  # either


def test_a_row_group_that_unpacks_to_far_more_is_refused(tmp_path):
    path = tmp_path / "p.parquet"
    table = pa.table({"text": ["a" * (80 * 2**20)]})
    pq.write_table(table, path, compression="zstd", use_dictionary=False)
    with pytest.raises(SgmftError, match=r"p\.parquet has a row group that unpacks to 80 MiB"):
        list(read_posts(path))
