import json
import logging
import math
import re
import warnings
import xml.etree.ElementTree as ElementTree
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from html_page import Page
from sgmft.data.preprocessing.images import ImageError
from sgmft.data.preprocessing.thumbnails import SIDE, make_thumbnail
from sgmft.errors import SgmftError
from sgmft.evaluation.figures import confusion_figure, history_figure, save_confusion
from sgmft.evaluation.metrics import evaluate
from sgmft.evaluation.report import (
    ExamplePost,
    overview_figure,
    write_demo_report,
    write_evaluation,
)

EVIL = "<script>alert('&')</script>"
DOCS = Path(__file__).parents[2] / "docs"
EPOCHS = [
    {"epoch": k, "loss": 1 / k, "accuracy": 1 - 1 / k, "val_loss": math.nan, "gate_entropy": 0.9}
    for k in range(1, 4)
]


def evaluation_of(labels, posts=90, **options):
    rng = np.random.default_rng(0)
    true = np.arange(posts) % len(labels)
    probs = rng.dirichlet(np.ones(len(labels)), posts) + 2 * np.eye(len(labels))[true]
    return evaluate(probs / 3, [labels[k] for k in true], labels, **options)


def words_of(svg):
    return [element.text for element in ElementTree.fromstring(svg).iter() if element.text]


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (600, 300), "orange").save(path)
    return path


@pytest.mark.parametrize("count", [1, 2, 7, 23])
def test_confusion_figure_says_every_count_and_share(count):
    evaluation = evaluation_of([f"地点 {k}" for k in range(count)], posts=230)
    words = words_of(confusion_figure(evaluation))
    assert set(evaluation.labels) <= set(words)
    for row in evaluation.confusion:
        for posts in filter(None, row):
            share = posts / sum(row)
            assert str(posts) in words
            assert ("<1 %" if share < 0.005 else f"{share:.0%}".replace("%", " %")) in words


def test_confusion_figure_keeps_hostile_and_long_labels_apart():
    start = "Outdoors & Recreation, somewhere far away, "
    labels = [EVIL, "$x_1$ costs $5", start + "one", start + "two", "a\x00b\nc"]
    svg = confusion_figure(evaluation_of(labels))
    words = words_of(svg)
    assert "<script" not in svg
    assert "$x_1$ costs $5" in words
    assert len({word for word in words if "Outdoors" in word}) == 2
    assert max(map(len, words)) < 100


@pytest.mark.parametrize("figure", [confusion_figure, lambda _: history_figure(EPOCHS)])
def test_figures_are_the_same_every_time_and_follow_the_page(figure):
    evaluation = evaluation_of(["a", "b"])
    svg = figure(evaluation)
    assert svg == figure(evaluation)
    assert svg.startswith("<svg") and "currentColor" in svg
    assert "<image" not in svg and "dc:date" not in svg
    assert not re.search(r'id="(figure|axes|text)_', svg)


@pytest.mark.parametrize("fonts", [True, False])
def test_save_confusion(tmp_path, monkeypatch, caplog, fonts):
    if not fonts:
        monkeypatch.setattr("sgmft.evaluation.figures._CJK_FONTS", ())
    evaluation = evaluation_of(["家", "学校", "Shopping Center"])
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        save_confusion(evaluation, tmp_path / "figure.PNG")
    assert not caplog.records
    with Image.open(tmp_path / "figure.PNG") as picture:
        assert picture.format == "PNG" and min(picture.size) > 300
        assert picture.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
    save_confusion(evaluation, tmp_path / "figure.svg")
    assert (tmp_path / "figure.svg").read_text("utf-8") == confusion_figure(evaluation)
    with pytest.raises(SgmftError, match=r"\.png or \.svg"):
        save_confusion(evaluation, tmp_path / "figure.pdf")


def test_history_leaves_out_what_has_no_numbers():
    words = words_of(history_figure(EPOCHS))
    assert {"Loss", "Accuracy", "Guidance, relative entropy", "training", "gate"} <= set(words)
    assert not {"validation", "elements"} & set(words)
    words = words_of(history_figure([{"loss": 1, "accuracy": None, "gate_entropy": math.nan}]))
    assert "Loss" in words and "Guidance, relative entropy" not in words
    with pytest.raises(SgmftError, match="no epoch"):
        history_figure([])


@pytest.mark.parametrize(("language", "name"), [("en", "overview.svg"), ("zh", "overview.zh.svg")])
def test_overview_is_the_one_in_the_docs(language, name):
    assert (DOCS / name).read_text("utf-8") == overview_figure(language)
    assert "86 %" in words_of(overview_figure(language))
    with pytest.raises(SgmftError, match="en and zh, not 'fr'"):
        overview_figure("fr")


def test_thumbnail_is_small_upright_and_in_proportion(tmp_path, picture):
    import base64

    def size(path):
        kind, data = make_thumbnail(path).split(",")
        assert kind == "data:image/jpeg;base64"
        with Image.open(BytesIO(base64.b64decode(data))) as small:
            return small.size

    assert size(picture) == (SIDE, SIDE // 2)
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.new("RGB", (600, 300)).save(tmp_path / "turned.jpg", exif=exif)
    assert size(tmp_path / "turned.jpg") == (SIDE // 2, SIDE)
    Image.new("RGB", (2000, 1)).save(tmp_path / "line.png")
    assert size(tmp_path / "line.png") == (SIDE, 1)
    with pytest.raises(ImageError):
        make_thumbnail(tmp_path)


def test_evaluation_report(tmp_path, picture):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff and no more")
    evaluation = evaluation_of(["Home", "School"], groups={"user": [f"u{k}" for k in range(90)]})
    sure = {"Home": 0.9, "School": 0.1}
    examples = [
        ExamplePost("good morning", [picture, broken, tmp_path / "nothing.png"], "Home", sure),
        ExamplePost("late again", [], "School", sure, note="a note"),
        ExamplePost("", [picture], None, sure),
        ExamplePost("no chance", [], "Home", {}),
        ExamplePost("odd numbers \ud83d", [], None, {"Home": math.nan, "School": 7.0}),
    ]
    folder = tmp_path / "new" / "folder"
    path = write_evaluation(
        folder, evaluation, title="Test", about={"seed": "0"}, examples=examples
    )
    assert sorted(file.name for file in folder.iterdir()) == [
        "confusion.png",
        "metrics.json",
        "report.html",
    ]
    saved = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert saved == evaluation.to_dict()
    page = Page(path.read_text("utf-8"))
    for words in (
        f"{100 * evaluation.accuracy.value:.1f}\u00a0%",
        "✓ Right: Home",
        "✗ Wrong: predicted Home, it is School",
        "Predicted Home",
        "Not predicted (it is Home)",
        "broken.jpg is cut off or damaged",
        "there is no file nothing.png",
        "a note",
        "The 40 largest of 90 values.",
    ):
        assert words in page.text
    assert len(page.all("img")) == 2 and len(page.all("svg")) == 3
    assert "The idea" not in page.text and not re.search('role="note"', page.source)


def test_demo_report(tmp_path, picture):
    path = write_demo_report(
        tmp_path / "demo" / "index.html",
        evaluation=evaluation_of(["Home", "School"]),
        history=EPOCHS,
        examples=[ExamplePost("hello", [picture], "Home", {"Home": 1.0})],
        about={"method": "Gated experts (ours)"},
        notice="Synthetic data",
        errors={"no text": 1200},
    )
    page = Page(path.read_text("utf-8"))
    for words in (
        "The idea",
        "those of Gated experts (ours).",
        "Training",
        "Synthetic data",
        "no text",
        "1,200",
    ):
        assert words in page.text
    assert len(page.all("svg")) == 5
    identifiers = [a["id"] for _, a in page.tags if "id" in a]
    assert len(identifiers) == len(set(identifiers))


def test_pages_escape_everything_and_fetch_nothing(tmp_path, picture):
    pictures = [picture, tmp_path / f"{EVIL}.png"]
    path = write_demo_report(
        tmp_path / "page.html",
        evaluation=evaluation_of([EVIL, "b"], groups={EVIL: [EVIL] * 90}),
        history=[],
        examples=[ExamplePost(EVIL, pictures, EVIL, {EVIL: 1.0}, EVIL)],
        about={EVIL: EVIL},
        notice=EVIL,
        errors={EVIL: 1},
    )
    page = Page(path.read_text("utf-8"))
    assert page.text.count(EVIL) >= 12
    page.check_harmless("data:image/jpeg;base64,")


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(SgmftError, match="cannot be written"):
        write_evaluation(tmp_path / "file", evaluation_of(["a", "b"]), title="", about={})
