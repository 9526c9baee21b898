import re
import shutil
from collections import Counter, defaultdict
from datetime import datetime, timedelta
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from html_page import EVIL, Page
from sgmft.data.posts import Post
from sgmft.data.source import Source
from sgmft.data.tables import Columns
from sgmft.errors import NoUsableRowError, SgmftError
from sgmft.jobs.insight import DAYS, GRID, InsightSettings, _read_time, insight_table
from sgmft.utils.templates import render
from small_tables import read_rows, write_rows

PLACES = ("Home", "School", "Work")
NO_SUM = "its probabilities, of the columns p_..., are not numbers that add up to one"


def posts_of(number=200, users=20, seed=0):
    """Rows with labels by hand: at home at night, elsewhere by day."""
    rng = np.random.default_rng(seed)
    rows = []
    for i in range(number):
        time = datetime(2024, 1, 1) + timedelta(minutes=int(rng.integers(60 * 24 * 7 * 20)))
        place = PLACES[0 if time.hour >= 18 else rng.integers(1, 3)]
        user = f"name-of-{rng.integers(users)}"
        row = {"id": f"p{i}", "text": f"secret{i} at {place}", "label": place, "user": user}
        rows.append(row | {"time": f"{time:%Y-%m-%d %H:%M}", "city": str(rng.choice(["A", "B"]))})
    return rows


def predicted_of(rows):
    """The same rows as `predict` writes them."""
    found = []
    for row in rows:
        probs = {f"p_{x}": 0.8 if x == row["label"] else 0.1 for x in PLACES}
        given = {"probability": 0.8, "abstained": None, "error": None, "warning": None}
        found.append(row | given | probs)
    return found


def insight_of(rows, folder, **options):
    source = Source(str(write_rows(rows, folder / "posts.jsonl")))
    model, on_read = options.pop("model", None), options.pop("on_read", lambda done: None)
    return insight_table(source, folder / "out", model, InsightSettings(**options), on_read)


def read_all(folder):
    """All texts: files, and the rows of Parquet, whose bytes may look like anything."""
    return {
        x: str(read_rows(x)) if x.suffix == ".parquet" else x.read_text("utf-8-sig")
        for x in folder.rglob("*")
        if x.is_file()
    }


def test_labels_by_hand_are_counted(tmp_path):
    rows = posts_of()
    found = insight_of(rows, tmp_path, by=["city"], change="2024-03-01")
    count = Counter(row["label"] for row in rows)
    assert found.labels == list(PLACES) and found.kind == "counted"
    assert found.total.found.share == pytest.approx([count[x] / 200 for x in PLACES], abs=0.006)
    assert [cell.value for cell in found.by["weekday"]] == list(DAYS)
    evening = next(x for x in found.by["hour"] if x.value == "20:00").found
    assert evening.share.tolist() == [1, 0, 0] and evening.low[0] < 0.95
    cities = {cell.value: cell for cell in found.by["city"]}
    assert abs(cities["A"].posts + cities["B"].posts - 200) <= 5
    day, before, after, change = found.change
    assert day == "2024-03-01" and before.posts + after.posts == pytest.approx(200, abs=5)
    assert change.difference == pytest.approx(after.found.share - before.found.share, abs=0.01)
    names = {x.name for x in (tmp_path / "out").iterdir()}
    assert names == {"insight.html", "shares.csv", "shares.parquet", "change.csv",
                     "change.parquet", "figures"}  # fmt: skip
    tables = [read_rows(tmp_path / "out" / f"shares.{x}") for x in ("csv", "parquet")]
    assert len(tables[0]) == len(tables[1]) == 3 * (1 + sum(map(len, found.by.values())))
    page = Page((tmp_path / "out" / "insight.html").read_text("utf-8"))
    page.check_harmless()
    assert "no correction is needed" in page.text and "Not corrected" not in page.text


def test_every_user_has_the_same_typical_day(tmp_path):
    """One user who writes from home all the time does not make a day of all."""
    rows = [row for row in posts_of(400) if row["label"] != "Home"]
    more = [rows[0] | {"id": f"m{i}", "label": "Home", "time": "2024-03-01 11:00"}
            for i in range(12)]  # fmt: skip
    found = insight_of(rows + more, tmp_path)
    by_hour, typical = (
        next(x for x in found.by[name] if x.value == "11:00").found.share[0]
        for name in ("hour", "typical day")
    )
    assert by_hour > 2 * typical > 0


@settings(max_examples=12)
@given(
    seed=st.integers(0, 99), number=st.integers(20, 120), users=st.integers(3, 30),
    least=st.integers(1, 7), named=st.booleans(), predicted=st.booleans(),
)  # fmt: skip
def test_no_file_tells_of_few_users(seed, number, users, least, named, predicted):
    rows = posts_of(number, users, seed)
    rows = [row | ({} if named else {"user": None}) for row in rows]
    with TemporaryDirectory() as name:
        folder = Path(name)
        given = predicted_of(rows) if predicted else rows
        try:
            insight_of(given, folder, by=["city"], change="2024-03-01", least=least)
        except SgmftError as error:
            assert "--min-users" in str(error)
            assert not (folder / "out").exists()
            return
        texts = read_all(folder / "out")
        table = read_rows(folder / "out" / "shares.parquet")
    assert not [x for text in texts.values() for x in re.findall(r"name-of|secret\d|p\d+\"", text)]
    members = defaultdict(list)
    for row in rows:
        time = datetime.strptime(row["time"], "%Y-%m-%d %H:%M")
        day, hour = list(DAYS)[time.weekday()], f"{time.hour:02}:00"
        week = str(time.date() - timedelta(time.weekday()))
        values = {"": "", "hour": hour, "typical day": hour, "weekday": day, "city": row["city"]}
        for by, value in (values | {"week": week, "month": f"{time:%Y-%m}"}).items():
            members[by, value].append(row["user"] if named else row["id"])
        for block in (4,):
            key = f"{day} {time.hour - time.hour % block:02}:00"
            members[GRID, block, key].append(row["user"] if named else row["id"])
    shown = {(row["by"], row["value"]) for row in table}
    for by, value in shown:
        found = members[by, value] if by != GRID else members[GRID, 4, value]
        found = found or next(x for y, x in members.items() if y[0] == GRID and y[-1] == value)
        count = Counter(found)
        assert len(count) >= least and (least == 1 or 2 * max(count.values()) <= len(found))
    for by in ("hour", "weekday", "week", "month", "city"):
        hidden = [x for key, some in members.items() if key[0] == by and key not in shown
                  for x in some]  # fmt: skip
        if hidden and any(x == by for x, _ in shown):
            assert len(set(hidden)) >= least  # else the total less what is shown would tell them
    assert not [x for x in table if x["posts"] % least or x.get("users", 0) % least]


def test_a_table_of_predictions_has_only_its_probabilities(tmp_path):
    rows = predicted_of(posts_of())
    rows[0] |= {"label": None, "abstained": "several labels are possible"}
    rows[1] |= {"label": None, "abstained": "seems to be of none of the labels"}
    rows[2] |= {"label": "Cinema"}
    rows[3] |= {"p_Home": "much"}
    rows[4] |= {"label": None, "error": "is damaged"} | {f"p_{x}": None for x in PLACES}
    found = insight_of(rows, tmp_path)
    assert found.kind == "averaged"
    probs = [[float(row[f"p_{x}"]) for x in PLACES] for i, row in enumerate(rows)
             if i not in (1, 2, 3, 4)]  # fmt: skip
    assert found.total.found.share == pytest.approx(np.mean(probs, 0), abs=6e-4)  # as written
    errors, abstained = found.summary.errors, found.summary.abstained
    assert errors["is damaged"] == errors[NO_SUM] == 1
    assert found.summary.examples["the model never learned the label …"].startswith(
        "posts.jsonl, row 3"
    )
    assert sum(abstained.values()) == 2
    page = Page((tmp_path / "out" / "insight.html").read_text("utf-8"))
    assert "Not corrected for the model's errors" in page.text
    assert "1 × seems to be of none of the labels" in page.text


@pytest.mark.parametrize("mark", [".", ","])
def test_a_label_corrected_in_a_table_of_predictions_counts(mark, tmp_path):
    rows = predicted_of([row | {"input_label": row["label"]} for row in posts_of()])
    probs = np.array([[row[f"p_{x}"] for x in PLACES] for row in rows])
    for row in rows:
        row |= {f"p_{x}": str(row[f"p_{x}"]).replace(".", mark) for x in PLACES}
    home = [i for i, row in enumerate(rows) if row["label"] == "Home"]
    for i in home[:20]:
        rows[i]["label"], probs[i] = "Work", (0, 0, 1)
    for i in home[20:30]:  # a label where the model gave none
        rows[i]["abstained"], probs[i] = "seems to be of none of the labels", (1, 0, 0)
    for i in home[30:35]:
        rows[i]["label"], probs[i] = None, np.nan
    found = insight_of(rows, tmp_path)
    note = "its label … is not the predicted one, and counts as given by hand"
    assert found.summary.warnings == {note: 30} and not found.summary.abstained
    assert found.summary.errors == {"has no label": 5}
    assert found.total.found.share == pytest.approx(np.nanmean(probs, 0), abs=6e-4)
    source = Source(str(tmp_path / "posts.jsonl"), Columns(label="input_label"))
    assert insight_table(source, tmp_path / "out").kind == "counted"


@pytest.mark.parametrize("kind", ["corrected", "averaged"])
def test_a_model_corrects_by_what_it_was_tested_on(kind, tmp_path, run, sample, trained, store):
    model = shutil.copytree(trained, tmp_path / "model")
    if kind == "averaged":  # as a model of before there were held-out posts
        (model / "held_out.safetensors").unlink()
    words = ("-o", tmp_path / "out", "--min-users", 2, "--features", store)
    done = run("insight", model, sample, *words)
    assert done.returncode == 0, done.stderr
    assert f"28 posts, {'not ' * (kind == 'averaged')}corrected" in done.stderr
    page = Page((tmp_path / "out" / "insight.html").read_text("utf-8"))
    assert ("Not corrected for the model's errors" in page.text) == (kind == "averaged")
    assert ("share, corrected for the model's errors" in page.text) == (kind == "corrected")
    run("predict", model, sample, "-o", tmp_path / "predicted.csv", "--features", store)
    rows = read_rows(tmp_path / "predicted.csv")
    rows[0]["label"] = next(x[2:] for x in rows[0] if x[:2] == "p_" and x[2:] != rows[0]["label"])
    again = run("insight", model, write_rows(rows, tmp_path / "corrected.csv"), *words)
    assert "its label … in the table is not read" in again.stderr, again.stderr


def test_times_that_do_not_say_when_are_counted(tmp_path):
    rows = posts_of()
    rows[0] |= {"time": None}
    rows[1] |= {"time": "yesterday"}
    rows[2] |= {"time": "2024-02-30 10:00"}
    rows[3] |= {"time": 1704067200}  # 2024-01-01 00:00 UTC
    rows[4] |= {"time": "2024-01-01T20:00:00Z"}
    rows[5] |= {"time": "2024-03-02"}
    for offset, first in ((0.0, "00:00"), (8.0, "08:00")):
        found = insight_of(rows, tmp_path, utc_offset=offset, least=1)
        warnings = found.summary.warnings
        assert warnings["has no time"] == 1
        assert warnings["the time … cannot be read"] == 2
        assert "row 2: the time 'yesterday'" in found.summary.examples["the time … cannot be read"]
        assert warnings[next(x for x in warnings if "UTC" in x)] == 2
        by_hour = {cell.value: cell.posts for cell in found.by["hour"]}
        known = Counter(row["time"][11:13] for row in rows[6:])
        assert by_hour[first] == known[first[:2]] + 1
        assert by_hour[""] == 4  # a day has no hour
    bare = [{k: v for k, v in row.items() if k != "time"} for row in rows]
    found = insight_of(bare, tmp_path, by=["city"])
    assert list(found.by) == ["city"] and found.summary.warnings["has no time"] == 200


@pytest.mark.parametrize(
    ("options", "change", "words"),
    [
        ({"by": ["user"]}, {}, ["--by user", "list the users"]),
        ({"by": ["town"]}, {}, ["no column 'town'"]),
        ({"change": "2030-01-01"}, {}, ["--before-after 2030-01-01", "--min-users"]),
        ({"change": "2024-03-01"}, {"time": "?"}, ["--column time=NAME"]),
        ({"change": "March"}, {}, ["--before-after March", "2024-03-01"]),
        ({}, {"user": "only one"}, ["200 posts have a label", "--min-users"]),
        ({"least": 30}, {}, ["fewer than 30"]),
    ],
)  # fmt: skip
def test_what_cannot_be_shown_is_refused(options, change, words, tmp_path):
    rows = [row | change for row in posts_of()]
    with pytest.raises(SgmftError) as caught:
        insight_of(rows, tmp_path, **options)
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_column_that_holds_no_labels_is_refused(tmp_path):
    rows = [row | {"label": f"text {i}"} for i, row in enumerate(posts_of(250))]
    with pytest.raises(SgmftError, match=r"250 different ones.*--column label=NAME"):
        insight_of(rows, tmp_path)
    source = Source(str(tmp_path / "posts.jsonl"), Columns(label="city"))
    assert insight_table(source, tmp_path / "out").labels == ["A", "B"]
    with pytest.raises(NoUsableRowError, match="200 x has no label"):
        insight_of([row | {"label": None} for row in posts_of()], tmp_path)


def test_texts_are_shown_where_they_are_asked_for(tmp_path):
    rows = posts_of()
    for row in rows:
        row["text"] = f"{EVIL} mail me: a.b@c.de or @somebody https://x.y/z 13812345678 word"
    found = insight_of(rows, tmp_path, by=["city"], examples=True)
    page = Page((tmp_path / "out" / "insight.html").read_text("utf-8"))
    page.check_harmless()
    assert found.total.examples.keys() == set(PLACES)
    assert EVIL in page.text and "mail me: … or … … … word" in page.text
    insight_of(rows, tmp_path, by=["city"])
    assert "mail me" not in (tmp_path / "out" / "insight.html").read_text("utf-8")


@pytest.mark.parametrize(("language", "said"), [("en", "Shares of places"), ("zh", "各地点的份额")])
def test_the_page_in_both_languages(language, said, tmp_path):
    rows = predicted_of([row | {"label": row["label"]} for row in posts_of()])
    odd = (None, "yesterday", "45421.3569", "2024-01-01T20:00:00Z")
    for i, row in enumerate(rows[:80]):
        row["time"] = odd[i % 4]
    rows[4]["label"] = "Home" if rows[4]["label"] == "Work" else "Work"
    rows += [{**row, "id": None, "p_Home": "x"} for row in rows[5:6]]
    rows[5]["label"] = None
    found = insight_of(rows, tmp_path, by=["city"], change="2024-03-01", language=language)
    assert len(found.summary.warnings) == 5 and len(found.summary.errors) == 2
    page = Page((tmp_path / "out" / "insight.html").read_text("utf-8"))
    assert page.all("html") == [{"lang": {"en": "en", "zh": "zh-CN"}[language]}]
    assert said in page.text
    words = set(re.findall(r"[A-Za-z]{3,}", page.text))
    if language == "zh":
        known = {"Home", "School", "Work", "docs", "ethics", "posts", "jsonl", "city", "Holm"}
        known |= {"UTC", "utc", "offset"}
        known |= {"sgmft", "insight", "MODEL", "TABLE", "cityWorkSchoolHome"}
        assert words <= known
    else:
        assert not re.search("[\u4e00-\u9fff]", page.text)
    figures = list((tmp_path / "out" / "figures").iterdir())
    assert len(figures) == len(page.all("svg")) >= len(found.by)


@pytest.mark.parametrize(("lacking", "said"), [(100, ["100"] * 4), (1, [])])
@pytest.mark.parametrize("language", ["en", "zh"])
def test_posts_without_a_day_are_counted_where_they_may_be(lacking, said, language, tmp_path):
    rows = posts_of()
    for row in rows[:lacking]:
        row["time"] = row["time"][11:]  # an hour
    found = insight_of(rows, tmp_path, language=language)
    text = Page((tmp_path / "out" / "insight.html").read_text("utf-8")).text
    words = {"en": r"About (\d+) posts without a day", "zh": r"约 (\d+) 条帖子没有可以读取的日期"}
    assert re.findall(words[language], text) == said
    told = re.findall(
        r"Not in (.+): about 100 posts", render("cli/templates/insight.txt", found=found)
    )
    assert told == (["weekday", "weekday, hour", "week", "month"] if said else [])


def test_no_place_stands_out_where_the_lead_may_be_chance(tmp_path):
    pages = []
    for most in (70, 120):
        rows = posts_of()
        for i, row in enumerate(rows):
            row["label"] = PLACES[0] if i < most else PLACES[1 + i % 2]
        insight_of(rows, tmp_path, by=["city"])
        pages.append(Page((tmp_path / "out" / "insight.html").read_text("utf-8")).text)
    assert "No place stands out. The most posts are from Home: 35 %" in pages[0]
    assert "No place stands out" not in pages[1] and "Most posts are from Home: 60 %" in pages[1]
    order = [pages[1].index(x) for x in ("Shares of places", "By city", "By hour")]
    assert order == sorted(order)


def test_the_language_is_the_users_own(tmp_path, run, monkeypatch):
    table = write_rows(posts_of(), tmp_path / "posts.csv")
    monkeypatch.delenv("LC_ALL", raising=False)
    monkeypatch.delenv("LC_MESSAGES", raising=False)
    monkeypatch.setenv("LANG", "zh_CN.UTF-8")
    for words, language in (((), "zh-CN"), (("--lang", "en"), "en")):
        done = run("insight", table, "-o", tmp_path / "out", *words, "--by", "city,id")
        assert done.returncode == 0, done.stderr
        assert "about 200 posts, of groups of fewer than 5 users" in done.stderr  # by id
        page = Page((tmp_path / "out" / "insight.html").read_text("utf-8"))
        assert page.all("html") == [{"lang": language}]


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("chromium") is None, reason="a browser shows it")
def test_a_phone_and_paper_show_all_of_the_page(tmp_path):
    tools = pytest.importorskip("playwright.sync_api", reason="playwright drives the browser")
    rows = [row | {"label": f"{row['label']} {'very ' * (i % 2) * 4}far away"}
            for i, row in enumerate(posts_of())]  # fmt: skip
    insight_of(rows, tmp_path, by=["city"], change="2024-03-01", examples=True)
    with tools.sync_playwright() as player:
        options = {"executable_path": shutil.which("chromium"), "args": ["--no-sandbox"]}
        browser = player.chromium.launch(**options)
        for media, width in (("screen", 360), ("print", 720)):
            page = browser.new_page(viewport={"width": width, "height": 800})
            page.emulate_media(media=media)
            page.goto((tmp_path / "out" / "insight.html").as_uri())
            assert page.evaluate("document.documentElement.scrollWidth") <= width
            for svg in page.query_selector_all("svg"):
                box, texts = svg.bounding_box(), svg.query_selector_all("text")
                for text in texts:
                    place = text.bounding_box()
                    assert place["x"] >= box["x"] - 1, text.text_content()
                    assert place["x"] + place["width"] <= box["x"] + box["width"] + 1
        browser.close()


def test_what_lies_in_a_shown_group_tells_nothing_of_a_hidden_one(tmp_path):
    rows = posts_of(300, 30)
    for i, row in enumerate(rows):
        alone = row["user"] == "name-of-1" and row["city"] == "A"
        row["district"] = "A one" if alone else f"{row['city']} {i % 2}"
    found = insight_of(predicted_of(rows), tmp_path, by=["city", "district"])
    assert {cell.value for cell in found.by["city"]} == {"A", "B"}
    districts = {cell.value for cell in found.by["district"]}
    assert districts >= {"B 0", "B 1"} and len(districts & {"A 0", "A 1"}) == 1
    for row in read_rows(tmp_path / "out" / "shares.parquet"):
        assert row["share"] == pytest.approx(round(row["share"], 2 if row["by"] else 3), abs=1e-12)


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda row: row | {"p_note": 1.0}, NO_SUM),  # an analyst's own
        (lambda row: {"p_Home": row["p_Home"], **row}, NO_SUM),
        (lambda row: {x: row[x] for x in row if x != "p_Home"}, NO_SUM),
    ],
)
def test_columns_that_are_no_probabilities_of_all_labels_are_refused(tmp_path, change, error):
    with pytest.raises(NoUsableRowError, match="0 posts have a label") as caught:
        insight_of([change(row) for row in predicted_of(posts_of())], tmp_path)
    assert error.split(",")[0] in str(caught.value)


def test_predictions_without_empty_columns_are_no_labels_by_hand(tmp_path):
    rows = [{x: y for x, y in row.items() if y is not None} for row in predicted_of(posts_of())]
    assert insight_of(rows, tmp_path).kind == "averaged"


def test_files_of_an_earlier_run_go(tmp_path):
    insight_of(posts_of(), tmp_path, change="2024-03-01")
    (tmp_path / "out" / "figures" / "99.svg").write_text("old")
    (tmp_path / "out" / "mine.txt").write_text("stays")
    insight_of(posts_of(), tmp_path)
    left = {x.name for x in (tmp_path / "out").rglob("*")}
    assert "mine.txt" in left and not left & {"change.csv", "change.parquet", "99.svg"}


@pytest.mark.parametrize(
    ("time", "day", "hour", "in_utc"),
    [
        ("20240509083400", "2024-05-09", 8, False),
        ("1715243640", "2024-05-09", 8, True),
        ("2024-05-09 08:34:00 UTC", "2024-05-09", 8, True),
        ("2024-05-09T08:34:00Z", "2024-05-09", 8, True),
        ("2024-05-09 08:34:00+00", "2024-05-09", 8, True),
        ("2024-05-09 08:34:00z", "2024-05-09", 8, True),
        ("2024-05-09 08:34 AM utc", "2024-05-09", 8, True),
        ("2024-05-09 08:34:00 GMT+0", "2024-05-09", 8, True),
        ("2024-05-09 08:34:00  +0000", "2024-05-09", 8, True),
        ("Thu May 09 2024 08:34:00 GMT+0000 (UTC)", "2024-05-09", 8, True),
        ("2024-05-09 08:34:00 GMT +0800", "2024-05-09", 8, False),
        ("2024-05-09 08:34:00+0030", "2024-05-09", 8, False),
        ("2024-05-09 08:34:00 UTC-05:00", "2024-05-09", 8, False),
        ("13/02/2024 08:34", "2024-02-13", 8, False),
        ("05/09/2024 08:34", None, 8, False),  # May or September
        ("05月09日 08:34", None, 8, False),
        ("2024-05-09", "2024-05-09", None, False),
        ("2024年5月9日 晚上8:34", "2024-05-09", 20, False),
        ("昨天 20:15", None, 20, False),
    ],
)
def test_a_time_says_what_is_certain(time, day, hour, in_utc):
    (found_day, found_hour), warnings = _read_time(Post("a", time=time), 8)
    shifted = hour if hour is None or not in_utc else hour + 8
    assert (found_day and str(found_day), found_hour) == (day, shifted)
    assert bool(warnings) == in_utc


@pytest.mark.parametrize(
    ("time", "day", "note"),
    [
        ("3小时前", None, "the time '3小时前' cannot be read"),
        ("晚上1:30", None, "the time '晚上1:30' cannot be read"),
        ("05/09/2024", None, "the time '05/09/2024' cannot be read"),
        ("45421", None, "the time '45421' cannot be read"),
        ("9999-12-31T23:59:59Z", None, "the time '9999-12-31T23:59:59Z' cannot be read"),
        ("上午9:00-下午5:00", None, "the time .* cannot be read"),
        ("45421.3333", "2024-05-09", "the time 45421.3333 is taken for .*, 2024-05-09 08:00"),
    ],
)
def test_a_time_that_may_mean_something_else_is_a_warning(time, day, note):
    (found, _), (warning,) = _read_time(Post("a", time=time), 8)
    assert (found and str(found)) == day and re.fullmatch(note, warning)


def test_days_that_a_program_wrote_as_midnights_have_no_hours(tmp_path):
    rows = [row | {"time": f"{row['time'][:10]} 00:00:00"} for row in posts_of()]
    found = insight_of(rows, tmp_path)
    assert {"weekday", "month"} <= found.by.keys() and not {"hour", GRID} & found.by.keys()


def test_hours_are_shown_without_days(tmp_path):
    rows = [row | {"time": row["time"][5:]} for row in posts_of()]
    rows = [
        row | {"time": "{}月{}日{}".format(*row["time"].replace(" ", "- ").split("-"))}
        for row in rows
    ]
    found = insight_of(rows, tmp_path)
    assert {"hour", "typical day"} <= found.by.keys() and "month" not in found.by


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"utc_offset": float("nan")}, "from -14 to 14"),
        ({"utc_offset": 900.0}, "from -14 to 14"),
        ({"change": "2024-02-30"}, "write the day as"),
    ],
)
def test_bad_options_of_times(tmp_path, options, why):
    with pytest.raises(SgmftError, match=why):
        insight_of(posts_of(), tmp_path, **options)
