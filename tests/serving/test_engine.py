"""Requests that the worker sees together, and a worker that does not come back."""

from __future__ import annotations

import asyncio
import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from image_files import encoded, plain
from sgmft.data.posts import Attachment, Post
from sgmft.serving.engine import InferenceEngine
from sgmft.serving.limits import Limits
from sgmft.serving.problems import Problem

LIMIT = 3.0  # seconds
QUICK = [Post("at home on the sofa")]


def slow() -> list[Post]:
    """Four posts that take much longer to decode than the limit."""
    picture = Attachment(encoded(plain(size=(7000, 7000))), "large.png")
    return [Post("", [picture] * 16)] * 4


@pytest.mark.slow
def test_slow_requests_are_found_and_those_beside_them_are_answered(trained: Path) -> None:
    """The small ones first; and nobody waits until each of many slow ones is found."""
    batches: list[int] = []

    async def together() -> tuple[list[Any], int]:
        engine = InferenceEngine(str(trained), Limits(seconds=LIMIT))
        engine.on_batch = batches.append
        engine.start()
        engine.run()
        try:
            each = [engine.predict(posts) for posts in (QUICK, slow(), slow(), slow(), QUICK)]
            return await asyncio.gather(*each, return_exceptions=True), engine.restarts
        finally:
            await engine.close()

    (first, *refused, last), restarts = asyncio.run(together())
    assert batches == [14, 1, 1, 4, 4]
    assert restarts == 3
    assert [x.label for x in first] == [x.label for x in last]
    assert first[0].label is not None
    assert all(isinstance(problem, Problem) for problem in refused)
    assert [problem.kind for problem in refused] == ["takes-too-long", "takes-too-long", "busy"]


def die(items: object) -> None:
    """In the place of the worker's answer."""
    os._exit(1)


@pytest.mark.slow
def test_a_worker_that_hangs_while_it_starts_again(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests that it had when it stopped do not wait for ever, and later ones are answered."""

    async def together() -> tuple[list[Any], list[Any]]:
        engine = InferenceEngine(str(trained), Limits(seconds=LIMIT))
        load = engine._load
        engine.start()
        engine._loading = 0.1
        engine._load = partial(time.sleep, 300)
        with monkeypatch.context() as patch:
            patch.setattr("sgmft.serving.worker.predict_items", die)
            engine.run()
            each = [engine.predict(QUICK) for _ in "12"]
            lost = await asyncio.wait_for(asyncio.gather(*each, return_exceptions=True), 60)
        engine._load, engine._loading = load, 60.0
        try:
            while not engine.ready:
                await asyncio.sleep(0.1)
            return lost, await engine.predict(QUICK)
        finally:
            await engine.close()

    lost, found = asyncio.run(together())
    assert [problem.kind for problem in lost] == ["worker-stopped"] * 2
    assert found[0].label is not None
