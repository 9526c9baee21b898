"""A trained default and pictures of plain colours, to be explained."""

import pytest
from PIL import Image


@pytest.fixture(scope="session")
def default(tiny, small_posts):
    return tiny(preset="default").fit(small_posts)


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """Red, green and blue ones, and `half`: blue in its upper half and black below."""
    folder = tmp_path_factory.mktemp("pictures")
    for colour in ("red", "green", "blue"):
        Image.new("RGB", (16, 16), colour).save(folder / f"{colour}.png")
    half = Image.new("RGB", (16, 16), "black")
    half.paste("blue", (0, 0, 16, 8))
    half.save(folder / "half.png")
    return folder
