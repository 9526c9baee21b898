"""Requests that the worker sees together, that break off, and a worker that does not come back."""

import asyncio
import os
import time
from functools import partial
from types import SimpleNamespace

import pytest

from image_files import encoded, plain
from sgmft.data.posts import Attachment, Post
from sgmft.jobs.predict import ModelFolder
from sgmft.serving.engine import InferenceEngine
from sgmft.serving.guard import Guard
from sgmft.serving.problems import Limits, Problem

LIMIT = 3.0  # seconds
QUICK = [Post("at home on the sofa")]


def slow():
    """Four posts that take much longer to decode than the limit."""
    picture = Attachment(encoded(plain(size=(7000, 7000))), "large.png")
    return [Post("", [picture] * 16)] * 4


@pytest.mark.slow
def test_slow_requests_are_found_and_those_beside_them_are_answered(trained):
    """The small ones first; and nobody waits until each of many slow ones is found."""
    batches = []

    async def together():
        engine = InferenceEngine(ModelFolder(str(trained)), Limits(seconds=LIMIT))
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


def die(items):
    """In the place of the worker's answer."""
    os._exit(1)


@pytest.mark.slow
def test_a_worker_that_hangs_while_it_starts_again(trained, monkeypatch):
    """Requests that it had when it stopped do not wait for ever, and later ones are answered."""

    async def together():
        engine = InferenceEngine(ModelFolder(str(trained)), Limits(seconds=LIMIT))
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


def stalled(app, begun=False):
    """What is sent, and counted, of a request to `app` whose body stops to come after a part."""
    sent, counted = [], []

    async def receive():
        await asyncio.sleep(0 if begun and not sent else 60)
        return {"type": "http.request", "body": b"some", "more_body": True}

    async def send(message):
        sent.append(message)

    headers = [(b"content-length", b"1000")]
    scope = {"type": "http", "method": "POST", "path": "/en/x", "headers": headers}

    def labels(route, *status):
        counted.extend(map(int, status))
        return SimpleNamespace(inc=lambda: None, observe=lambda seconds: None)

    one = SimpleNamespace(labels=labels)
    metrics = SimpleNamespace(requests=one, seconds=one)
    asyncio.run(Guard(app, Limits(seconds=1), metrics, None)(scope, receive, send))
    return sent, counted


def test_an_answer_that_has_begun_is_not_begun_again():
    async def app(scope, receive, send):
        await receive()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await receive()  # never comes

    sent, _ = stalled(app, begun=True)
    assert [message["type"] for message in sent] == ["http.response.start"]


def test_whatever_a_framework_makes_of_a_stall_its_client_gets_a_problem():
    async def app(scope, receive, send):
        try:
            await receive()
        except Problem:
            await send({"type": "http.response.start", "status": 500, "headers": []})
            raise RuntimeError("of its own") from None

    sent, counted = stalled(app)
    assert [message["type"][14:] for message in sent] == ["start", "body"]
    assert sent[0]["status"] == 408 and counted == [408]


def test_posts_of_clients_that_left_are_not_kept():
    async def run():
        engine = InferenceEngine(ModelFolder("nowhere"), Limits())
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
