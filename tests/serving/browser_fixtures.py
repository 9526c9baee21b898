"""The browser and what is shown to it, for the tests of the page."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from browser import Visit, chromium

WIDE = {"width": 1280, "height": 900}


@pytest.fixture(scope="module")  # its tools hold an event loop, so that others cannot run one
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def fetched() -> list[str]:
    """Every address that a page of these tests has fetched."""
    return []


@pytest.fixture(scope="module")
def context(browser: Any, fetched: list[str]) -> Iterator[Any]:
    made = browser.new_context(viewport=WIDE, locale="de-DE", accept_downloads=True)
    made.on("request", lambda request: fetched.append(request.url))
    yield made
    made.close()


@pytest.fixture
def visit(context: Any, server: Any, fetched: list[str]) -> Iterator[Callable[..., Visit]]:
    """Opens the page: `visit("zh")`; it fetches nothing from elsewhere, and has no mistake."""
    visits: list[Visit] = []

    def start(language: str = "en") -> Visit:
        visits.append(Visit(context, server.address, language))
        return visits[-1]

    yield start
    for made in visits:
        made.page.close()
        assert made.mistakes == []
    own = (server.address, "data:", f"blob:{server.address}")
    assert [address for address in fetched if not address.startswith(own)] == []


@pytest.fixture(scope="module")
def pictures(sample: Path) -> list[Path]:
    """Of the generated posts, in the order of the posts."""
    return sorted((sample.parent / "images").glob("*.jpg"))
