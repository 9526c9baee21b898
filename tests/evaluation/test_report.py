import json
import logging
import math
import re
import warnings
from pathlib import Path

import numpy as np
import pytest
from matplotlib.font_manager import fontManager
from PIL import Image

from html_page import EVIL, Page, svg_words
from sgmft import Post
from sgmft.errors import Message, SgmftError
from sgmft.evaluation.figures import confusion_figure, save_confusion, write_evaluation, write_page
from sgmft.evaluation.metrics import evaluate
from sgmft.utils.templates import render

DOCS = Path(__file__).parents[2] / "docs"
LOSSES = {"val_loss": math.nan, "gate_entropy": 0.9}
EPOCHS = [{"epoch": k, "loss": 1 / k, "accuracy": 1 - 1 / k, **LOSSES} for k in range(1, 4)]
SURE = {"Home": 0.9, "School": 0.1}


def evaluation_of(labels, posts=90, **options):
    rng = np.random.default_rng(0)
    true = np.arange(posts) % len(labels)
    probs = rng.dirichlet(np.ones(len(labels)), posts) + 2 * np.eye(len(labels))[true]
    return evaluate(probs / 3, [labels[k] for k in true], labels, **options)


@pytest.fixture
def picture(tmp_path):
    path = tmp_path / "picture.png"
    Image.new("RGB", (600, 300), "orange").save(path)
    return path


@pytest.mark.parametrize("count", [1, 2, 7, 23])
def test_confusion_figure_says_every_count_and_share(count):
    evaluation = evaluation_of([f"地点 {k}" for k in range(count)], posts=230)
    words = svg_words(confusion_figure(evaluation.labels, evaluation.confusion))
    assert set(evaluation.labels) <= set(words)
    for row in evaluation.confusion:
        for posts in filter(None, row):
            share = posts / sum(row)
            assert str(posts) in words
            assert ("<1 %" if share < 0.005 else f"{share:.0%}".replace("%", " %")) in words


def test_confusion_figure_keeps_hostile_and_long_labels_apart():
    start = "Outdoors & Recreation, somewhere far away, "
    labels = [EVIL, "$x_1$ costs $5", start + "one", start + "two", "a\x00b\nc"]
    svg = confusion_figure(labels, evaluation_of(labels).confusion)
    words = svg_words(svg)
    assert "<script" not in svg
    assert "$x_1$ costs $5" in words
    assert len({word for word in words if "Outdoors" in word}) == 2
    assert max(map(len, words)) < 100


def drawn(evaluation):
    return confusion_figure(evaluation.labels, evaluation.confusion)


def figures_of(tmp_path, evaluation, **options):
    """The drawings of a page, in their order: history, if any, reliability, selective, ..."""
    write_page(tmp_path / "page.html", evaluation, title="", about={}, **options)
    page = (tmp_path / "page.html").read_text("utf-8")
    return re.findall("<svg.*?</svg>", page, re.DOTALL)


def test_figures_are_the_same_every_time_and_follow_the_page():
    evaluation = evaluation_of(["a", "b"])
    svg = drawn(evaluation)
    assert svg == drawn(evaluation)
    assert svg.startswith("<svg") and "currentColor" in svg
    assert "<image" not in svg and "dc:date" not in svg
    assert not re.search(r'id="(figure|axes|text)_', svg)


@pytest.mark.parametrize("fonts", [True, False])
def test_save_confusion(tmp_path, monkeypatch, caplog, fonts):
    if not fonts:
        own = [font for font in fontManager.ttflist if font.name == "DejaVu Sans"]
        monkeypatch.setattr(fontManager, "ttflist", own)
    evaluation = evaluation_of(["家", "学校", "Shopping Center"])
    with warnings.catch_warnings(), caplog.at_level(logging.WARNING):
        warnings.simplefilter("error")
        save_confusion(evaluation.labels, evaluation.confusion, tmp_path / "figure.png")
    assert not caplog.records
    with Image.open(tmp_path / "figure.png") as picture:
        assert picture.format == "PNG" and min(picture.size) > 300
        assert picture.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)


def test_history_leaves_out_what_has_no_numbers(tmp_path):
    evaluation = evaluation_of(["a", "b"])
    words = svg_words(figures_of(tmp_path, evaluation, history=EPOCHS)[0])
    assert {"Loss", "Accuracy", "Guidance, relative entropy", "training", "gate"} <= set(words)
    assert not {"validation", "elements"} & set(words)
    empty = [{"epoch": k, "loss": 1, "accuracy": None, "gate_entropy": math.nan} for k in (1, 2)]
    words = svg_words(figures_of(tmp_path, evaluation, history=empty)[0])
    assert not {"Accuracy", "Guidance, relative entropy"} & set(words)


@pytest.mark.parametrize("temperature", [1.0, 1.7])
def test_what_the_figures_of_a_page_show(tmp_path, temperature):
    evaluation = evaluation_of(["a", "b"], temperature=temperature)
    reliability, selective, _ = figures_of(tmp_path, evaluation)
    dots = re.findall('<circle cx="([^"]+)" cy="([^"]+)"', reliability)
    some = [x for x in evaluation.calibration.bins if x.posts]
    places = [(58 + 340 * x.probability, 302 - 290 * x.accuracy) for x in some]
    assert np.array(dots, float) == pytest.approx(np.array(places), abs=0.06)
    assert ("before temperature scaling" in reliability) == (temperature != 1)
    points = re.findall('<circle cx="([^"]+)"', selective)
    curve = evaluation.selective.curve
    assert np.array(points, float) == pytest.approx(
        [58 + 320 * x.answered for x in curve], abs=0.06
    )


@pytest.mark.parametrize(("language", "name"), [("en", "overview.svg"), ("zh", "overview.zh.svg")])
def test_overview_is_the_one_in_the_docs(language, name):
    drawing = render("evaluation/templates/overview.svg", language=language)
    assert (DOCS / name).read_text("utf-8") == drawing
    assert "86 %" in svg_words(drawing)


def test_evaluation_report(tmp_path, picture):
    broken = tmp_path / "broken.jpg"
    broken.write_bytes(b"\xff\xd8\xff and no more")
    evaluation = evaluation_of(["Home", "School"], groups={"user": [f"u{k}" for k in range(90)]})
    examples = [
        (Post("good morning", [picture, broken, tmp_path / "nothing.png"], label="Home"), SURE),
        (Post("late again", [], label="School"), SURE),
        (Post("", [picture], label="Home"), SURE),
        (Post("odd numbers \ud83d", [], label="Home"), {"Home": math.nan, "School": 7.0}),
    ]
    folder = tmp_path / "new" / "folder"
    write_evaluation(folder, evaluation, title="Test", about={"seed": "0"}, examples=examples)
    names = {file.name for file in folder.iterdir()}
    assert names == {"confusion.png", "metrics.json", "report.html"}
    saved = json.loads((folder / "metrics.json").read_text("utf-8"))
    assert saved == evaluation.to_dict()
    page = Page((folder / "report.html").read_text("utf-8"))
    for words in (
        f"{100 * evaluation.accuracy.value:.1f}\u00a0%",
        "✓ Right: Home",
        "✗ Wrong: predicted Home, it is School",
        "broken.jpg is cut off or damaged",
        "there is no file nothing.png",
        "The 40 largest of 90 values.",
    ):
        assert words in page.text
    assert len(page.all("img")) == 2 and len(page.all("svg")) == 3
    assert "The idea" not in page.text and not re.search('role="note"', page.source)
    (tmp_path / "file").write_text("")
    with pytest.raises(SgmftError, match="cannot be written"):
        write_evaluation(tmp_path / "file", evaluation, title="", about={})


def test_a_report_in_chinese_has_the_same_numbers_and_labels(tmp_path, picture):
    groups, parts = {"mood": ["good", "text"] * 45}, ["text", "text and pictures"] * 45
    evaluation = evaluation_of(["Home", "School"], groups=groups, parts=parts, temperature=1.7)
    about = {"method": "Text only (logistic regression)", "encoder": "x, cleaning y"}
    given = {"about": about, "history": EPOCHS, "overview": False}
    given["examples"] = [(Post("late again", [picture], label="Home", id="p 7"), SURE)]
    pages = {}
    for language in ("en", "zh"):
        path = tmp_path / f"{language}.html"
        title = Message("Evaluation on {name}", name="posts.csv")
        write_page(path, evaluation, title=title, language=language, **given)
        pages[language] = Page(path.read_text("utf-8"))
    chinese = pages["zh"]
    assert chinese.all("html") == [{"lang": "zh-CN"}] and "评估报告：posts.csv" in chinese.text
    assert all(x in chinese.text for x in ("每 100 条帖子中", "概率可信吗？", "真实 ↓", "训练"))
    assert pages["en"].numbers() == chinese.numbers()
    assert "仅文字（逻辑回归）" in chinese.text and "x，清洗方式 y" in chinese.text
    kept = "Home|School|late again|posts.csv|mood|good|text|F1|ROC|T|Brier|p|x|y"
    assert re.findall("[A-Za-z]+", re.sub(kept, "", chinese.text)) == []
    assert "p 7" in pages["en"].text and "1 of " in pages["en"].text


def demo_page(path, word, evaluation, pictures, **options):
    """The page of a demonstration, with `word` wherever a user's words can stand."""
    write_page(
        path,
        evaluation,
        title="t",
        examples=[(Post(word, pictures, label=word), {word: 1.0})],
        about={"method": word, word: word},
        notice=word,
        errors={word: 1200},
        overview=True,
        **options,
    )
    return Page(path.read_text("utf-8"))


def test_demo_report(tmp_path, picture):
    path, evaluation = tmp_path / "demo" / "index.html", evaluation_of(["Home", "School"])
    page = demo_page(path, "Gated experts", evaluation, [picture], history=EPOCHS)
    for words in ("The idea", "those of Gated experts.", "Training", "1,200"):
        assert words in page.text
    assert len(page.all("svg")) == 5
    identifiers = [a["id"] for _, a in page.tags if "id" in a]
    assert len(identifiers) == len(set(identifiers))


def test_pages_escape_everything_and_fetch_nothing(tmp_path, picture):
    evaluation = evaluation_of([EVIL, "b"], groups={EVIL: [EVIL] * 90})
    pictures = [picture, tmp_path / f"{EVIL}.png"]
    page = demo_page(tmp_path / "page.html", EVIL, evaluation, pictures)
    assert page.text.count(EVIL) >= 12
    page.check_harmless("#", "data:image/jpeg;base64,")
