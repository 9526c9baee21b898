"""The model in a process of its own, and the requests that wait for it."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from sgmft.data.posts import Post
from sgmft.errors import SgmftError
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction
from sgmft.serving import worker
from sgmft.serving.limits import Limits
from sgmft.serving.problems import Problem
from sgmft.serving.worker import About, Asked

if TYPE_CHECKING:
    from sgmft.evaluation.explain.explanation import Explanation

_log = logging.getLogger("sgmft")


@dataclass(eq=False)
class Job:
    """A request that waits for the worker; predictions are asked for together, all else alone."""

    posts: Sequence[Post]
    rules: Abstention
    explained: bool = False
    label: str | None = None
    alone: bool = False  # since a worker stopped on it and others
    started: bool = False  # the worker has had it
    answer: asyncio.Future[Any] = field(default_factory=asyncio.Future)


class Engine:
    """Answers many requests with one model; for one event loop.

    While the worker computes, requests wait; when it is free it takes all that wait, up to
    `limits.batch` posts, so none waits for others to come; who waits for `limits.seconds` is told
    that it is busy. A worker that stops, or takes longer than `limits.seconds`, is started again,
    and the requests it had are asked for again, one by one and the smallest first: the one that
    stopped it gets a problem, the others their answers.

    Args:
        model: a folder that `sgmft train` or `sgmft export` wrote.
        rules: when a label is kept back, where a request does not say.
        runtime, device: as in `sgmft.locator.loading.load_predictor`.

    Attributes:
        about: the model; set by `start`.
        restarts: how often the worker was started again.
        on_batch: called with the number of posts of each batch.
    """

    about: About

    def __init__(
        self,
        model: str,
        limits: Limits,
        rules: Abstention | None = None,
        *,
        runtime: str | None = None,
        device: str | None = None,
    ) -> None:
        self.limits, self.rules = limits, rules or Abstention()
        self.restarts = 0
        self.on_batch: Callable[[int], None] = lambda posts: None
        self.inside = 0  # requests that have a place
        self._load = partial(worker.load, model, runtime, device, self.rules)
        self._waiting: deque[Job] = deque()
        self._wake = asyncio.Event()
        self._loaded = False
        self._loading = 0.0  # seconds that it took at the start
        self._late = 0  # of the requests that are asked for one by one
        self._pool = self._new_pool()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> About:
        """Load the model; blocks. Raises SgmftError where it cannot be loaded."""
        start = time.monotonic()
        try:
            self.about = self._pool.submit(self._load).result()
        except BrokenProcessPool:
            raise SgmftError("The worker stopped while it loaded the model.") from None
        except BaseException:
            self._pool.shutdown()
            raise
        self._loaded, self._loading = True, time.monotonic() - start
        return self.about

    def run(self) -> None:
        """Begin to answer, in the running event loop."""
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def close(self) -> None:
        """End the worker; requests that still wait get a problem."""
        if self._task is not None:
            self._task.cancel()
        for job in self._waiting:
            _fail(job, Problem("busy", "The server stops.", retry=5))
        _kill_workers()  # one may still compute for a client that is gone
        await asyncio.to_thread(self._pool.shutdown, cancel_futures=True)

    @property
    def ready(self) -> bool:
        """Whether a model is there to answer; has a worker that is gone started again."""
        alive = {child.pid for child in multiprocessing.active_children()}
        self._loaded = self._loaded and self.about.pid in alive
        if not self._loaded:
            self._wake.set()
        return self._loaded

    @contextmanager
    def place(self) -> Iterator[None]:
        """Room for one request, from its first byte to its answer; Problem when there is none."""
        if self.inside >= self.limits.requests:
            raise Problem("busy", f"{self.inside} requests are being answered.", retry=1)
        self.inside += 1
        try:
            yield
        finally:
            self.inside -= 1

    async def predict(
        self, posts: Sequence[Post], rules: Abstention | None = None
    ) -> list[Prediction]:
        """Predictions of the posts, in order. Raises Problem."""
        said: list[Prediction] = await self._ask(Job(posts, rules or self.rules))
        return [
            x._replace(post=replace(post, error=x.error))
            for x, post in zip(said, posts, strict=True)
        ]

    async def explain(
        self, post: Post, label: str | None = None, rules: Abstention | None = None
    ) -> tuple[Prediction, Explanation]:
        """What the model says of a post, and why. Raises Problem."""
        said, why = await self._ask(Job([post], rules or self.rules, True, label))
        return said._replace(post=post), replace(why, post=post)

    async def _ask(self, job: Job) -> Any:
        self._waiting.append(job)
        self._wake.set()
        try:
            await asyncio.wait([job.answer], timeout=self.limits.seconds)
            if not job.started and not job.answer.done():
                raise self._busy()
            return await job.answer  # the worker has it, or will have it again after few others
        finally:
            job.answer.cancel()  # of a client that is gone, too: nobody is computed for
            with suppress(ValueError):  # nor kept
                self._waiting.remove(job)

    async def _work(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._waiting or not self.ready:
                if not self.ready:
                    await self._reload()
                elif batch := self._take():
                    await self._answer(batch)

    def _take(self) -> list[Job]:
        """Waiting requests that the worker can see together."""
        batch: list[Job] = []
        while self._waiting:
            job = self._waiting[0]
            posts = sum(len(x.posts) for x in batch) + len(job.posts)
            alone = job.explained or job.alone
            if batch and (alone or posts > self.limits.batch) and not job.answer.done():
                break
            self._waiting.popleft()
            if job.answer.done():
                continue
            batch.append(job)
            if alone:
                break
        return batch

    async def _answer(self, batch: list[Job]) -> None:
        for job in batch:
            job.started = True
        self.on_batch(sum(len(job.posts) for job in batch))
        first = batch[0]
        call: Callable[[], Any] = partial(worker.predict, [Asked(x.posts, x.rules) for x in batch])
        if first.explained:
            call = partial(worker.explain, first.posts[0], first.label, first.rules)
        try:
            told = await asyncio.wait_for(
                asyncio.get_running_loop().run_in_executor(self._pool, call), self.limits.seconds
            )
        except (BrokenProcessPool, TimeoutError) as error:
            self._again(batch, late=isinstance(error, TimeoutError))
            await self._reload()
        except SgmftError as error:
            _fail(first, Problem("unusable-post", str(error)))
        except Exception as error:  # a mistake of ours; its words may hold what a post says
            lines = str(error.__cause__).splitlines()  # of the worker's own traceback
            where = "\n".join(line for line in lines if line.startswith("  File "))
            _log.error("%s in the worker:\n%s", type(error).__name__, where)
            for job in batch:
                _fail(job, Problem("internal"))
        else:
            for job, found in zip(batch, [told] if first.explained else told, strict=True):
                if isinstance(found, str):
                    _fail(job, Problem("not-possible", found))
                elif not job.answer.done():
                    job.answer.set_result(found)

    def _again(self, batch: list[Job], *, late: bool) -> None:
        """After the worker stopped: one request is refused, several are asked one by one.

        Of those, two may be late; the others that still wait are then told to come again, so that
        nobody waits for each of many slow ones.
        """
        if len(batch) > 1:
            self._late = 0
            for job in sorted(batch, key=_size)[::-1]:  # the slow one is rarely among the small
                job.alone = True
                self._waiting.appendleft(job)
            return
        over = Problem("takes-too-long", f"Over {self.limits.seconds:g} seconds.")
        _fail(batch[0], over if late else Problem("worker-stopped", retry=5))
        self._late += late and batch[0].alone
        for job in self._waiting:
            if job.alone and self._late == 2:
                _fail(job, self._busy())

    def _busy(self) -> Problem:
        retry = max(1, round(self.limits.seconds / 2))
        return Problem("busy", "No answer in time.", retry=retry)

    async def _reload(self) -> None:
        """A new worker; where the model cannot be loaded any more, whoever waits is told."""
        self._loaded = False
        self.restarts += 1
        _kill_workers()
        _log.warning("the worker stopped; starting it again")
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._pool = self._new_pool()
        start = time.monotonic()
        try:
            loop = asyncio.get_running_loop()
            loading = loop.run_in_executor(self._pool, self._load)
            self.about = await asyncio.wait_for(loading, self.limits.seconds + 3 * self._loading)
        except Exception as error:  # whatever it is, the next request tries again
            why = error if isinstance(error, SgmftError) else type(error).__name__
            _log.error("the worker cannot be started: %s", why)
            while self._waiting:
                _fail(self._waiting.popleft(), Problem("worker-stopped", retry=5))
            await asyncio.sleep(5)
            return
        self._loaded = True
        _log.info("the worker is there again after %.1f s", time.monotonic() - start)

    @staticmethod
    def _new_pool() -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        return ProcessPoolExecutor(1, context, initializer=worker.prepare)


def _size(job: Job) -> int:
    """Its texts and pictures."""
    return sum(1 + len(post.images) for post in job.posts)


def _kill_workers() -> None:
    for child in multiprocessing.active_children():  # not by number, which another may have by now
        child.kill()


def _fail(job: Job, problem: Problem) -> None:
    if not job.answer.done():
        job.answer.set_exception(problem)
