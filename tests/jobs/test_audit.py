"""An audit of a table: planted faults are reported, an untroubled table is not, fixes mend it."""

import pytest

from audited_posts import WORDS, WRONG, write_audited
from html_page import EVIL, Page
from sgmft.data.source import Source
from sgmft.errors import SgmftError
from sgmft.jobs.audit import audit_table
from sgmft.jobs.train import train_best
from sgmft.utils.templates import _environment
from small_tables import file_names, read_rows, write_rows


@pytest.fixture(scope="module")
def faulty(tmp_path_factory):
    return write_audited(tmp_path_factory.mktemp("faulty"))


@pytest.fixture(scope="module")
def audited(faulty, tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("audit")
    return folder, *audit_table(Source(str(faulty)), folder, tiny(preset="default"))


def test_every_planted_fault_is_found(audited):
    folder, summary, found = audited
    rows = read_rows(folder / "labels.csv")
    assert summary.posts == len(found["labels"]) == len(rows) == 121 and summary.errors == {}
    assert {*WRONG} <= {row["id"] for row in rows[:8]}
    flagged = [row for row in rows if row["probably_wrong"] == "true"]
    assert flagged == rows[: len(flagged)] and len(flagged) >= 4
    for row in flagged:
        assert row["suggestion"] != row["label"]
        if row["id"] in WRONG:
            labels = list(WORDS)
            assert row["suggestion"] == labels[labels.index(row["label"]) - 1]
    for groups in (found["conflicts"], found["crossing"]):
        assert [row["id"] for row in groups[-1]] == ["p5", "again"]
    assert {"p5", "again"} <= {row["id"] for row in read_rows(folder / "duplicates.csv")}
    assert found["users"] == ["both 1", "both 2", "both 5", "both 6"]
    grey, *others = [x for x in found["traits"] if x["kind"] != "word"]
    assert (grey["kind"], grey["label"]) == ("grey", "School")
    assert all(x["kind"] == "bytes" for x in others)  # grey pictures have less
    assert [x["posts"] for x in found["curve"]] == [60, 121]
    assert all(x["area"] > 0.75 for x in found["pairs"])
    expected = ["audit.html", *(f"{x}.csv" for x in ("curve", "duplicates", "labels", "pairs"))]
    assert file_names(folder) == [*expected, "traits.csv"]


def test_a_table_without_faults_is_left_in_peace(tiny, tmp_path):
    table = write_audited(tmp_path, faults=False)
    found = audit_table(Source(str(table)), tmp_path / "audit", tiny(preset="default"))[1]
    assert sum(row["probably_wrong"] for row in found["labels"]) <= 2
    assert all(found[x] == [] for x in ("duplicates", "users"))
    assert {x["kind"] for x in found["traits"]} <= {"word"}
    assert all(x["area"] > 0.75 for x in found["pairs"])
    page = Page((tmp_path / "audit" / "audit.html").read_text("utf-8"))
    assert page.text.count("None were found.") == 3


def test_the_page_shows_what_was_found_in_both_languages(faulty, tiny, audited, tmp_path):
    page = Page((audited[0] / "audit.html").read_text("utf-8"))
    shown = {x["data-id"]: x["data-suggestion"] for x in page.all("article")}
    assert {"p3", "p5", "again"} <= shown.keys() and shown["p3"] == "Home"
    assert "grey" in page.text and all(row["src"].startswith("data:") for row in page.all("img"))
    audit_table(Source(str(faulty)), tmp_path, tiny(preset="default"), language="zh", most=1)
    chinese = Page((tmp_path / "audit.html").read_text("utf-8"))
    assert chinese.all("html") == [{"lang": "zh"}] and "黑白图片" in chinese.text
    assert len(chinese.all("article")) == 5  # a doubtful one, and the group of two in two places
    texts = _environment().get_template("evaluation/templates/audit_texts.jinja").module.TEXTS
    assert texts["en"].keys() == texts["zh"].keys()
    english = [x for x in texts["en"].values() if isinstance(x, str) and "%" not in x]
    assert [x for x in english if len(x) > 12 and x in chinese.text] == []


def test_what_posts_hold_is_text_on_the_page(tiny, tmp_path):
    rows = read_rows(write_audited(tmp_path))
    for i in (3, 19):
        rows[i] |= {"id": f'"{i}' + EVIL, "text": f"{EVIL} {rows[i]['text']}"}
    table = write_rows(rows, tmp_path / "evil.csv")
    audit_table(Source(str(table)), tmp_path, tiny(preset="default"))
    source = (tmp_path / "audit.html").read_text("utf-8")
    assert EVIL not in source and len(Page(source).all("script")) == 1
    (policy,) = [x["content"] for x in Page(source).all("meta") if "http-equiv" in x]
    nonce = Page(source).all("script")[0]["nonce"]
    assert f"script-src 'nonce-{nonce}'" in policy and "default-src 'none'" in policy


def test_without_a_split_the_page_says_how_to_name_one(faulty, tiny, tmp_path):
    found = audit_table(Source(str(faulty)), tmp_path, tiny(preset="default"), "fold")[1]
    assert found["crossing"] == found["users"] == []
    assert "name it with --split" in (tmp_path / "audit.html").read_text("utf-8")


def test_a_table_without_two_labels_cannot_be_audited(tiny, tmp_path):
    rows = [{"id": str(i), "text": f"sofa w{i}", "label": "Home"} for i in range(9)]
    source = Source(str(write_rows(rows, tmp_path / "posts.csv")))
    with pytest.raises(SgmftError, match="has only the label 'Home'"):
        audit_table(source, tmp_path / "audit", tiny(preset="default"))


def test_what_is_chosen_mends_the_training(faulty, tiny, audited, tmp_path):
    rows = read_rows(audited[0] / "labels.csv")
    fixes = [
        {"id": row["id"], "label": row["label"], "new_label": row["suggestion"]}
        for row in rows
        if row["id"] in WRONG
    ]
    fixes.append({"id": "again", "label": "Home", "new_label": ""})
    path = str(write_rows(fixes, tmp_path / "fixes.csv"))
    trained = [
        train_best(Source(str(faulty)), tmp_path / name, [tiny(preset="default")], **more)[1]
        for name, more in (("before", {}), ("after", {"fixes": path}))
    ]
    counts = [locator.training.data.train for locator in trained]
    assert counts == [121, 120]
    losses = [x.training.metrics["validation loss"] for x in trained]
    assert losses[1] < losses[0] / 2
