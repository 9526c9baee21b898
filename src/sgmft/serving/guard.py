"""What every request passes first: its key, its size, its time; and what is counted and logged."""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import secrets
import time
import traceback
from contextlib import suppress

from starlette.requests import ClientDisconnect
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sgmft.serving.limits import Limits
from sgmft.serving.metrics import Metrics
from sgmft.serving.problems import MEDIA_TYPE, Problem

_log = logging.getLogger("sgmft")

OPEN = ("/health", "/ready")  # whoever looks after servers has no key


class Guard:
    """Middleware around the whole application, the page too.

    Args:
        key: without it, nothing but `/health` and `/ready` is answered; None asks for none.
    """

    def __init__(self, app: ASGIApp, limits: Limits, metrics: Metrics, key: str | None) -> None:
        self.app, self.limits, self.metrics = app, limits, metrics
        self._key = None if key is None else key.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        if scope["type"] != "http":  # the server takes no web sockets
            await self.app(scope, receive, send)
            return
        start, status = time.perf_counter(), 499  # a client that is gone hears of no status
        cut: list[Problem] = []  # why a body is not read to its end

        async def sent(message: Message) -> None:
            nonlocal status
            if cut and status == 499:
                return  # what a framework says of that
            if message["type"] == "http.response.start":
                status = message["status"]
            await send(message)

        try:
            refused = await self._answered(scope, self._bounded(scope, receive, cut), sent)
            refused = cut[0] if cut else refused
            if refused is not None and status == 499:  # else an answer has begun
                status = refused.status
                with suppress(OSError):
                    await as_response(refused)(scope, receive, send)
        finally:
            self._note(scope, status, time.perf_counter() - start)

    async def _answered(self, scope: Scope, receive: Receive, send: Send) -> Problem | None:
        """Hand a request to the application; the reason where it has no answer."""
        try:
            self._check(scope)
            await self.app(scope, receive, send)
        except Problem as problem:
            return problem
        except ClientDisconnect:
            pass
        except Exception as error:
            log_mistake(error)
            return Problem("internal")
        return None

    def _check(self, scope: Scope) -> None:
        headers = dict(scope["headers"])
        if self._key is not None and scope["path"] not in OPEN:
            given = _keys(headers)
            if not any(secrets.compare_digest(x, self._key) for x in given):
                raise Problem("unauthorized")
        length = headers.get(b"content-length", b"0")
        if scope["path"].startswith("/v1/") and length.isdigit() and int(length) > self.limits.body:
            raise self._too_large()

    def _bounded(self, scope: Scope, receive: Receive, cut: list[Problem]) -> Receive:
        """The body, counted and timed as it comes; what goes beyond a bound is raised, and `cut`.

        The page bounds how much may come to it, and no time but that between two parts: a table's
        pictures may come over a slow line.
        """
        api = scope["path"].startswith("/v1/")
        end, read, complete = time.monotonic() + self.limits.seconds, 0, False

        async def received() -> Message:
            nonlocal end, read, complete
            if complete:  # from here on it only says whether the client is still there
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
            if api and read > self.limits.body:
                cut.append(self._too_large())
                raise cut[0]
            return message

        return received

    def _too_large(self) -> Problem:
        return Problem("body-too-large", f"At most {self.limits.body / 2**20:g} MiB are read.")

    def _note(self, scope: Scope, status: int, seconds: float) -> None:
        """No address or method that is not ours, and no query, is written down: they may hold a
        post.
        """
        route = getattr(scope.get("route"), "path", "") or "other"
        self.metrics.request(route, status, seconds)
        level = logging.DEBUG if route in ("other", *OPEN, "/metrics") else logging.INFO
        method = scope["method"] if scope["method"] in ("GET", "POST") else "other"
        _log.log(level, "%s %s %d %.0f ms", method, route, status, 1000 * seconds)


def log_mistake(error: Exception) -> None:
    """Write down where a mistake of ours is, without its words: they may hold what a post says."""
    where = "".join(traceback.format_tb(error.__traceback__))
    _log.error("%s\n%s", type(error).__name__, where)


def as_response(problem: Problem) -> JSONResponse:
    """The problem document."""
    return JSONResponse(
        problem.document(), problem.status, problem.headers(), media_type=MEDIA_TYPE
    )


def _keys(headers: dict[bytes, bytes]) -> list[bytes]:
    """The keys that a request shows."""
    kind, _, value = headers.get(b"authorization", b"").partition(b" ")
    found = [headers.get(b"x-api-key", b""), value.strip() if kind.lower() == b"bearer" else b""]
    if kind.lower() == b"basic":
        with suppress(binascii.Error, ValueError):
            found.append(base64.b64decode(value, validate=True).partition(b":")[2])
    return found
