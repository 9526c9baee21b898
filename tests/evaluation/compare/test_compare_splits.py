"""How a comparison divides posts: by chance, a column, or a file that others can use as well."""

from dataclasses import replace

import pytest

from sgmft.data.posts import Post
from sgmft.data.splits import fold_posts, split_posts
from sgmft.errors import SgmftError
from sgmft.evaluation.compare.prepare import Division, Split, divide, write_splits

POSTS = [Post(label="ab"[i % 2], id=f"p{i}", place=f"t.csv, row {i + 2}") for i in range(40)]
USERS = [replace(post, user=f"u{i % 8}") for i, post in enumerate(POSTS)]
ROLES = ["test"] * 3 + ["validation"] + ["train"] * 36
DIVISIONS = [Division("x", ROLES), Division("y", ROLES[::-1])]


def sets_of(divisions):
    return [division.where("test") for division in divisions]


def places(posts):
    return [(post.place, post.id or "") for post in posts]


def test_by_default_a_fifth_is_tested_and_a_tenth_of_the_rest_held_out():
    [division] = divide(POSTS, Split())
    train, test = split_posts(POSTS, 0.2)
    assert sets_of([division]) == [test]
    held_out = split_posts([POSTS[i] for i in train], 0.1)[1]
    assert division.where("validation") == [train[i] for i in held_out]
    assert [*map(len, sets_of(divide(POSTS, Split(size=0.5))))] == [20]


@pytest.mark.parametrize("posts", [POSTS, USERS])
def test_folds_and_repeats_have_seeds_of_their_own(posts):
    by = "label" if posts is POSTS else "user"
    found = divide(posts, Split(folds=4, repeats=2, seed=5))
    assert sets_of(found) == fold_posts(posts, 4, 5, by) + fold_posts(posts, 4, 6, by)
    assert [x.name for x in found] == [str(n) for n in range(1, 9)]
    for x in found:
        train, held_out, test = map(x.where, ("train", "validation", "test"))
        assert held_out and sorted(train + held_out) == x.train
        sides = [{posts[i].user for i in side} for side in (train, held_out, test)]
        assert posts is POSTS or sum(map(len, sides)) == len(set.union(*sides))
    assert sets_of(divide(posts, Split(repeats=3))) == [
        split_posts(posts, 0.2, seed, by)[1] for seed in range(3)
    ]


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "parquet"])
@pytest.mark.parametrize("named", [True, False])
def test_a_written_file_is_read_as_it_was(tmp_path, suffix, named):
    """Also for posts without ids, by their places, and beside posts that cannot be used."""
    posts = POSTS if named else [replace(post, id=None) for post in POSTS]
    path = tmp_path / f"splits.{suffix}"
    write_splits(path, places(posts), DIVISIONS)
    assert divide(posts, Split(file=path)) == DIVISIONS
    bad = [Post(id="bad", error="no label"), *posts]
    assert divide(bad, Split(file=path)) == DIVISIONS
    without = [replace(posts[0], error="no words"), *posts[1:]]
    shifted = [replace(x, roles=x.roles[1:]) for x in DIVISIONS]
    assert divide(without, Split(file=path)) == shifted


def write_rows(path, *rows):
    path.write_text("\n".join(rows), "utf-8")
    return Split(file=path)


def test_a_column_of_folds_or_of_roles_is_enough(tmp_path):
    rows = [f"{post.id},{i % 4}" for i, post in enumerate(POSTS)]
    found = divide(POSTS, write_rows(tmp_path / "folds.csv", "id,fold", *rows))
    assert sets_of(found) == [list(range(k, 40, 4)) for k in range(4)]
    assert all(x.where("validation") for x in found)
    rows = [f"{post.id},{role}" for post, role in zip(POSTS, ROLES, strict=True)]
    split = write_rows(tmp_path / "one.csv", "id,role", *rows)
    assert divide(POSTS, split) == [Division("1", ROLES)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({3: "nobody,x,train"}, "row 5: no post has the id 'nobody'"),
        ({3: "p3,x,exam"}, "row 5: p3 has the role 'exam': use train, validation, test"),
        ({3: "p2,x,test"}, "row 5: p2 has another role in this split, further up"),
        ({39: "p39,y,train"}, "no role for 1 posts, the first of t.csv, row 41, in split x"),
        (dict.fromkeys(range(40), ""), "has no rows: it needs the columns id, split and role"),
        ({0: "p0,x,train"}, "40 to train on and 0 to test on: both"),
    ],
)
def test_a_file_that_does_not_fit_is_refused(tmp_path, change, message):
    rows = [f"{post.id},x,{'train' if i else 'test'}" for i, post in enumerate(POSTS)]
    rows = [change.get(i, row) for i, row in enumerate(rows)]
    with pytest.raises(SgmftError, match=message):
        divide(POSTS, write_rows(tmp_path / "splits.csv", "id,split,role", *rows))


@pytest.mark.parametrize(
    ("options", "names"),
    [
        ({"test": ("part", "test"), "folds": 5}, "--test and --folds"),
        ({"file": "x.csv", "repeats": 2}, "--splits and --repeats"),
        ({"folds": 5, "size": 0.1}, "--folds and --test-size"),
    ],
)
def test_ways_that_exclude_each_other(options, names):
    with pytest.raises(SgmftError, match=f"{names} do not go together"):
        Split(**options)


def test_a_column_split_of_roles_is_read_as_roles(tmp_path):
    rows = [f"{post.id},{role}" for post, role in zip(POSTS, ROLES, strict=True)]
    split = write_rows(tmp_path / "one.csv", "id,split", *rows)
    assert divide(POSTS, split) == [Division("1", ROLES)]


@pytest.mark.parametrize(
    ("last", "message"),
    [("p39,", "row 41: p39 has an empty cell"), ("p3,9", "row 41: p3 is in the fold 3, too")],
)
def test_folds_that_contradict_each_other_are_refused(tmp_path, last, message):
    rows = [f"{post.id},{i % 4}" for i, post in enumerate(POSTS[:-1])]
    with pytest.raises(SgmftError, match=message):
        divide(POSTS, write_rows(tmp_path / "folds.csv", "id,fold", *rows, last))


def test_a_size_may_be_a_number_of_posts():
    (found,) = divide(POSTS, Split(size=12.0, by="label"))
    assert len(found.where("test")) == 12
    with pytest.raises(SgmftError, match=r"The size 0\.0 of the held-out part does not fit"):
        divide(POSTS, Split(size=0.0, by="label"))
