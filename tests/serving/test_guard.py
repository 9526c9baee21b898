"""Requests that break off: what is left of them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

from starlette.types import Message, Receive, Scope, Send

from sgmft.data.posts import Post
from sgmft.serving.engine import InferenceEngine
from sgmft.serving.guard import Guard
from sgmft.serving.limits import Limits
from sgmft.serving.problems import Problem

STALLED = {"type": "http.request", "body": b"some", "more_body": True}


def scope(path: str) -> Scope:
    headers = [(b"content-length", b"1000")]
    return {"type": "http", "method": "POST", "path": path, "headers": headers}


def test_an_answer_that_has_begun_is_not_begun_again() -> None:
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()  # never comes

    async def receive() -> Message:
        await asyncio.sleep(0 if not sent else 60)
        return dict(STALLED)

    async def send(message: Message) -> None:
        sent.append(message)

    metrics: Any = SimpleNamespace(count_request=lambda *counted: None)
    guard = Guard(app, Limits(seconds=1), metrics, None)
    asyncio.run(guard(scope("/en/x"), receive, send))
    assert [message["type"] for message in sent] == ["http.response.start"]


def test_whatever_a_framework_makes_of_a_stall_its_client_gets_a_problem() -> None:
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await receive()
        except Problem:
            await send({"type": "http.response.start", "status": 500, "headers": []})
            raise RuntimeError("of its own") from None

    async def receive() -> Message:
        await asyncio.sleep(60)
        return dict(STALLED)

    async def send(message: Message) -> None:
        sent.append(message)

    counted: list[Any] = []
    metrics: Any = SimpleNamespace(count_request=lambda *one: counted.append(one[1]))
    asyncio.run(Guard(app, Limits(seconds=1), metrics, None)(scope("/en/x"), receive, send))
    assert [message["type"][14:] for message in sent] == ["start", "body"]
    assert sent[0]["status"] == 408 and counted == [408]


def test_posts_of_clients_that_left_are_not_kept() -> None:
    async def run() -> int:
        engine = InferenceEngine("nowhere", Limits())
        asking = [asyncio.ensure_future(engine.predict([Post("a")])) for _ in range(3)]
        await asyncio.sleep(0)
        asking[1].cancel()
        await asyncio.sleep(0.1)
        left = len(engine._waiting)
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)
        return left

    assert asyncio.run(run()) == 2
