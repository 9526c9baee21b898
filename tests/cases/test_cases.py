"""Inputs that people really have, each given to the commands as it is.

The pictures of `one-bad-picture` and `list-cells` are those of `pictures`; what crawlers write is
that of `data/tables/collected`. The workbook of `excel` is a stub, so one is written here.
"""

import csv
import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import openpyxl
import pytest

from sgmft import SemanticLocator
from sgmft.data.preprocessing.text import CLEANINGS, clean_text, get_cleaning

CASES = Path(__file__).parent
COLLECTED = CASES.parent / "data" / "tables" / "collected"
SCHOOL = "下课铃一响大家都冲去食堂，今天的数学课真难"
CINEMA = "电影散场了，爆米花还剩半桶"
HOME = "今晚在家煮了面，窝在沙发上追剧"
WORK = "加班到十点，同事点了外卖"
UNREAD = "… holds …, which is not read (… are, and MP4, MOV, WebM videos)"
NO_WORDS = "nothing to go on: no words are left after cleaning and there is no picture"


@dataclass
class Predicted:
    """What `sgmft predict` made of an input."""

    rows: dict[str, dict[str, str]]  # by id; of a post that comes twice the last
    summary: dict[str, Any]
    stderr: str

    def texts(self) -> list[str]:
        return [row["text"] for row in self.rows.values()]

    def probabilities(self, key: str) -> list[str]:
        return [value for name, value in self.rows[key].items() if name.startswith("p_")]

    def images(self) -> list[list[str]]:
        """The names of each post's pictures."""
        cells = [json.loads(row["images"] or "[]") for row in self.rows.values()]
        return [[Path(path).name for path in cell] for cell in cells]


Predict = Callable[..., Predicted]


@pytest.fixture
def case(tmp_path: Path) -> Callable[[str], Path]:
    """Copies a folder, with pictures where it has none of its own, and returns the copy."""

    def copy(name: str) -> Path:
        folder = CASES / name
        source = folder if folder.is_dir() else COLLECTED / name
        target = Path(shutil.copytree(source, tmp_path / "cases" / name))
        if name in ("one-bad-picture", "list-cells"):
            shutil.copytree(CASES / "pictures" / "p", target / "p")
        return target

    return copy


@pytest.fixture
def predict(run: Any, trained: Path, tmp_path: Path) -> Predict:
    """Runs the command; every row must have a label or an error, and every label probabilities."""

    def predict(source: Path, model: Path = trained) -> Predicted:
        output, summary = tmp_path / "labelled.csv", tmp_path / "summary.json"
        result = run("predict", model, source, "-o", output, "--summary", summary)
        assert result.returncode == 0, result.stderr
        assert "Traceback" not in result.stderr
        with output.open(encoding="utf-8-sig", newline="") as file:
            rows = list(csv.DictReader(file))
        assert all(bool(row["label"]) == bool(row["probability"]) for row in rows)
        assert all(bool(row["label"]) != bool(row["error"]) for row in rows)
        counts = json.loads(summary.read_text("utf-8"))
        assert counts["posts"] == len(rows)
        assert counts["labelled"] == sum(bool(row["label"]) for row in rows)
        return Predicted({row.get("id") or row["text"]: row for row in rows}, counts, result.stderr)

    return predict


def test_one_bad_picture_costs_no_label(case: Any, predict: Predict, run: Any, trained: Path):
    folder = case("one-bad-picture")
    found = predict(folder)
    assert found.summary["labelled"] == 8 and not found.summary["errors"]
    assert found.summary["warnings"] == {
        "… is empty (0 bytes)": 1,
        "there is no file …": 1,
        UNREAD: 1,
        "… is cut off; what there is of it is used": 1,
        "pictures on the web are not fetched: … (sgmft fetch downloads them)": 1,
    }
    warnings = {key: row["warning"] for key, row in found.rows.items()}
    assert warnings["text+4+zero"] == "p/zero.jpg is empty (0 bytes)"
    assert warnings["text+4+missing"] == "there is no file p/gone.jpg"
    assert warnings["text+403"].startswith("p/blocked_153_bytes.jpg holds HTML")
    assert not warnings["text+4"] and not warnings["text+live photo"]
    for key in ("text+4+zero", "text+4+missing"):
        assert found.probabilities(key) == found.probabilities("text+4")
    for key in ("text+403", "text+web"):
        assert found.probabilities(key) == found.probabilities("text only")
    strict = run("predict", trained, folder, "--strict")
    assert strict.returncode == 2 and "posts.csv, row" in strict.stderr


@pytest.mark.parametrize(
    ("name", "warning"),
    [
        ("posts", {}),  # the name in the object
        ("id-object", {}),  # as MongoDB writes them
        ("label-list", {"label: several labels (…) where one is needed": 4}),
    ],
)
def test_objects_and_lists_in_other_columns_cost_no_label(
    case: Any, predict: Predict, run: Any, tmp_path: Path, name: str, warning: dict[str, int]
):
    table = case("user-object") / f"{name}.jsonl"
    found = predict(table)
    assert found.summary["labelled"] == 4 and found.summary["warnings"] == warning
    assert found.texts() == [SCHOOL, CINEMA, HOME, WORK]
    if name == "label-list":  # the one command that needs them says so
        result = run("train", table, "-o", tmp_path / "model")
        assert result.returncode == 2 and "several labels" in result.stderr


def test_rounded_ids_are_told_and_counted(case: Any, predict: Predict):
    folder = case("excel-rounded-ids")
    rounded = "the id … was rounded; a spreadsheet keeps those imported as text"
    again = "the id … is already that of row …"
    found = predict(folder / "posts.csv")
    assert found.summary["labelled"] == 4 and found.summary["warnings"] == {rounded: 4, again: 3}
    found = predict(folder / "posts-zeros.csv")
    assert found.summary["labelled"] == 4 and found.summary["warnings"] == {rounded: 3, again: 3}


def test_repeated_headers_are_left_out_and_posts_crawled_twice_counted(case: Any, predict: Predict):
    found = predict(case("repeated-header-and-reruns"))
    assert found.texts() == [SCHOOL, CINEMA] and found.summary["labelled"] == 3
    assert "rows that repeat the header are left out: 1, first row 3" in found.stderr
    assert found.summary["warnings"] == {"is the post of row … again": 1}


def test_lists_of_pictures_are_read_as_people_write_them(case: Any, predict: Predict):
    folder = case("list-cells")
    found = predict(folder / "posts.csv")
    assert found.summary["labelled"] == 9 and not found.summary["warnings"]
    two = ["pandas to_csv", "datasets #6778 to_csv", "tuple", "comma", "AutoGluon ;"]
    assert len({tuple(found.probabilities(key)) for key in two}) == 1
    none = ["nan", "None", "无"]
    assert len({tuple(found.probabilities(key)) for key in none}) == 1
    one = found.probabilities("pandas one")
    assert one not in (found.probabilities(two[0]), found.probabilities(none[0]))
    (told,) = [x for x in found.stderr.splitlines() if "understood by a guess" in x]
    for guess in ("4 x a list as Python", "1 x pictures in one cell taken apart at ';'"):
        assert guess in told
    assert "3 x a word for nothing (nan, None, 无, ...) read as no picture" in told
    columns = predict(folder / "two-columns.csv")
    assert columns.probabilities("1") == found.probabilities("comma")
    assert "image is read from 'image1' and 'image2'" in columns.stderr
    both = predict(folder / "image-and-images.csv")
    assert both.probabilities("1") == one
    assert both.rows["1"]["warning"] == "there is no file p/gone.jpg"


def test_html_of_weibo_is_cleaned(case: Any, predict: Predict):
    folder = case("weibo-html")
    found = predict(folder)
    (told,) = found.summary["warnings"]
    assert found.summary["labelled"] == 5 and told.startswith("the text is cut off, with a link")
    for key in ("html full link", "weibo location card"):
        assert found.probabilities(key) == found.probabilities("plain")
    lines = (folder / "posts.jsonl").read_text("utf-8").splitlines()
    for text in (json.loads(line)["text"] for line in lines):
        for name in CLEANINGS:
            cleaned = clean_text(text, get_cleaning(name))
            furniture = ("<a", "span", "nbsp", "&", "全文", "万达影城", "http", "br /")
            left = [x for x in furniture if x in cleaned]
            assert not left or name == "none" or left == ["&"], (name, cleaned)


def test_mojibake_is_repaired_and_said(case: Any, predict: Predict):
    found = predict(case("mojibake"))
    assert found.summary["labelled"] == 8
    assert found.summary["warnings"] == {"the text was UTF-8 read as …; repaired": 4}
    for i in range(4):
        assert found.probabilities(f"{i}bad") == found.probabilities(f"{i}ok")
        assert "Latin-1" in found.rows[f"{i}bad"]["warning"]


def test_the_whole_of_a_long_text_counts(case: Any, predict: Predict, run: Any, tmp_path: Path):
    result = run("train", case("label-spaces"), "-o", tmp_path / "model")
    assert result.returncode == 0, result.stderr
    found = predict(case("long-text"), tmp_path / "model")
    cue, after, long_after, alone = (float(row["p_Cinema"]) for row in found.rows.values())
    assert found.summary["labelled"] == 4 and not found.summary["warnings"]
    assert cue > 0.8 and alone < 0.7
    assert after == pytest.approx(cue, abs=0.05) and long_after - alone > cue - long_after


def test_labels_that_differ_in_spaces_are_one(case: Any, run: Any, tmp_path: Path):
    table = case("label-spaces") / "posts.csv"
    result = run("train", table, "-o", tmp_path / "model")
    assert result.returncode == 0, result.stderr
    assert "30 x spaces around the label, left out" in result.stderr
    assert SemanticLocator.from_pretrained(tmp_path / "model").labels == ["Cinema", "Home"]
    text = table.read_text("utf-8") + "在家,ｈｏｍｅ\n在家里,home\n"
    table.write_text(text, "utf-8")
    result = run("train", table, "-o", tmp_path / "model")
    assert "'Home' and 'home' and 'ｈｏｍｅ'" in result.stderr
    assert "learned as different ones" in result.stderr


def test_names_of_labels_in_a_parquet_schema_are_used(case: Any, predict: Predict):
    found = predict(case("hf-parquet-classlabel"))
    names = [row["input_label"] for row in found.rows.values()]
    assert names == ["School", "Cinema", "Home", "Work"] and found.summary["labelled"] == 4


def test_two_tables_of_the_same_posts_are_read_once(case: Any, predict: Predict):
    found = predict(case("metadata1000-twice"))
    assert found.summary["posts"] == found.summary["labelled"] == 2
    assert "metadata1000.jsonl holds the same posts as metadata1000.csv" in found.stderr


POSTS = (SCHOOL, CINEMA, HOME)
X_IDS = [f"196000000000000000{i}" for i in range(3)]
WEIBO_IDS = ["5012345678901234", "5012345679888888", "5012345680876542"]
XHS_IDS = [f"66f0a0000000000{i}" for i in range(3)]


@pytest.mark.parametrize(
    ("name", "told", "ids", "user", "pictures"),
    [
        ("weibo-crawler", "weibo-crawler: 4 posts, 3 pictures", WEIBO_IDS, "小王同学", [2, 1, 0]),
        ("weibo-search", "weibo-search: 5 posts, 4 pictures", WEIBO_IDS, "小王", [2, 1, 0]),
        ("MediaCrawler", "mediacrawler-weibo: 3 posts", WEIBO_IDS, "a1b2", [0, 0, 0]),
        ("MediaCrawler", "mediacrawler-xhs: 3 posts, 6 pictures", XHS_IDS, "a1", [2, 2, 2]),
        ("instaloader", "instaloader: 3 posts, 4 pictures", ["C0", "C1", "C2"], "some", [2, 1, 1]),
        ("twscrape", "twscrape: 3 posts, 0 pictures found, 2 missing", X_IDS, "a", [0, 0, 0]),
        ("gallery-dl", "gallery-dl: 3 posts, 3 pictures", X_IDS, "someuser", [1, 1, 1]),
        ("instagram-download", "instagram: 3 posts, 4 pictures", ["1000", "1010"], "", [2, 1]),
        ("telegram", "telegram: 4 posts, 3 pictures found, 1 missing", ["2", "3"], "A", [1, 1]),
    ],
)
def test_what_a_collecting_tool_left_goes_in_as_it_is(
    case: Any, predict: Predict, name: str, told: str, ids: list[str], user: str, pictures: Any
):
    found = predict(case(name))
    assert f"read as {told}" in found.stderr
    images = dict(zip(found.rows, found.images(), strict=True))
    for key, text, count in zip(ids, POSTS, pictures, strict=False):
        row = found.rows[key]
        assert text in row["text"] and row["label"] and not row["error"]
        assert len(images[key]) == count and row["user"].startswith(user)
        assert row["time"].startswith("2025-09-0")
    errors = {NO_WORDS: 1} if name in ("weibo-crawler", "weibo-search") else {}
    assert found.summary["errors"] == errors, "转发微博 alone is nothing to go on"


def test_folders_named_after_classes_are_labels(case: Any, predict: Predict):
    found = predict(case("imagefolder-classes"))
    assert "class-folders of the labels Cinema, Home: 4 posts, 4 pictures" in found.stderr
    assert [row["input_label"] for row in found.rows.values()] == [*["Cinema"] * 2, *["Home"] * 2]
    assert found.summary["labelled"] == 4


def test_workbooks_are_read(case: Any, predict: Predict, run: Any, trained: Path):
    folder = case("excel")
    stub = run("predict", trained, folder)
    assert stub.returncode == 2 and "is no .xlsx workbook" in stub.stderr
    search = case("weibo-search")
    (table,) = search.rglob("*.csv")
    with table.open(encoding="utf-8-sig", newline="") as file:
        rows = list(csv.reader(file))
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(table.with_suffix(".xlsx"))
    expected = predict(search).rows
    table.unlink()
    found = predict(search)
    assert "read as weibo-search: 5 posts, 4 pictures found" in found.stderr
    assert found.rows == expected


def test_every_reason_against_a_picture_is_true(case: Any, predict: Predict):
    folder = case("pictures")
    found = predict(folder / "pictures.csv")
    assert found.summary["errors"] == {
        UNREAD: 6,
        "… is cut off or damaged": 1,
        "… is empty (0 bytes)": 1,
    }
    assert found.summary["warnings"] == {"… is cut off; what there is of it is used": 1}
    kinds = {"clip.avi": "AVI", "clip.flv": "FLV", "vector.svg": "SVG", "icon.ico": "ICO"}
    kinds |= {"jp2.jp2": "JPEG 2000", "blocked_153_bytes.jpg": "HTML"}
    for name, kind in kinds.items():
        assert f"{name} holds {kind}, which is not read" in found.rows[name]["error"]
    for name in ("iphone.heic", "mif1.avif", "live.mov", "no_eoi.jpg", "1x20000.png"):
        assert found.rows[name]["label"]


def test_cells_for_pictures_are_understood_or_refused_for_what_they_are(
    case: Any, predict: Predict
):
    found = predict(case("pictures") / "mixed.csv")
    assert found.summary["labelled"] == found.summary["posts"] == 29
    assert found.summary["warnings"] == {
        UNREAD: 2,
        "pictures on the web are not fetched: … (sgmft fetch downloads them)": 2,
        "… is empty (0 bytes)": 1,
        "there is no file …": 1,
        "… is cut off or damaged": 1,
    }
    nothing = ["无", "nan text", "NULL text", "None text", r"\N", "python empty list repr"]
    nothing += ["text + web address", "text + svg sticker", "data URI"]
    for key in nothing:
        assert found.probabilities(key) == found.probabilities("text only"), key
    separators = ["comma", "semicolon", "space", "newline"]
    for key in [*(f"{x} separated" for x in separators), "python list repr"]:
        assert found.probabilities(key) == found.probabilities("comma separated"), key
    one = ["file uri", "abs path inside", "windows abs path", "query string", "upper case"]
    for key in [*one, "percent"]:
        assert found.probabilities(key) == found.probabilities("python list repr of one"), key
    assert "5 x a word for nothing (nan, None, 无, ...) read as no picture" in found.stderr


def test_texts_without_words_are_nothing_to_go_on(case: Any, predict: Predict):
    found = predict(case("texts"))
    empty = ["bare repost", "bare repost trad", "repost en", "快转", "分享图片", "分享视频"]
    empty += ["emoji only", "punct only", "mention only", "url only", "dot", "zero width only"]
    assert found.summary["errors"] == {NO_WORDS: len(empty)}
    assert {key for key, row in found.rows.items() if row["error"]} == {*empty}
    same: Sequence[str] = ("全文", "展开c", "O网页链接", "zero width", "traditional")
    for key in (*same, "html full link", "weibo location card"):
        assert found.probabilities(key) == found.probabilities("plain"), key
    for place in ("home", "school"):
        simplified = found.probabilities(f"simplified {place}")
        assert found.probabilities(f"traditional {place}") == simplified
