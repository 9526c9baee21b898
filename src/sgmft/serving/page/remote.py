"""The serving model as the jobs on tables know models."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path

from sgmft.data.posts import Post
from sgmft.data.preprocessing.images import count_pixels
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction
from sgmft.serving.engine import Engine
from sgmft.serving.problems import Problem

_PATIENCE = 1.0  # seconds before a busy server is asked again, where it does not say


class Stopped(Exception):  # noqa: N818 nothing is wrong
    """Whoever asked does not wait any more."""


class RemotePredictor:
    """Asks the engine of a server, from another thread than its event loop's.

    Posts go to it in chunks that each count as one request, so that others get their turn.

    Args:
        loop: the engine's.
        stop: ends it with `Stopped`.
        on_predicted: called with how many posts are done.
    """

    def __init__(
        self,
        engine: Engine,
        loop: asyncio.AbstractEventLoop,
        stop: threading.Event,
        on_predicted: Callable[[int], None] = lambda done: None,
    ) -> None:
        self.labels = list(engine.about.labels)
        self._engine, self._loop, self._stop = engine, loop, stop
        self._on_predicted = on_predicted

    def predictions(
        self, posts: Iterable[Post], abstain: Abstention | None = None
    ) -> Iterator[Prediction]:
        """Predictions in the order of the posts; a post beyond the server's limits has an error.

        Raises:
            Problem: the model cannot do what is asked for.
            Stopped: it is to stop.
        """
        done, waiting = 0, iter(posts)
        while chunk := list(islice(waiting, self._engine.limits.batch)):
            checked = [self._checked(post) for post in chunk]
            yield from self._said(checked, abstain)
            done += len(chunk)
            self._on_predicted(done)

    def _checked(self, post: Post) -> Post:
        """The post, with an error where the server's limits do not let it through."""
        limits = self._engine.limits
        if post.error is not None:
            return post
        if len(post.text) > limits.text:
            return replace(post, error=f"the text has more than {limits.text:,} characters")
        if len(post.images) > limits.pictures:
            return replace(post, error=f"there are more than {limits.pictures} pictures")
        for image in post.images:
            if isinstance(image, Path) and image.is_file():
                pixels = count_pixels(image.read_bytes(), image.name)
                if pixels is not None and pixels > limits.pixels:
                    told = f"{image.name} has {pixels:,} pixels; at most {limits.pixels:,}"
                    return replace(post, error=told)
        return post

    def _said(self, posts: Sequence[Post], rules: Abstention | None) -> list[Prediction]:
        """Predictions of one chunk, in halves where a post in it stops the worker."""
        try:
            said = self._ask([replace(post, row={}) for post in posts], rules)
        except Problem as problem:
            if problem.kind not in ("takes-too-long", "worker-stopped"):
                raise
            if len(posts) == 1:
                error = f"the model cannot read it ({problem.kind.replace('-', ' ')})"
                return [Prediction(replace(posts[0], error=error), None, None, None)]
            half = len(posts) // 2
            return self._said(posts[:half], rules) + self._said(posts[half:], rules)
        return [
            x._replace(post=replace(post, error=x.error))
            for x, post in zip(said, posts, strict=True)
        ]

    def _ask(self, posts: Sequence[Post], rules: Abstention | None) -> list[Prediction]:
        """As one request, again while the server is busy."""
        while not self._stop.is_set():
            asking = self._request(posts, rules)
            try:
                return asyncio.run_coroutine_threadsafe(asking, self._loop).result()
            except Problem as problem:
                if problem.kind != "busy":
                    raise
                self._stop.wait(problem.retry or _PATIENCE)
        raise Stopped

    async def _request(self, posts: Sequence[Post], rules: Abstention | None) -> list[Prediction]:
        with self._engine.place():
            return await self._engine.predict(posts, rules)
