"""Middleware that checks each request's key, size and time, and counts and logs it."""

import asyncio
import base64
import logging
import secrets
import time
import traceback
from collections.abc import Iterable
from contextlib import suppress
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sgmft.locator import drift
from sgmft.locator.prediction import Prediction
from sgmft.serving.engine import InferenceEngine
from sgmft.serving.problems import PROBLEMS, Limits, Problem

_log = logging.getLogger("sgmft")

OPEN = ("/health", "/ready")  # whoever looks after servers has no key
TABLES = tuple(f"/{x}/{y}" for x in ("en", "zh") for y in ("table", "columns"))  # of the page
_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_POSTS = (1, 2, 4, 8, 16, 32, 64)


class ServerMetrics:
    """Counters of one server and its engine, for Prometheus."""

    def __init__(self, engine: InferenceEngine) -> None:
        self.registry = CollectorRegistry()
        own: Any = {"namespace": "sgmft", "registry": self.registry}
        self.requests = Counter("requests", "Requests answered.", ["route", "status"], **own)
        self.seconds = Histogram("request_seconds", "Seconds.", ["route"], buckets=_SECONDS, **own)
        self._posts = Counter("posts", "Posts: label, abstained or error.", ["outcome"], **own)
        self._engine, trait = engine, ["trait", "value"]
        self._traits = Counter("traits", "Posts predicted with each trait.", trait, **own)
        trained = Gauge("training_traits", "Posts of the training with each.", trait, **own)
        for key, count in engine.model.traits.items():
            trained.labels(*key.split(": ", 1)).set(count)
        engine.on_batch = Histogram("batch_posts", "Posts together.", buckets=_POSTS, **own).observe
        for name, what, value in (
            ("inside", "Requests being read, waiting or answered.", lambda: engine.places.taken),
            ("ready", "Whether the model can answer.", lambda: float(engine.ready)),
            ("worker_restarts", "How often the worker was started again.", lambda: engine.restarts),
        ):
            Gauge(name, what, **own).set_function(value)

    def count_posts(self, predictions: Iterable[Prediction]) -> None:
        """Count posts that are predicted."""
        for x in predictions:
            for trait in drift.traits_of(x, self._engine.model.labels):
                self._traits.labels(*trait.split(": ", 1)).inc()
            outcome = "error" if x.error else "abstained" if x.abstained else "label"
            self._posts.labels(outcome).inc()


class Guard:
    """Middleware around all, the page too; without the key, if any, only `OPEN` is answered."""

    def __init__(self, app: ASGIApp, limits: Limits, metrics: ServerMetrics, key: str | None):
        self.app, self.limits, self.metrics = app, limits, metrics
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":  # the server takes no web sockets
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 499  # a client that is gone hears of no status
        cut: list[Problem] = []  # why a body is not read to its end

        async def guarded_send(message: Message) -> None:
            nonlocal status
            if cut and status == 499:
                return  # what a framework makes of that
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refused = await self._answer(scope, self._bounded(scope, receive, cut), guarded_send)
            refused = cut[0] if cut else refused
            if refused is not None and status == 499:  # else a response has begun
                status = PROBLEMS[refused.kind].status
                with suppress(OSError):
                    await refused.response()(scope, receive, send)
        finally:
            self._record(scope, status, time.perf_counter() - start)

    async def _answer(self, scope: Scope, receive: Receive, send: Send) -> Problem | None:
        headers = dict(scope["headers"])
        key = None if scope["path"] in OPEN else self._key
        if key is not None and not any(secrets.compare_digest(x, key) for x in _keys(headers)):
            return Problem("unauthorized")
        length = headers.get(b"content-length", b"0")
        if length.isdigit() and int(length) > self._most(scope):
            return self._too_large(scope)
        try:
            await self.app(scope, receive, send)
        except Problem as problem:
            return problem
        except ClientDisconnect:
            pass
        except Exception as error:
            log_bug(error)
            return Problem("internal")
        return None

    def _bounded(self, scope: Scope, receive: Receive, cut: list[Problem]) -> Receive:
        """Return a `receive` that counts and times the body, and raises and `cut`s at a bound.

        For the API the time of the whole body is bounded, for the page that between two parts.
        """
        api = not scope["path"].startswith(("/en/", "/zh/"))
        end, read, complete = time.monotonic() + self.limits.seconds, 0, False

        async def guarded_receive() -> Message:
            nonlocal end, read, complete
            if complete:  # from here on it only tells whether the client is still there
                return await receive()
            if not api:
                end = time.monotonic() + self.limits.seconds
            try:
                message = await asyncio.wait_for(receive(), max(0.0, end - time.monotonic()))
            except TimeoutError:
                what = "It was not complete" if api else "No more of it came"
                cut.append(Problem("too-slow", f"{what} after {self.limits.seconds:g} seconds."))
                raise cut[0] from None
            read += len(message.get("body", b""))
            complete = not message.get("more_body", False)
            if read > self._most(scope):
                cut.append(self._too_large(scope))
                raise cut[0]
            return message

        return guarded_receive

    def _most(self, scope: Scope) -> int:
        """Return how many bytes a body may have: for a table, those of its pictures as well."""
        return 2 * self.limits.upload if scope["path"] in TABLES else self.limits.body

    def _too_large(self, scope: Scope) -> Problem:
        return Problem("body-too-large", f"At most {self._most(scope) / 2**20:g} MiB are read.")

    def _record(self, scope: Scope, status: int, seconds: float) -> None:
        """Count and log a request, without what may hold a post: other addresses and queries."""
        route = getattr(scope.get("route"), "path", "") or "other"
        self.metrics.requests.labels(route, str(status)).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        level = logging.DEBUG if route in ("other", "/", *OPEN, "/metrics") else logging.INFO
        method = scope["method"] if scope["method"] in ("GET", "POST") else "other"
        _log.log(level, "%s %s %d %.0f ms", method, route, status, 1000 * seconds)


def log_bug(error: Exception) -> None:
    """Log the place of an error of ours without its words, which may hold what a post says."""
    _log.error("%s\n%s", type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))


def _keys(headers: dict[bytes, bytes]) -> list[bytes]:
    kind, _, value = headers.get(b"authorization", b"").partition(b" ")
    keys = [headers.get(b"x-api-key", b""), value.strip() if kind.lower() == b"bearer" else b""]
    if kind.lower() == b"basic":
        with suppress(ValueError):
            keys.append(base64.b64decode(value, validate=True).partition(b":")[2])
    return keys
