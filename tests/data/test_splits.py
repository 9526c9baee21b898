import random
from collections import Counter

import pytest
from hypothesis import given, strategies as st

from sgmft.data import splits
from sgmft.data.posts import Post
from sgmft.data.splits import fingerprint, fold_posts, split_posts
from sgmft.errors import SgmftError

posts_of = st.lists(
    st.builds(
        Post,
        label=st.sampled_from(["Home", "Work", "Cinema", None]),
        user=st.sampled_from(["u1", "u2", "u3", "u4", None]),
    ),
    min_size=2,
    max_size=40,
)


def check_partition(posts, train, held):
    assert train == sorted(train) and held == sorted(held)
    assert sorted(train + held) == list(range(len(posts)))


@given(posts=posts_of, data=st.data(), seed=st.integers())
def test_by_label(posts, data, seed):
    size = data.draw(st.integers(1, len(posts) - 1))
    train, held = split_posts(posts, size, seed)
    check_partition(posts, train, held)
    assert (train, held) == split_posts(posts, size, seed)
    labels = Counter(post.label for post in posts if post.label)
    left = Counter(posts[i].label for i in train)
    assert all(left[label] >= 1 for label in labels)
    assert len(held) == min(size, len(posts) - len(labels))


def test_by_label_is_in_proportion():
    posts = [Post(label="Home")] * 700 + [Post(label="Work")] * 290 + [Post(label="Rare")] * 10
    _, held = split_posts(posts, 0.2)
    assert Counter(posts[i].label for i in held) == {"Home": 140, "Work": 58, "Rare": 2}
    assert held != split_posts(posts, 0.2, seed=1)[1]


def test_without_labels_any_number_can_be_held_out():
    posts = [Post()] * 10
    train, held = split_posts(posts, 9)
    assert len(train) == 1 and len(held) == 9
    assert len(split_posts(posts, 0.01)[1]) == 1
    assert len(split_posts(posts, 0.999)[1]) == 9


def test_labels_with_one_post_stay_in_training():
    assert split_posts([Post(label="a"), Post(label="b")], 0.5) == ([0, 1], [])


@given(posts=posts_of, data=st.data(), seed=st.integers())
def test_by_user(posts, data, seed):
    size = data.draw(st.integers(1, len(posts) - 1))
    users = Counter(post.user for post in posts if post.user)
    if len(users) < 2:
        with pytest.raises(SgmftError, match="two users or more"):
            split_posts(posts, size, seed, by="user")
        return
    train, held = split_posts(posts, size, seed, by="user")
    check_partition(posts, train, held)
    assert train and held
    assert (train, held) == split_posts(posts, size, seed, by="user")
    assert not {posts[i].user for i in train} & {posts[i].user for i in held} - {None}
    assert abs(len(held) - size) <= max(users.values())


def test_by_user_is_near_in_size_and_balanced():
    rng = random.Random(0)
    posts = [
        Post(user=f"u{u}", label=rng.choice(["Home", "Work"]))
        for u in range(100)
        for _ in range(rng.randint(1, 30))
    ]
    _, held = split_posts(posts, 0.25, by="user")
    assert len(held) == round(0.25 * len(posts))
    share = [
        sum(post.label == "Home" for post in part) / len(part)
        for part in (posts, [posts[i] for i in held])
    ]
    assert abs(share[0] - share[1]) < 0.05
    assert held != split_posts(posts, 0.25, seed=1, by="user")[1]


def test_one_large_user_does_not_take_everything():
    posts = [Post(user="a")] * 9 + [Post(user="b")]
    assert split_posts(posts, 5, by="user")[1] == [9]
    pairs = [Post(user="a")] * 3 + [Post(user="b")] * 3
    train, held = split_posts(pairs, 5, by="user")
    assert len(train) == len(held) == 3


@pytest.mark.parametrize("size", [0, 10, -1, 0.0, 1.0, 1.5, float("nan"), True, "a", None])
def test_sizes_that_do_not_fit(size):
    with pytest.raises(SgmftError, match="from 1 to 9"):
        split_posts([Post()] * 10, size)


def test_other_mistakes():
    with pytest.raises(SgmftError, match="two or more"):
        split_posts([Post()], 0.5)
    with pytest.raises(SgmftError, match="use label, user"):
        split_posts([Post()] * 3, 0.5, by="day")


rows = st.lists(st.tuples(st.text(st.characters(), max_size=5), st.none() | st.text(max_size=3)))


@given(rows=rows, seed=st.integers())
def test_fingerprint_does_not_depend_on_order(rows, seed):
    shuffled = random.Random(seed).sample(rows, len(rows))
    digits = fingerprint(iter(rows))
    assert digits == fingerprint(shuffled)
    assert len(digits) == 16 and int(digits, 16) >= 0


def test_fingerprint_tells_data_apart():
    ab, cd = ("a", "b"), ("c", "d")
    different = [[], [("", None)], [("", "")], [ab], [("b", "a")], [("ab", "")], [ab, ab]]
    different += [[ab, cd], [("a", "d"), ("c", "b")]]
    assert len({fingerprint(rows) for rows in different}) == len(different)


def test_fingerprint_stays_the_same_between_versions():
    assert fingerprint([("a", "Home"), ("b", None)]) == "b9b31a552180b71c"


def test_the_number_of_tries_shrinks_with_the_data(monkeypatch):
    monkeypatch.setattr(splits, "_MAX_STEPS", 0)
    posts = [Post(user=f"u{i % 4}") for i in range(8)]
    assert len(split_posts(posts, 0.25, by="user")[1]) == 2


@given(st.integers(2, 6), st.integers(0, 99), st.booleans())
def test_folds_test_every_post_once_and_part_no_user(folds, seed, by_user):
    draw = random.Random(seed)
    posts = [Post(label=draw.choice("abc"), user=f"u{i % 9}") for i in range(60)]
    found = fold_posts(posts, folds, seed, "user" if by_user else "label")
    assert sorted(i for fold in found for i in fold) == list(range(60)) and len(found) == folds
    assert found == fold_posts(posts, folds, seed, "user" if by_user else "label")
    labels = Counter(post.label for post in posts)
    for fold in found:
        others = {posts[i].user for i in {*range(60)} - {*fold}}
        assert not by_user or not {posts[i].user for i in fold} & others
        for label, count in Counter(posts[i].label for i in fold).items():
            assert by_user or abs(count - labels[label] / folds) < 2


def test_a_labels_only_post_is_in_no_fold_and_what_cannot_be_folded_is_refused():
    posts = [Post(label="a", user="u0"), *[Post(label=x, user=f"u{x}") for x in "bc" * 9]]
    assert sorted(i for fold in fold_posts(posts, 3) for i in fold) == list(range(1, 19))
    for folds, by, message in (
        (1, "label", "use 2 to 19"),
        (4, "user", "3 users"),
        (20, "label", "20 folds"),
    ):
        with pytest.raises(SgmftError, match=message):
            fold_posts(posts, folds, by=by)
