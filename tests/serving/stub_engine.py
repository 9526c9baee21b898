"""An engine without a model, for tests of what uses one."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np

from sgmft.data.posts import Post
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction
from sgmft.serving.limits import Limits, Places
from sgmft.serving.page.predictor import EnginePredictor
from sgmft.serving.page.tables import LabelledTable, TableJob


@dataclass
class StubEngine:
    """Answers at once: the label is the text's first letter, "a" or "b".

    Attributes:
        trouble: called with the posts of each request, before they are answered.
        requests: the posts of each.
    """

    trouble: Callable[[Sequence[Post]], None] = lambda posts: None
    limits: Limits = field(default_factory=lambda: Limits(batch=3, text=50))
    rules: Abstention = field(default_factory=Abstention)
    model: Any = field(
        default_factory=lambda: SimpleNamespace(labels=("a", "b"), explains=False, held_out=0)
    )
    places: Places = field(default_factory=lambda: Places(100))
    requests: list[list[Post]] = field(default_factory=list)

    async def predict(
        self, posts: Sequence[Post], rules: Abstention | None = None
    ) -> list[Prediction]:
        self.trouble(posts)
        self.requests.append(list(posts))
        return [self._predict(post) for post in posts]

    def _predict(self, post: Post) -> Prediction:
        if post.error is not None:
            return Prediction(post, None, None, None)
        probs = np.array([0.75, 0.25] if post.text[0] == "a" else [0.25, 0.75], np.float32)
        return Prediction(post, post.text[0], probs, None)


def label_table(job: TableJob) -> LabelledTable:
    """What the page does with a table, its posts answered by a stub engine."""

    async def run() -> LabelledTable:
        engine: Any = StubEngine()
        stop = threading.Event()
        predictor = EnginePredictor(engine, asyncio.get_running_loop(), stop, job.see)
        return await asyncio.to_thread(job.run, predictor)

    return asyncio.run(run())
