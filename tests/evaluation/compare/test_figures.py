import math
import re
import warnings
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest
from matplotlib.font_manager import fontManager
from PIL import Image
from sklearn.metrics import silhouette_score

from html_page import EVIL, svg_words
from sgmft.errors import SgmftError
from sgmft.evaluation.compare.figures import (
    TsnePanel,
    project_representations,
    render_panels,
    save_panels,
)


def clouds(labels, posts=60, width=6, spread=1.0, seed=0):
    """Posts (N, D) around one random middle for each label, and their labels."""
    rng = np.random.default_rng(seed)
    classes = np.arange(posts) % len(labels)
    middles = 3 * rng.normal(size=(len(labels), width))
    features = middles[classes] + spread * rng.normal(size=(posts, width))
    return features, [labels[k] for k in classes]


def scattered(key, labels, posts=60, seed=0, title=None):
    """A panel without t-SNE's work."""
    points = np.random.default_rng(seed).normal(size=(posts, 2))
    truth = [labels[k % len(labels)] for k in range(posts)]
    return TsnePanel(key, title or key, points.tolist(), truth, 0.125, 1.5)


def slow_separation(features, labels):
    """trace(S_b) / trace(S_w) from the scatter matrices themselves, post by post."""
    width = len(features[0])
    middle = sum(features) / len(features)
    between, within = np.zeros((width, width)), np.zeros((width, width))
    for label in set(labels):
        own = [row for row, name in zip(features, labels, strict=True) if name == label]
        mean = sum(own) / len(own)
        between += len(own) * np.outer(mean - middle, mean - middle)
        for row in own:
            within += np.outer(row - mean, row - mean)
    return np.trace(between) / np.trace(within)


def project(features, labels):
    return project_representations("k", "t", features, labels)


def test_measures_are_those_of_the_features_not_of_the_map():
    features, labels = clouds(["家", "学校", "Work"])
    panel = project(features, labels)
    assert (panel.key, panel.title, panel.labels) == ("k", "t", labels)
    assert panel.silhouette == pytest.approx(silhouette_score(features, labels), abs=1e-12)
    assert panel.separation == pytest.approx(slow_separation(features, labels), rel=1e-12)
    assert panel.silhouette != pytest.approx(silhouette_score(panel.points, labels), abs=1e-3)


def test_measures_do_not_follow_shift_turn_or_scale():
    features, labels = clouds(["a", "b"], posts=20)
    turn, _ = np.linalg.qr(np.random.default_rng(1).normal(size=(6, 6)))
    one = project(features, labels)
    other = project(1e3 * features @ turn + 7, labels)
    assert other.silhouette == pytest.approx(one.silhouette, rel=1e-9)
    assert other.separation == pytest.approx(one.separation, rel=1e-9)
    stretched = project(features * [100, 1, 1, 1, 1, 1], labels)
    assert stretched.separation != pytest.approx(one.separation, rel=0.05)  # not standardised


def test_tighter_labels_measure_higher_and_lie_apart_on_the_map():
    loose = project(*clouds(["a", "b", "c"], spread=4.0))
    tight = project(*clouds(["a", "b", "c"], spread=0.3))
    assert tight.silhouette > loose.silhouette
    assert tight.separation > loose.separation
    points, truth = np.array(tight.points), np.array(tight.labels)
    squares = np.square(points[:, None] - points).sum(axis=2)
    assert (truth[np.argsort(squares)[:, 1]] == truth).all()  # of the nearest other point


def test_the_map_is_the_same_every_time_whatever_the_precision():
    features, labels = clouds(["a", "b"], posts=30)
    narrow = features.astype(np.float32)
    one, again, wide = (project(x, labels) for x in (narrow, narrow, narrow.astype(float)))
    assert one == again == wide


@pytest.mark.parametrize("posts", [1, 2, 3, 4, 5, 6])
@pytest.mark.parametrize("kind", ["random", "constant", "one feature", "one line"])
def test_few_posts_and_dull_features(posts, kind):
    rng = np.random.default_rng(0)
    features = {
        "random": rng.normal(size=(posts, 3)),
        "constant": np.full((posts, 3), 0.1),
        "one feature": rng.normal(size=(posts, 1)),
        "one line": np.outer(rng.normal(size=posts), [1.0, 2.0, 3.0]),
    }[kind]
    labels = [f"{k % 2}" for k in range(posts)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        panel = project(features, labels)
        svg = render_panels([panel])
    points = np.array(panel.points)
    assert points.shape == (posts, 2) and np.isfinite(points).all()
    assert math.isnan(panel.silhouette) == (posts < 3)
    if posts == 1:
        assert "silhouette undefined, separation undefined" in svg_words(svg)
    if posts == 2 and kind != "constant":
        assert panel.separation == math.inf and "∞" in svg


def test_measures_that_do_not_exist():
    features, _ = clouds(["a"], posts=8)
    same = project(features, ["a"] * 8)
    assert math.isnan(same.silhouette) and same.separation == pytest.approx(0, abs=1e-12)
    alone = project(features, list("abcdefgh"))
    assert math.isnan(alone.silhouette) and alone.separation == math.inf
    assert math.isnan(project(np.ones((8, 2)), ["a", "b"] * 4).separation)
    with pytest.raises(SgmftError, match="fused features of t are not finite"):
        project([[0.0], [math.nan]], ["a", "b"])


@pytest.mark.parametrize("count", [1, 2, 23, 56])
def test_every_label_has_a_look_of_its_own_in_every_panel(count):
    labels = [f"地点 {k:02}" for k in range(count)]
    svg = render_panels([scattered(key, labels, posts=112) for key in ("one", "two")])
    assert set(labels) <= set(svg_words(svg))
    looks = re.findall(r'<g style="([^"]*)">((?:\s*<use [^>]*/>)+)', svg)
    shapes = dict(re.findall(r'<path id="(\w+)" d="([^"]*)"', svg))
    seen = [(style, shapes[re.search(r"#(\w+)", points)[1]]) for style, points in looks]
    assert len(seen) == 3 * count  # two panels and the legend
    assert sum(points.count("<use") for _, points in looks[: 2 * count]) == 2 * 112
    assert len(set(seen[:count])) == count and seen[:count] == seen[count : 2 * count]


def test_captions_have_the_measures_and_long_titles_wrap():
    title = "Baseline + CLIP + SIM + SFM, a title of many words"
    words = svg_words(render_panels([scattered("one", "a"), scattered("two", "a", title=title)]))
    assert "(a) one" in words and words.count("silhouette 0.12, separation 1.50") == 2
    lines = words[words.index("silhouette 0.12, separation 1.50") + 1 : -1]
    wrapped = [line for line in lines if line.strip() and "silhouette" not in line]
    assert f"(b) {title}" in " ".join(wrapped)
    assert len(wrapped) > 1 and max(map(len, wrapped)) < 30
    below_zero = scattered("one", "a")._replace(silhouette=-0.2)
    assert "silhouette −0.20, separation 1.50" in svg_words(render_panels([below_zero]))


def test_figures_are_the_same_every_time_and_follow_the_page():
    panels = [scattered(key, ["a", EVIL, "$x_1$", "a\x00b"]) for key in ("one", "two")]
    svg = render_panels(panels)
    assert svg == render_panels(panels)
    assert svg.startswith("<svg") and "currentColor" in svg
    assert "<image" not in svg and "<script" not in svg and "dc:date" not in svg
    assert EVIL[:8] in " ".join(svg_words(svg)) and "$x_1$" in svg_words(svg)
    others = render_panels([scattered("three", ["a", "b"])])
    names = [set(re.findall(r' id="(\w+)"', figure)) for figure in (svg, others)]
    assert names[0] and names[1] and not names[0] & names[1]  # they stand on one page


def test_panels_fill_rows_of_five():
    panels = [scattered(f"{k}", "ab") for k in range(7)]

    def size(count):
        root = ElementTree.fromstring(render_panels(panels[:count]))
        return float(root.get("width")[:-2]), float(root.get("height")[:-2])

    (narrow, low), (wide, high) = size(2), size(7)
    assert wide > 2 * narrow and high > 1.5 * low
    assert size(5)[0] == wide


@pytest.mark.parametrize("fonts", [True, False])
def test_save_panels(tmp_path, monkeypatch, fonts):
    if not fonts:
        own = [font for font in fontManager.ttflist if font.name == "DejaVu Sans"]
        monkeypatch.setattr(fontManager, "ttflist", own)
    panels = [scattered("one", ["家", "学校", "Shopping Center"], title="图像引导 Image-wise")]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        svg, pdf, png = save_panels(panels, tmp_path / "new" / "folder", "figure-6")
    assert [x.name for x in (svg, pdf, png)] == [f"figure-6.{x}" for x in ("svg", "pdf", "png")]
    assert pdf.read_bytes().startswith(b"%PDF") and b"CreationDate" not in pdf.read_bytes()
    assert svg.read_text("utf-8") == render_panels(panels)
    with Image.open(png) as picture:
        assert picture.format == "PNG" and min(picture.size) > 400
        pixels = np.asarray(picture.convert("RGB"))
    assert tuple(pixels[0, 0]) == (255, 255, 255)
    coloured = pixels.max(axis=2).astype(int) - pixels.min(axis=2) > 60
    assert coloured.sum() > 500
    (tmp_path / "file").write_text("")
    with pytest.raises(SgmftError, match="cannot be written"):
        save_panels(panels, tmp_path / "file", "figure-6")
