"""The similarity of words and regions: P^e of the tokens view, or cosines in a shared space."""

import numpy as np
import pytest

from sgmft import Post
from sgmft.features.encoders.registry import ENCODERS
from tiny_clip import save_tiny_clip


@pytest.fixture
def post(small_posts):
    return Post("sofa, kitchen bed!", small_posts[0].images)


@pytest.mark.parametrize("guided", ["text", "image"])
def test_the_networks_own_guidance(tiny, small_posts, post, guided):
    settings = {"guided": guided, "epochs": 1, "width": 16, "heads": 2}
    locator = tiny(settings, preset="tokens", val_size=0.0, cleaning="paper").fit(small_posts)
    found = locator.explain(post).similarity
    assert found is not None and found.kind == "P^e" and found.grid == 2
    assert found.words == ("sofa", "kitchen", "bed")
    values = np.array(found.values)
    assert values.shape == (3, 4)
    np.testing.assert_allclose(values.sum(1 if guided == "text" else 0), 1, atol=1e-5)
    features = locator.encode([post]).features
    batch = features.batch(np.array([0]))
    expected = locator.network.element_map(batch)[0]
    np.testing.assert_allclose(values, expected.numpy(), atol=1e-5)
    assert locator.explain(Post("sofa")).similarity is None


def test_none_without_a_shared_space(small_model, post):
    assert small_model.explain(post).similarity is None


def test_cosines_in_a_shared_space(tmp_path, small_posts, post):
    from sgmft import SemanticLocator

    folder = str(save_tiny_clip(tmp_path / "clip"))
    assert folder not in ENCODERS
    locator = SemanticLocator(folder, patch_grid=2).fit(small_posts)
    found = locator.explain(post).similarity
    assert found is not None and found.kind == "cosine" and found.grid == 2
    values = np.array(found.values)
    assert values.shape == (3, 4) and np.abs(values).max() <= 1 + 1e-5
    assert found.words == ("sofa", "kitchen", "bed")
