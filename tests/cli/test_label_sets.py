"""Label sets of a user's own: any script, few or many, unbalanced, a label with one post."""

import json
import warnings

import numpy as np
import pytest

from sgmft import Post, SemanticLocator
from sgmft.errors import SgmftWarning
from sgmft.locator.abstention import Abstention

METHODS = [
    {},
    {"method": "linear-probe"},
    {"preset": "tokens", "settings": {"epochs": 1, "width": 16, "heads": 2}},
    {"method": "unis-mmc", "settings": {"epochs": 1, "width": 16}},
]
NAMES = ["在家里", "مدرسة", "カフェ", "Kino/Театр", "🏖 beach", "p_error", "label", "a, b|c"]


pytestmark = pytest.mark.usefixtures("tiny")


def posts(labels):
    """Posts whose words name their label's number, and words that all have."""
    numbers = {label: k for k, label in enumerate(dict.fromkeys(labels))}
    return [Post(f"word{numbers[x]} thing{i % 5}", label=x) for i, x in enumerate(labels)]


@pytest.mark.parametrize("options", METHODS, ids=str)
def test_names_in_any_script(options, tmp_path):
    given = posts(NAMES * 12)
    locator = SemanticLocator("tiny", **options).fit(given)
    assert locator.labels == sorted(NAMES)
    locator.save_pretrained(tmp_path)
    loaded = SemanticLocator.from_pretrained(tmp_path)
    assert loaded.labels == locator.labels
    assert loaded.predict(given) == locator.predict(given)


@pytest.mark.parametrize("options", METHODS, ids=str)
def test_two_hundred_labels_from_fifty_posts_down_to_one(options):
    counts = [50, 20, 10, *[3] * 97, *[2] * 99, 1]
    given = posts([f"label {k}" for k, count in enumerate(counts) for _ in range(count)])
    with pytest.warns(SgmftWarning, match="Only one post has the label label 199: it is learned"):
        locator = SemanticLocator("tiny", **options).fit(given)
    assert len(locator.labels) == 200
    probs = locator.predict_proba(given)
    assert probs.shape == (len(given), 200) and np.isfinite(probs).all()
    np.testing.assert_allclose(probs.sum(1), 1, atol=1e-4)
    for prediction in locator.predictions(given[:9], Abstention(coverage=0.9)):
        assert prediction.label_set is not None


def test_labels_of_one_post_are_learned_and_named():
    with pytest.warns(SgmftWarning, match="the label a, b: "):
        locator = SemanticLocator("tiny").fit(posts(["a", "b"]))
    assert np.isfinite(locator.predict_proba(posts(["a", "b"]))).all()
    labels = [f"label {k:02d}" for k in range(13)]
    with pytest.warns(SgmftWarning, match=r"label 00, .*label 09 and 3 more: "):
        SemanticLocator("tiny", method="text-only").fit(posts([*labels, "other", "other"]))
    with warnings.catch_warnings(action="error", category=SgmftWarning):
        SemanticLocator("tiny", method="text-only").fit(posts(["a", "b"] * 3))


def test_the_command_warns_in_one_line(run, tmp_path):
    table = tmp_path / "posts.jsonl"
    rows = [{"text": p.text, "label": p.label} for p in posts([*["a", "b"] * 6, "单独"])]
    table.write_text("\n".join(map(json.dumps, rows)))
    words = ["--encoder", "tiny", "--features", "none"]
    output = " ".join(run("train", table, "-o", tmp_path / "model", *words).stderr.split())
    assert "Warning: Only one post has the label 单独: it is learned from" in output
    assert "UserWarning" not in output and ".py:" not in output
