"""Locators of every method, fitted to the small posts."""

from collections.abc import Callable
from typing import Any

import pytest

from sgmft import Post, SemanticLocator


@pytest.fixture
def fitted(tiny: Any, small_posts: list[Post]) -> Callable[..., SemanticLocator]:
    """Fits a locator with the tiny encoder; options as of `SemanticLocator`."""
    return lambda **options: SemanticLocator("tiny", **options).fit(small_posts)
