"""Other columns: read as a slow loop reads them, learned from, missing, saved, and by commands."""

from __future__ import annotations

import csv
import json
import math
import warnings
from collections import Counter
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from sgmft import Post, SemanticLocator
from sgmft.errors import SgmftError, SgmftNotice
from sgmft.features.attributes import Attribute, AttributeReader, read_time, to_number
from sgmft.features.encode import Chunk
from sgmft.features.encoders.base import PostFeatures
from sgmft.locator.onnx.export import export_model
from sgmft.locator.onnx.locator import OnnxLocator

COLUMNS = ("gender", "followers", "hour", "weekday")


@pytest.fixture(scope="module")
def posts():
    """120 posts whose place only the hour tells; the text says nothing, nor do the followers."""
    rng, found = np.random.default_rng(0), []
    for i in range(120):
        label = ("Home", "Work")[i % 2]
        hour = int(rng.integers(10, 17) if i % 2 else rng.choice([20, 21, 22, 23, 0, 1, 6, 7]))
        row = {"gender": rng.choice(["m", "f", ""]), "followers": str(int(rng.lognormal(5, 2)))}
        time = f"2024-03-{1 + i % 28:02d} {hour:02d}:30"
        text = f"a day {rng.integers(9)}"
        found.append(Post(text, id=str(i), label=label, time=time, row=row, place=f"row {i + 1}"))
    return found


@pytest.fixture(scope="module")
def fitted(tiny, posts):
    with pytest.warns(SgmftNotice) as said:
        locator = SemanticLocator("tiny", attributes=COLUMNS).fit(posts[:80])
    (notice,) = said
    assert str(notice.message) == (
        "Attributes: gender (category), followers (number), hour (time), weekday (time)."
    )
    return locator


# --- one column ---


def slow_read(training, cells):
    """The numbers of cells, one post and one number at a time; whether they are of a category."""
    known = [cell for cell in training if cell]
    numbers = [x for x in map(to_number, known) if not math.isnan(x)]
    if numbers and len(numbers) >= 0.9 * len(known):
        shares = {}  # of distinct numbers, ascending
        for x in sorted(numbers):
            less, same = sum(y < x for y in numbers), sum(y == x for y in numbers)
            shares[x] = (less + same / 2) / len(numbers)
        gaps, found = len(numbers) < len(training), []
        for x in map(to_number, cells):
            below = max((y for y in shares if y <= x), default=min(shares))
            above = min((y for y in shares if y >= x), default=max(shares))
            weight = (x - below) / (above - below) if below < x < above else 0.0
            share = shares[below] + weight * (shares[above] - shares[below])
            z = 0.0 if math.isnan(x) else (share - 0.5) * math.sqrt(12)
            found.append([z] + [float(math.isnan(x))] * gaps)
        return found, False
    count = Counter(known)
    kept = sorted(value for value, n in count.items() if n >= 5)
    others = len(kept) < len(count)
    found = []
    for cell in cells:
        row = [float(cell == value) for value in kept]
        row += [float(cell != "" and cell not in kept)] * others
        found.append(row + [float(cell == "")] * (len(known) < len(training)))
    return found, True


NUMBERS = st.one_of(st.integers(-(10**40), 10**40), st.floats(), st.sampled_from(["1,234.5", "12"]))
CELLS = st.one_of(st.text(max_size=3), st.sampled_from(["", "m", "f"]), NUMBERS.map(str))


@given(st.data())
def test_a_column_is_read_as_a_slow_loop_reads_it(data):
    kind = data.draw(st.sampled_from([CELLS, NUMBERS.map(str), st.sampled_from(["m", "f", ""])]))
    training, cells = (data.draw(st.lists(kind, min_size=1, max_size=30)) for _ in range(2))
    column = Attribute.fit("x", training)
    expected, is_category = slow_read(training, cells)
    read = column.read(cells)
    assert read.dtype == np.float32 and np.isfinite(read).all()
    assert (column.kind == "category") == is_category
    np.testing.assert_allclose(read, np.reshape(expected, read.shape), rtol=1e-4, atol=1e-4)
    again = Attribute(**json.loads(json.dumps(asdict(column))))
    np.testing.assert_array_equal(again.read(cells), read)
    assert Attribute.fit("x", data.draw(st.permutations(training))) == column
    alone = np.concatenate([column.read([cell]) for cell in cells])
    np.testing.assert_array_equal(alone, read)


TIMES = {  # hour and weekday, None where they are not said
    "Sat Dec 05 12:30:00 +0800 2020": (12.5, 5),
    "2020-12-05T12:30:00.000Z": (12.5, 5),
    "2020-12-05 12:30:00+08:00": (12.5, 5),
    "20201205123000": (12.5, 5),
    "2020年12月5日 12:30": (12.5, 5),
    "1607171400": (12.5, 5),
    "1607171400123": (12.5, 5),
    "2020-12-05": (None, 5),
    "12-05 12:30": (12.5, None),
    "2月29日 12:30": (12.5, None),
    "12:30": (12.5, None),
    "2020": (None, None),
    "2020年12月5日星期六 下午12:30": (12.5, 5),
    "2020/12/5 周六 12点半": (12.5, 5),
    "44170.520833": (12.5, 5),  # days of a spreadsheet
    "44170,5208": (12.5, 5),
    "44170": (None, None),  # may be any number
    "61170.5": (None, None),
    "上午8:30": (8.5, None),
    "8:30 下午": (20.5, None),
    "下午20：30": (20.5, None),
    "晚上08:30:12": (20.5, None),
    "傍晚6点": (18, None),
    "凌晨12:30": (0.5, None),
    "中午11:30": (11.5, None),
    "中午1时30分05秒": (13.5, None),
    "晚上12:30": (None, None),  # of this day or the next
    "晚上1:30": (None, None),
    "昨天 20:30": (20.5, None),
    "Yesterday at 8:30 PM": (20.5, None),
    "昨天": (None, None),
    "3小时前": (None, None),
    "3h": (None, None),
    "2天前": (None, None),
    "": (None, None),
    "24年12月5日 8:30": (8.5, 3),
    "24/12/05 08:30": (8.5, None),  # or of 2005
    "24-12-05T08:30": (8.5, None),
    "8:30 05/12/24": (8.5, None),
    "24.12.5": (None, None),
    "241205": (None, None),
    "113/12/05 08:30": (8.5, None),  # of Taiwan
    "民國113年12月5日 8:30": (8.5, None),
    "98年12月5日 8:30": (8.5, None),
    "8:30 11/05/2020": (8.5, None),
    "0001-01-01T00:00:00Z": (None, None),
    "9999-12-31T23:59:59Z": (None, None),
    "0.354166667": (None, None),
    "上午 9:00-下午5:00": (None, None),
    "2020-12-05 9:00-17:00": (None, None),
    "2020-12-05 8:05-8:50": (None, None),
    "9:00-10:00": (None, None),
    "9 AM - 5 PM": (None, None),
    "9点-17点": (None, None),
    "2020-12-05 09:00:00-10:00": (9, 5),  # a zone
    "2020/12/5 下午 3 時": (15, 5),
    "2020-12-05 24:00": (0, None),
    "午夜12点": (0, None),
    "半夜1点": (None, None),
    "夜里11点": (23, None),
    "12月5日 晚11点": (23, None),
    "早8点": (8, None),
    "昨晚8点一刻": (20.25, None),
    "8点钟": (8, None),
    "3 点 05 分": (3 + 5 / 60, None),
    "2020-12-05 PM 3:30": (15.5, 5),
    "午後3時": (15, None),
    "２０２０－１２－０５　０８：３０": (8.5, 5),
    "8:30 PM · Dec 5, 2020": (20.5, 5),
    "8:30 PM - 5 Dec 2020": (20.5, 5),
    "2020-12-05 08:30 来自 iPhone": (8.5, 5),
    "Sat Dec 05 2020 08:30:00 GMT+0800 (China Standard Time)": (8.5, 5),
    "2020:12:05 08:30:00": (8.5, 5),  # of a camera
}


@pytest.mark.parametrize("cell", TIMES)
def test_times_as_collectors_write_them(cell):
    expected = [math.nan if x is None else x for x in TIMES[cell]]
    np.testing.assert_array_equal(read_time(cell), expected)
    assert read_time("14") == (14, 14)  # a column of hours


@pytest.mark.parametrize(
    ("cell", "number"),
    [
        ("1,234,567.5", 1234567.5),
        ("-10,000", -10000),
        ("0,125", None),  # a decimal comma
        ("-0,012", None),
        ("1234,567", None),
    ],
)
def test_thousands_are_told_from_decimals(cell, number):
    np.testing.assert_equal(to_number(cell), math.nan if number is None else number)


@given(st.one_of(st.text(max_size=30), NUMBERS.map(str)))
def test_no_time_is_too_odd_to_be_read(cell):
    for name, period in (("hour", 24), ("weekday", 7)):
        made = Attribute.fit(name, ["2020-01-01 10:00", cell])
        x = read_time(cell)[name == "weekday"]
        turns = [2 * math.pi * k * x / period for k in (1, 2, 3)]
        expected = [*map(math.cos, turns), *map(math.sin, turns)]
        expected = [0.0] * 6 + [1.0] if math.isnan(x) else expected + [0.0] * made.gaps
        np.testing.assert_allclose(made.read([cell])[0], expected, atol=1e-5)


def test_midnight_is_near_eleven_at_night():
    midnight, near, far = Attribute.fit("hour", ["1"]).read(["0", "23", "12"])
    assert np.linalg.norm(midnight - near) < np.linalg.norm(midnight - far) / 2


# --- what is refused ---


@pytest.mark.parametrize(
    ("columns", "reason"),
    [
        (["sex"], "the posts have no column 'sex': use gender, followers."),
        (["empty"], "'empty' has nothing that can be read: leave it out."),
        (["place"], "'place' is the label itself"),
        (["hour"], "'hour' has nothing that can be read: leave it out; --column"),
    ],
    ids=str,
)
def test_columns_that_cannot_be_learned_from(tiny, posts, columns, reason):
    row = {"gender": "m", "followers": "1"}
    row |= {} if columns == ["sex"] else {"empty": "", "place": "Home"}
    wrong = [replace(x, time="soon", row=row | {"place": x.label}) for x in posts]
    wrong = [replace(x, row=row) for x in posts] if columns == ["sex"] else wrong
    with pytest.raises(SgmftError, match=reason):
        SemanticLocator("tiny", attributes=columns).fit(wrong)


@pytest.mark.parametrize(
    "options",
    [{"method": "text-only"}, {"preset": "elements"}, {"tune": "lora"}],
    ids=str,
)
def test_methods_that_read_none_say_so(options):
    with pytest.raises(SgmftError, match="reads no attributes: leave them out"):
        SemanticLocator(attributes=["hour"], **options)


# --- learning ---


def accuracy(locator, some):
    labels = [post.label for post in some]
    return np.mean([a == b for a, b in zip(locator.predict(some), labels, strict=True)])


def bare(some):
    return [replace(post, row={}, time=None) for post in some]


def test_the_default_learns_from_them_and_forgets_nothing_when_saved(fitted, posts, tmp_path):
    test = posts[80:]
    assert accuracy(fitted, test) > 0.9
    assert accuracy(SemanticLocator("tiny").fit(posts[:80]), test) < 0.7
    fitted.save_pretrained(tmp_path / "model")
    again = SemanticLocator.from_pretrained(tmp_path / "model")
    assert again.attributes.columns == fitted.attributes.columns
    np.testing.assert_array_equal(again.predict_proba(test), fitted.predict_proba(test))
    encoded = again.encode(test).features.attributes
    np.testing.assert_array_equal(encoded, again.encode(test[::-1]).features.attributes[::-1])


def test_what_all_posts_lack_is_one_warning_and_counts_as_missing(fitted, posts):
    test = posts[80:]
    with pytest.warns(UserWarning) as said:
        probs = fitted.predict_proba(bare(test))
    (warning,) = said
    expected = f"The posts have no column {', '.join(COLUMNS)}, from which the model learned."
    assert str(warning.message) == expected
    empty = [replace(x, time="", row={"gender": "", "followers": "none"}) for x in test]
    np.testing.assert_array_equal(fitted.predict_proba(empty), probs)
    with warnings.catch_warnings(action="error"):
        fitted.predict_proba(empty[:1])
        fitted.predict_proba([*bare(test), test[0]])
        fitted.predict_proba([])


def test_all_windows_of_a_long_text_share_them(fitted, posts):
    rows = [PostFeatures(None, None, None, None, None)] * 5
    chunk = Chunk([posts[0], Post(error="bad"), posts[1]], [0, 2], ["", ""], rows, [2, 0])
    ((_, features),) = fitted.attributes.features([chunk], fitted.encoder.info, False)
    one, other = fitted.encode(posts[:2]).features.attributes
    np.testing.assert_array_equal(features.attributes, [one] * 4 + [other])


@pytest.mark.filterwarnings("ignore:Attributes")
@pytest.mark.parametrize(
    "method", ["gated-experts", pytest.param("low-rank", marks=pytest.mark.slow)]
)
def test_an_exported_model_reads_them_too(posts, method, tmp_path):
    settings = {"epochs": 1} if method == "low-rank" else {}
    locator = SemanticLocator(method=method, attributes=["hour"], settings=settings)
    export_model(locator.fit(posts[:40]), tmp_path / "onnx")
    found = OnnxLocator.load(tmp_path / "onnx").predict_proba(posts[40:50])
    np.testing.assert_allclose(found, locator.predict_proba(posts[40:50]), atol=1e-5)


def test_held_out_posts_decide_nothing_about_columns(tiny, posts):
    """Those that choose an epoch; of a comparison's see test_comparison."""
    rows = [
        replace(x, row=x.row | {"user": f"u{i}" if i < 60 else "all"}) for i, x in enumerate(posts)
    ]
    options = {"method": "low-rank", "settings": {"epochs": 1}, "val_size": 0.3}
    locator = SemanticLocator(attributes=["followers", "user"], **options).fit(rows)
    every = AttributeReader(["followers"]).fit(rows).columns[0]
    assert locator.attributes.columns[0].values != every.values
    assert locator.training.data.validation == 36


def test_an_explanation_is_of_the_prediction(fitted, posts):
    for post in posts[80:84]:
        found = fitted.explain(post)
        assert found.probability == pytest.approx(fitted.predict_proba([post]).max(), abs=1e-6)


# --- commands ---


def test_by_the_command_line(run, posts, store, tmp_path):
    table, model = tmp_path / "posts.csv", tmp_path / "model"
    with table.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["id", "text", "label", "created", *posts[0].row])
        writer.writerows([x.id, x.text, x.label, x.time, *x.row.values()] for x in posts)
    named = ["--attributes", "gender, hour", "--column", "time=created", "--features", store]
    ended = run("train", table, "-o", model, *named)
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr.count("Attributes: gender (category), hour (time)") == 1
    ended = run("predict", model, table, "-o", tmp_path / "out.csv", *named[2:])
    rows = list(csv.DictReader((tmp_path / "out.csv").open()))
    assert sum(row["label"] == row["input_label"] for row in rows) > 110, ended.stderr
    ended = run("predict", model, table, "-o", tmp_path / "out.csv", "--features", store)
    assert "Warning: The posts have no column hour, from which" in ended.stderr
    options = ["--methods", "gated-experts,no-attributes,text-only", "--seeds", 1, "--workers", 1]
    ended = run("compare", table, "-o", tmp_path / "c", *named, *options, "--tables", 1)
    assert ended.returncode == 0, ended.stderr
    (result,) = json.loads((tmp_path / "c" / "results.json").read_text("utf-8"))
    reads = {line["key"]: line["reads"] for line in result["lines"]}
    assert "gender and hour" in reads.pop("gated-experts")
    assert set(reads) == {"no-attributes", "text-only"}
    assert not any("hour" in words for words in reads.values())
    figures = {x["key"]: x["summary"]["accuracy"]["mean"] for x in result["lines"]}
    assert figures["gated-experts"] > figures["no-attributes"] + 0.2
