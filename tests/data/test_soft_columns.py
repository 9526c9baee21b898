"""Soft labels of posts: made sums of one, or reported; read from the columns of a table."""

from dataclasses import replace

import pytest
from hypothesis import given, strategies as st

from sgmft import Post, SemanticLocator
from sgmft.data.source import apply_fixes, read_soft_labels, soften
from sgmft.data.tables import Columns, read_posts
from sgmft.errors import SgmftError, SgmftNotice
from sgmft.locator.estimator import with_labels

HOME = {"Home": 0.7, "Work": 0.3}
numbers = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=9)


def row(**cells):
    return Post("sofa", label=cells.pop("label", None), place="row 1", row=cells)


@given(numbers, st.floats(0.9902, 1.0098))
def test_probabilities_are_divided_by_a_sum_near_one(parts, total):
    soft = {f"l{i}": total * x / sum(parts) for i, x in enumerate(parts)}
    found = soften(Post("sofa", soft=soft))
    assert found.error is None and sum(found.soft.values()) == pytest.approx(1)
    assert found.soft[found.label] == max(found.soft.values())
    again = soften(found)
    assert again.soft == pytest.approx(found.soft) and again.label == found.label


@given(numbers, st.floats(0, 0.985) | st.floats(1.015, 9))
def test_another_sum_is_reported(parts, total):
    soft = {f"l{i}": total * x / sum(parts) for i, x in enumerate(parts)}
    found = soften(Post("sofa", label="Home", soft=soft))
    assert found.error == f"the probabilities of its labels sum to {sum(soft.values()):.3f}, not 1"


@pytest.mark.parametrize("bad", [-0.1, "x", float("nan"), float("inf"), None, "", [0.5]])
def test_what_is_no_probability_is_reported(bad):
    found = soften(Post("sofa", soft={"Home": 1.0, "Work": bad}))
    assert found.error == f"probabilities: {bad!r} is no number of at least 0"


def test_a_post_with_an_error_keeps_it():
    assert soften(Post("sofa", error="gone", soft={"Home": 9})).error == "gone"


def test_columns_of_a_table_are_read_and_other_rows_keep_their_label():
    posts = [
        row(p_Home="0.7", p_Work="0.3", label="Work"),
        row(p_Home="", p_Work=None, label="Work"),
        row(p_Home=1.0, p_Work=float("nan")),
        row(p_Home="0.7", p_Work="0.7", label="Work"),
        replace(row(p_Home="0.7", p_Work="0.3"), error="gone"),
    ]
    with pytest.warns(SgmftNotice, match=r"^Soft labels of 2 posts: Home, Work\.$"):
        found = read_soft_labels(posts)
    assert [post.label for post in found[:3]] == ["Home", "Work", "Home"]
    assert [post.soft for post in found[:3]] == [HOME, None, {"Home": 1.0}]
    assert "sum to 1.400" in found[3].error and found[4].error == "gone"
    with pytest.warns(SgmftNotice, match="of 1 posts"):
        kept = read_soft_labels(posts, keep=True)
    assert [(post.label, post.soft) for post in kept[:2]] == [("Work", None)] * 2
    assert kept[3].error is None  # its label is the truth, whatever the columns hold


def test_a_table_without_soft_labels_says_what_they_are():
    with pytest.raises(SgmftError, match=r"no post has probabilities to learn.* in columns p_"):
        read_soft_labels([row(label="Home")])
    with pytest.raises(SgmftError, match="as row 1: probabilities: 'x' is no number"):
        read_soft_labels([row(p_Home="x")])
    for name in ("p_", "p_Home "):
        with pytest.raises(SgmftError, match="a label is named twice, or not at all"):
            read_soft_labels([row(p_Home=0.6, **{name: 0.4})])


def test_of_labels_as_probable_the_written_one_is_no_other(recwarn):
    read_soft_labels([row(label="Work", p_Home=0.4, p_Work=0.4, p_School=0.2)])
    assert not [x for x in recwarn if "another label" in str(x.message)]


def test_a_corrected_label_is_no_longer_soft(tmp_path):
    (tmp_path / "fixes.csv").write_text("id,label,new_label\na,Home,Work\nc,Home,\n")
    posts = [Post("sofa", id=x, label="Home", soft=HOME) for x in "abc"]
    found = apply_fixes(posts, str(tmp_path / "fixes.csv"))
    assert [(x.id, x.label, x.soft) for x in found] == [("a", "Work", None), ("b", "Home", HOME)]


def test_a_dict_is_a_soft_label_in_python():
    y = ["Work", {"Home": 0.7, "Work": 0.3}, None]
    posts, values = with_labels([Post("sofa")] * 3, y)
    assert [x.label for x in posts] == ["Work", "Home", None]
    assert [x.soft for x in posts] == [None, HOME, None] and values == {"Work": "Work"}
    with pytest.raises(SgmftError, match=r"y: post 3: .* sum to 2\.000, not 1"):
        with_labels([Post("sofa")] * 4, [*y, {"Home": 2}])
    (post,), _ = with_labels([Post("sofa", soft={"Home": 0.704, "Work": 0.3})], None)
    assert post.label == "Home" and sum(post.soft.values()) == pytest.approx(1)


def test_labels_that_are_nowhere_the_best_are_learned_too(small_posts, tiny):
    """`School` is never the most probable, and is a label of the model all the same."""
    y = [
        post.label if post.label != "School" else {"Home": 0.5, "School": 0.3, "Work": 0.2}
        for post in small_posts
    ]
    found = tiny(preset="default").fit(small_posts, y)
    assert found.labels == ["Home", "School", "Work"]
    probs = found.predict_proba(small_posts)
    school = [post.label == "School" for post in small_posts]
    assert 0.15 < probs[school, 1].mean() < 0.45
    assert probs[[not x for x in school], 1].mean() < 0.15
    assert found.fit(small_posts).predict(small_posts[:3]) == ["Home", "School", "Work"]


# --- weights


def written(tmp_path, cells):
    lines = [f"sofa {i},Home,{cell}" for i, cell in enumerate(cells)]
    (tmp_path / "posts.csv").write_text("\n".join(["text,label,w", *lines]))
    return tmp_path / "posts.csv"


def test_a_column_that_is_named_has_weights(tmp_path):
    table = written(tmp_path, ["2", "0.5", "", "-1", "x", "nan"])
    found = read_posts(table, columns=Columns(weight="w"))
    assert [post.weight for post in found] == [2, 0.5, 1, 1, 1, 1]
    assert [post.error for post in found[:3]] == [None] * 3
    assert [post.error for post in found[3:5]] == [
        f"weight: {cell!r} is no number of at least 0" for cell in ("-1", "x")
    ]
    assert found[5].error is None  # a word for nothing
    assert [post.weight for post in read_posts(table)] == [1] * 6
    with pytest.raises(SgmftError, match="no column 'v'"):
        read_posts(table, columns=Columns(weight="v"))


def test_a_column_weight_is_none_unless_it_is_named(tmp_path):
    table = written(tmp_path, ["2", "3"])
    table.write_text(table.read_text().replace("label,w", "label,weight"))
    assert [post.weight for post in read_posts(table)] == [1, 1]


def test_weights_of_nothing_are_refused(small_posts, tiny):
    with pytest.raises(SgmftError, match="All posts that can be used have weight 0"):
        tiny(preset="default").fit([replace(post, weight=0.0) for post in small_posts])


def test_a_model_that_was_trained_with_weights_predicts_without(small_posts, tiny):
    frame = {
        "text": [post.text for post in small_posts if post.text],
        "label": [post.label for post in small_posts if post.text],
    }
    whole = frame | {"w": [1.0] * len(frame["text"])}
    found: SemanticLocator = tiny(preset="default", columns={"weight": "w"}).fit(whole)
    assert len(found.predict({"text": ["sofa kitchen"]})) == 1
