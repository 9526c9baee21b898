"""A post with parts left out or replaced is read as the post that has it so from the start."""

import numpy as np
import pytest

from sgmft import Post
from sgmft.evaluation.explain.attribution import blank_regions
from sgmft.evaluation.explain.masked_model import ExplainedModel, MaskedPredictor


@pytest.mark.parametrize("preset", ["default", "elements", "tokens"])
def test_parts_left_out_or_replaced(tiny, small_posts, pictures, preset):
    locator = tiny(preset=preset, val_size=0.0).fit(small_posts)

    def colours(*names):
        return [pictures / f"{name}.png" for name in names]

    model = ExplainedModel(
        locator.encoder, locator.network, locator.uses_tokens, locator.labels, locator.temperature
    )
    predictor = MaskedPredictor(Post("the boss", colours("red", "green", "blue")), model)
    green = predictor.images[1]
    cases = {
        "without the text": (predictor.keep_parts(False, [1, 1, 1]), ("", "red green blue")),
        "one picture": (predictor.keep_parts(False, [0, 0, 1]), ("", "blue")),
        "text and two": (predictor.keep_parts(True, [1, 0, 1]), ("the boss", "red blue")),
        "text only": (predictor.keep_parts(True, [0, 0, 0]), ("the boss", "")),
        "another text": (predictor.replace_text(["exam"])[0], ("exam", "red green blue")),
        "no text": (predictor.replace_text([""])[0], ("", "red green blue")),
        "another picture": (
            predictor.replace_image(0, [green])[0],
            ("the boss", "green green blue"),
        ),
    }
    found = predictor.predict_proba([row for row, _ in cases.values()])
    posts = [Post(text, colours(*names.split())) for _, (text, names) in cases.values()]
    np.testing.assert_allclose(found, locator.predict_proba(posts), atol=1e-5)


def test_over_ten_parts_are_sampled(default, pictures):
    images = [pictures / "red.png", pictures / "blue.png"] * 5
    found = default.explain(Post("the boss", images))
    assert len(found.parts) == 11 and not found.exact
    total = found.base + sum(part.contribution for part in found.parts)
    assert total == pytest.approx(found.probability, abs=1e-6)


def test_blank_regions():
    picture = np.arange(10 * 10 * 3).reshape(10, 10, 3).astype(np.uint8)
    changed = blank_regions(picture, np.array([True, False, True, True]))
    colour = picture.reshape(-1, 3).mean(0).round()
    assert (changed[:5, 5:] == colour).all()
    same = np.ones((10, 10), bool)
    same[:5, 5:] = False
    assert (changed[same] == picture[same]).all()
