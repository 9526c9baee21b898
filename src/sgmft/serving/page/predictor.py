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
from sgmft.errors import Message
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction
from sgmft.serving.engine import InferenceEngine
from sgmft.serving.problems import Problem

_PATIENCE = 1.0  # seconds before a busy server is tried again, where it gives no other number


class JobStopped(Exception):  # noqa: N818 nothing is wrong
    """The visitor does not want the table any more, or the server ends."""


class EnginePredictor:
    """Predicts through the engine of a server, from another thread than its event loop's.

    Posts go to it in chunks that each count as one request, so that others get their turn.

    Args:
        loop: the engine's.
        stop: ends it with `JobStopped`.
        on_predicted: called with the predictions of each chunk.
    """

    def __init__(
        self,
        engine: InferenceEngine,
        loop: asyncio.AbstractEventLoop,
        stop: threading.Event,
        on_predicted: Callable[[Sequence[Prediction]], None] = lambda predictions: None,
    ) -> None:
        self.labels = list(engine.model.labels)
        self._engine, self._loop, self._stop = engine, loop, stop
        self._on_predicted = on_predicted

    def predictions(
        self, posts: Iterable[Post], abstain: Abstention | None = None
    ) -> Iterator[Prediction]:
        """Yield predictions in the order of the posts; a post beyond the limits has an error.

        Raises:
            Problem: the model cannot do what `abstain` asks for.
            JobStopped: it is to stop.
        """
        waiting = iter(posts)
        while chunk := list(islice(waiting, self._engine.limits.batch)):
            found = self._predict([self._check(post) for post in chunk], abstain)
            self._on_predicted(found)
            yield from found

    def _check(self, post: Post) -> Post:
        """Return the post, with an error where it is beyond the server's limits."""
        limits = self._engine.limits
        if post.error is not None:
            return post
        if len(post.text) > limits.text:
            error = Message("the text has more than {most:,} characters", most=limits.text)
            return replace(post, error=error)
        if len(post.images) > limits.pictures:
            error = Message("there are more than {most} pictures", most=limits.pictures)
            return replace(post, error=error)
        for image in post.images:
            if isinstance(image, Path) and image.is_file():
                pixels = count_pixels(image.read_bytes(), image.name)
                if pixels is not None and pixels > limits.pixels:
                    error = Message(
                        "{name} has {count:,} pixels; at most {most:,}",
                        name=image.name,
                        count=pixels,
                        most=limits.pixels,
                    )
                    return replace(post, error=error)
        return post

    def _predict(self, posts: Sequence[Post], rules: Abstention | None) -> list[Prediction]:
        """Predict one chunk, in halves where a post in it stops the worker."""
        try:
            found = self._request([replace(post, row={}) for post in posts], rules)
        except Problem as problem:
            if problem.kind not in ("takes-too-long", "worker-stopped"):
                raise
            if len(posts) == 1:
                error = f"the model cannot read it ({problem.kind.replace('-', ' ')})"
                return [Prediction(replace(posts[0], error=error), None, None, None)]
            half = len(posts) // 2
            return self._predict(posts[:half], rules) + self._predict(posts[half:], rules)
        return [
            x._replace(post=replace(post, error=x.error))
            for x, post in zip(found, posts, strict=True)
        ]

    def _request(self, posts: Sequence[Post], rules: Abstention | None) -> list[Prediction]:
        """Predict as one request, again while the server is busy."""

        async def request() -> list[Prediction]:
            with self._engine.places.take():
                return await self._engine.predict(posts, rules)

        while not self._stop.is_set():
            try:
                return asyncio.run_coroutine_threadsafe(request(), self._loop).result()
            except Problem as problem:
                if problem.kind != "busy":
                    raise
                self._stop.wait(problem.retry or _PATIENCE)
        raise JobStopped
