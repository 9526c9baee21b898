"""Corrections of labels: those that fit are applied, and no other is, silently."""

import pytest

from sgmft.data.posts import Post
from sgmft.data.source import apply_fixes
from sgmft.errors import SgmftError, SgmftNotice, SgmftWarning

POSTS = [
    Post("sofa", id="a", label="Home"),
    Post("exam", label="Home", place="posts.csv, row 3"),
    Post("desk", id="c", label="School"),
    Post("boss", id="twice", label="Work"),
    Post("boss", id="twice", label="Work"),
]
HEADER = "id,label,new_label\n"


def written(tmp_path, rows, header=HEADER):
    path = tmp_path / "fixes.csv"
    path.write_text("\ufeff" + header + rows, "utf-8")
    return str(path)


def test_labels_are_changed_and_posts_left_out(tmp_path):
    path = written(tmp_path, 'a,Home,"会议, ""Work"""\n"posts.csv, row 3",Home,\nc,School,School\n')
    with pytest.warns(SgmftNotice, match="2 labels changed, 1 posts left out"):
        found = apply_fixes(POSTS, path)
    assert [(x.text, x.label) for x in found[:2]] == [("sofa", '会议, "Work"'), ("desk", "School")]
    assert found[2:] == POSTS[3:] and apply_fixes(POSTS, None) == POSTS


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("z,Home,Work", "row 3: no post has id z"),
        ("a,School,Work", "row 3: the label of a is 'Home', not 'School'"),
        ("twice,Work,", "row 3: several posts have id twice"),
        ("c,School,Work", "row 3: another row has another label for c"),
    ],
)
def test_a_fix_that_does_not_fit_is_reported_and_not_applied(tmp_path, row, reason):
    path = written(tmp_path, f"c,School,Home\n{row}\n")
    with pytest.warns(
        SgmftWarning, match=f"1 labels changed, 0 posts left out; 1 fixes .*: {reason}"
    ):
        found = apply_fixes(POSTS, path)
    assert [x.label for x in found] == ["Home", "Home", "Home", "Work", "Work"]
    with pytest.raises(SgmftError, match=reason):
        apply_fixes(POSTS, path, strict=True)


@pytest.mark.parametrize(
    ("name", "known", "changed"),
    [
        ("272.0", "272", True),
        ("272,00", "272", True),
        ("272", "00272", True),
        ("272", "272.0", True),
        ("00272.0", "272.0", True),
        ("272.0", "272.0", False),
    ],
)
def test_an_id_that_a_spreadsheet_program_changed_is_known(tmp_path, name, known, changed):
    posts = [*POSTS, Post("x", id=known, label="Home"), Post("y", id="27200", label="Home")]
    with pytest.warns(SgmftNotice) as told:
        found = apply_fixes(posts, written(tmp_path, f'"{name}",Home,Work\n'), strict=True)
    assert [x.label for x in found[-2:]] == ["Work", "Home"]
    said = f"; cells are read as they were: {known} for {name}."
    assert (said in str(told[0].message)) == changed


def test_an_id_with_its_zeros_is_that_of_one_post(tmp_path):
    posts = [Post("x", id=x, label="Home") for x in ("00272", "272")]
    with pytest.warns(SgmftWarning, match="several posts have id 272, as programs shorten ids"):
        found = apply_fixes(posts, written(tmp_path, "00272,Home,Work\n272,Home,School\n"))
    assert [x.label for x in found] == ["Work", "Home"]


def test_a_label_that_a_spreadsheet_program_changed_is_known(tmp_path):
    posts = [Post("x", id=f"{i}", label=x) for i, x in enumerate(("1", "01", "2", "Home"))]
    path = written(tmp_path, "0,1,2.0\n2,2.0,01\n3,Home,1.0\n")
    with pytest.warns(SgmftWarning) as told:
        found = apply_fixes(posts, path, strict=True)
    assert [x.label for x in found] == ["2", "01", "01", "1.0"]  # 1 or 01
    assert "no post of the table has: 1.0" in str(told[0].message)
    assert "cells are read as they were: 2 for 2.0." in str(told[1].message)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("272.0", "several posts have id 272.0"),
        ("1.000", "no post has id 1.000"),  # 1 or 1000
        ("1,000", "no post has id 1,000"),
        ("2.72E+05", r"no post has id 2.72E\+05, as programs shorten ids: import ids as text"),
    ],
)
def test_an_id_that_may_be_of_several_posts_is_refused(tmp_path, name, reason):
    ids = "0272", "00272", "1", "1000", "272000", "271999"
    posts = [Post("x", id=x, label="Home") for x in ids]
    with pytest.raises(SgmftError, match=reason):
        apply_fixes(posts, written(tmp_path, f'"{name}",Home,Work\n'))


@pytest.mark.parametrize(
    ("rows", "header", "reason"),
    [
        (
            "z,Home,Work\n" * 9,
            HEADER,
            "9 fixes do not belong to these posts: .*; …. Give the fixes of",
        ),
        ("a,Home\n", "id,label\n", "row 2: the columns id, label, new_label are needed"),
        ("a,Home,Work,late\n", HEADER, "row 2: 4 cells where"),
        ('a,Home,"[""Work"", ""Home""]"\n', HEADER, "row 2: the columns .* with one text each"),
    ],
)
def test_fixes_of_another_table_are_refused(tmp_path, rows, header, reason):
    with pytest.raises(SgmftError, match=reason):
        apply_fixes(POSTS, written(tmp_path, rows, header))
