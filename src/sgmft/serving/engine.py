"""The queue of requests, and the process with the model that answers them."""

import asyncio
import logging
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import BrokenExecutor, ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from sgmft.data.posts import Post
from sgmft.errors import SgmftError, raising
from sgmft.evaluation.explain.explanation import Explanation
from sgmft.jobs.predict import ModelFolder
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction
from sgmft.models.registry import LOADED
from sgmft.serving import worker
from sgmft.serving.problems import Limits, Places, Problem
from sgmft.serving.responses import ServedModel

_log = logging.getLogger("sgmft")
Rules = Abstention | None  # None: the server's own


@dataclass(eq=False)
class QueuedRequest:
    """A request that waits for the worker; predictions are made together, explanations alone."""

    item: worker.WorkItem
    explain: bool = False
    label: str | None = None
    alone: bool = False  # since a worker stopped on it and others
    started: bool = False  # the worker has had it
    result: asyncio.Future[Any] = field(default_factory=asyncio.Future)

    def fail(self, problem: Problem) -> None:
        """End it with a problem, unless it has ended."""
        if not self.result.done():
            self.result.set_exception(problem)


class InferenceEngine:
    """Answers many requests with one model; for one event loop.

    When the worker is free it takes all requests that wait, up to `limits.batch` posts; one that
    waits for `limits.seconds` is refused as busy. A worker that stops, or takes longer than that,
    is started again, and the requests it had are tried again, one by one and the smallest first:
    the one that stopped it gets a problem. `rules` are for requests without any.
    """

    model: ServedModel  # set by `start`
    restarts = 0  # how often the worker was started again

    def __init__(self, model: ModelFolder, limits: Limits, rules: Rules = None) -> None:
        self.limits, self.rules = limits, rules or Abstention()
        self.places = Places(limits.requests)  # of requests that come in, wait, or are answered
        self.on_batch: Callable[[int], None] = lambda posts: None  # number of posts of each batch
        self._load = partial(worker.load_served_model, model, self.rules)
        self._waiting: deque[QueuedRequest] = deque()
        self._wake = asyncio.Event()
        self._loaded, self._pid = False, 0
        self._loading = 0.0  # seconds that it took at the start
        self._late = 0  # of the requests that are tried one by one
        self._pool = _new_pool()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Load the model; blocks. Raises SgmftError where it cannot be loaded."""
        start = time.monotonic()
        try:
            with raising("The worker stopped while it loaded the model.", BrokenExecutor):
                self.model, self._pid = self._pool.submit(self._load).result()
        except BaseException:
            self._pool.shutdown()
            raise
        self._loaded, self._loading = True, time.monotonic() - start

    def run(self) -> None:
        """Begin to answer, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    def reload(self) -> None:
        """Load the model again, from its folder, when what the worker computes is done."""
        self._loaded = False
        self._wake.set()

    async def close(self) -> None:
        """End the worker; requests that still wait get a problem."""
        if self._task is not None:
            self._task.cancel()
        for request in self._waiting:
            request.fail(Problem("busy", "The server stops.", retry=5))
        _kill_worker(self._pool)  # one may still compute for a client that is gone
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    @property
    def ready(self) -> bool:
        """Whether a model is there to answer; has a worker that is gone started again."""
        alive = {child.pid for child in multiprocessing.active_children()}
        self._loaded = self._loaded and self._pid in alive
        if not self._loaded:
            self._wake.set()
        return self._loaded

    async def predict(self, posts: Sequence[Post], rules: Rules = None) -> list[Prediction]:
        """Predict the posts, in order. Raises Problem."""
        found: list[Prediction] = await self._result(worker.WorkItem(posts, rules or self.rules))
        for i, (x, post) in enumerate(zip(found, posts, strict=True)):
            found[i] = x._replace(post=replace(post, error=x.error, warnings=x.post.warnings))
        return found

    async def explain(
        self, post: Post, label: str | None = None, rules: Rules = None
    ) -> tuple[Prediction, Explanation]:
        """Predict a post and explain it. Raises Problem."""
        item = worker.WorkItem([post], rules or self.rules)
        prediction, explanation = await self._result(item, explain=True, label=label)
        post = replace(post, warnings=prediction.post.warnings)
        return prediction._replace(post=post), replace(explanation, post=post)

    async def _result(self, item: worker.WorkItem, **how: Any) -> Any:
        request = QueuedRequest(item, **how)
        self._waiting.append(request)
        self._wake.set()
        try:
            await asyncio.wait([request.result], timeout=self.limits.seconds)
            if not request.started and not request.result.done():
                raise self._busy()
            return await request.result  # the worker has it, or will again after few others
        finally:
            request.result.cancel()  # nothing is computed for a client that is gone
            with suppress(ValueError):  # nor kept
                self._waiting.remove(request)

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting or not self.ready:
                if not self.ready:
                    await self._reload()
                elif batch := self._next_batch():
                    await self._compute(batch)

    def _next_batch(self) -> list[QueuedRequest]:
        batch: list[QueuedRequest] = []
        self._waiting = deque(x for x in self._waiting if not x.result.done())
        while self._waiting:
            request = self._waiting[0]
            posts = sum(len(x.item.posts) for x in [*batch, request])
            alone = request.explain or request.alone
            if batch and (alone or posts > self.limits.batch):
                break
            batch.append(self._waiting.popleft())
            if alone:
                break
        return batch

    async def _compute(self, batch: list[QueuedRequest]) -> None:
        for request in batch:
            request.started = True
        self.on_batch(sum(len(request.item.posts) for request in batch))
        first = batch[0]
        call: Callable[[], Any] = partial(worker.predict_items, [x.item for x in batch])
        if first.explain:
            call = partial(worker.explain_item, first.item, first.label)
        try:
            computing = asyncio.get_running_loop().run_in_executor(self._pool, call)
            results = await asyncio.wait_for(computing, self.limits.seconds)
        except (BrokenExecutor, TimeoutError) as error:
            late = isinstance(error, TimeoutError)
            over = Problem("takes-too-long", f"Over {self.limits.seconds:g} seconds.")
            self._retry(batch, over if late else Problem("worker-stopped", retry=5), late)
            await self._reload()
        except SgmftError as error:  # of one of them
            self._retry(batch, Problem("unusable-post", str(error)))
        except Exception as error:  # a bug of ours; its words may hold what a post says
            lines = str(error.__cause__).splitlines()  # of the worker's own traceback
            where = "\n".join(line for line in lines if line.startswith("  File "))
            _log.error("%s in the worker:\n%s", type(error).__name__, where)
            for request in batch:
                request.fail(Problem("internal"))
        else:
            for request, found in zip(batch, [results] if first.explain else results, strict=True):
                if isinstance(found, str):
                    request.fail(Problem("not-possible", found))
                elif not request.result.done():
                    request.result.set_result(found)

    def _retry(self, batch: list[QueuedRequest], problem: Problem, late: bool = False) -> None:
        """End a single request, or try several one by one; after two late ones refuse the rest."""
        if len(batch) > 1:
            self._late = 0
            batch.sort(key=lambda x: sum(1 + len(post.images) for post in x.item.posts))
            for request in batch[::-1]:  # of one size, in order
                request.alone = True
                self._waiting.appendleft(request)
            return
        batch[0].fail(problem)
        self._late += late and batch[0].alone
        for request in self._waiting:
            if request.alone and self._late == 2:
                request.fail(self._busy())

    def _busy(self) -> Problem:
        return Problem("busy", "No answer in time.", retry=max(1, round(self.limits.seconds / 2)))

    async def _reload(self) -> None:
        """Start a new worker; where the model cannot be loaded any more, refuse all that wait."""
        self._loaded = False
        self.restarts += 1
        _kill_worker(self._pool)
        _log.warning("the worker is started again")
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = _new_pool()
        start = time.monotonic()
        try:
            loading = asyncio.get_running_loop().run_in_executor(self._pool, self._load)
            most = self.limits.seconds + 3 * self._loading
            self.model, self._pid = await asyncio.wait_for(loading, most)
        except Exception as error:  # whatever it is, the next request tries again
            why = error if isinstance(error, SgmftError) else type(error).__name__
            _log.error("the worker cannot be started: %s", why)
            while self._waiting:
                self._waiting.popleft().fail(Problem("worker-stopped", retry=5))
            await asyncio.sleep(5)
            return
        self._loaded = True
        _log.info("the worker is there again after %.1f s", time.monotonic() - start)


def _new_pool() -> ProcessPoolExecutor:
    context = multiprocessing.get_context("spawn")
    return ProcessPoolExecutor(1, context, worker.start_worker, (tuple(LOADED),))


def _kill_worker(pool: ProcessPoolExecutor) -> None:
    for child in [*(pool._processes or {}).values()]:  # as `kill_workers` of Python 3.14
        child.kill()
