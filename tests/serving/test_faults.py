"""Workers that stop, clients that leave or dawdle, signals, full queues: nobody hangs."""

from __future__ import annotations

import base64
import shutil
import signal
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from loopback import SOON, address_of, counted, document, request, status, until

from image_files import encoded, plain

POST = {"text": "at home on the sofa"}


@pytest.fixture(scope="module")
def limited(serving: Callable[..., Any], trained: Path) -> Any:
    """At most two requests, and two seconds; the last test ends it."""
    return serving(trained, "--no-page", "--max-seconds", 2, "--max-requests", 2)


@pytest.fixture
def tight(limited: Any) -> Any:
    """The same, when its model is there."""
    until(lambda: limited.get("/ready").status_code == 200)
    return limited


@pytest.fixture(scope="module")
def vanishing(
    serving: Callable[..., Any], trained: Path, tmp_path_factory: pytest.TempPathFactory
) -> Any:
    """A server whose model is a copy of its own; the last test kills it."""
    copy = tmp_path_factory.mktemp("vanishing") / "model"
    shutil.copytree(trained, copy)
    return serving(copy, "--no-page")


def worker_of(server: Any) -> psutil.Process:
    """Its process with the model."""
    children = psutil.Process(server.process.pid).children()
    return next(child for child in children if "spawn_main" in " ".join(child.cmdline()))


@contextmanager
def held(server: Any, count: int) -> Iterator[list[Future[httpx.Response]]]:
    """So many requests inside, with a worker that stands still; who wants answers moves it on."""
    worker = worker_of(server)
    worker.suspend()
    with ThreadPoolExecutor(count) as pool:
        try:
            pending = [pool.submit(server.post, "/v1/predict", json=POST) for _ in range(count)]
            until(lambda: counted(server, "sgmft_inside") == count, 10)
            yield pending
        finally:
            if worker.is_running():
                worker.resume()


def test_a_worker_killed_at_work_costs_at_most_its_own_request(server: Any) -> None:
    restarts = counted(server, "sgmft_worker_restarts")
    with held(server, 4) as pending:
        worker_of(server).kill()
        answers = [one.result(SOON) for one in pending]
    refused = [x for x in answers if x.status_code != 200]
    assert len(refused) <= 1  # one was with the worker, the others waited
    for answer in refused:
        assert answer.status_code == 503
        assert answer.json()["type"] == "/problems/worker-stopped"
        assert int(answer.headers["Retry-After"]) > 0
    until(lambda: server.get("/ready").status_code == 200)
    assert counted(server, "sgmft_worker_restarts") == restarts + 1
    assert server.post("/v1/predict", json=POST).status_code == 200


def test_a_worker_killed_while_idle_is_replaced(server: Any) -> None:
    before = server.post("/v1/predict", json=POST).json()
    worker_of(server).kill()
    until(lambda: server.get("/ready").status_code == 503, 10)
    assert server.get("/health").status_code == 200
    first = server.post("/v1/predict", json=POST)
    assert first.status_code in (200, 503)
    until(lambda: server.get("/ready").status_code == 200)
    assert server.post("/v1/predict", json=POST).json() == before


@pytest.mark.slow
def test_a_model_that_is_gone_when_the_worker_is_started_again(vanishing: Any) -> None:
    server = vanishing
    folder = Path(server.process.args[2])
    folder.rename(folder.with_name("away"))
    worker_of(server).kill()
    answer = server.post("/v1/predict", json=POST)
    assert (answer.status_code, answer.json()["type"]) == (503, "/problems/worker-stopped")
    assert server.get("/health").status_code == 200
    folder.with_name("away").rename(folder)
    until(lambda: server.get("/ready").status_code == 200)
    assert server.post("/v1/predict", json=POST).status_code == 200


@pytest.mark.slow
def test_the_worker_ends_when_its_parent_is_killed(vanishing: Any) -> None:
    until(lambda: vanishing.get("/ready").status_code == 200)
    worker = worker_of(vanishing)
    vanishing.process.kill()
    vanishing.process.wait()
    assert worker.wait(20) is not False  # raises where it lives on


def test_a_client_that_leaves_before_its_answer(server: Any) -> None:
    worker = worker_of(server)
    worker.suspend()
    try:
        before = left(server)
        with socket.create_connection(address_of(server)) as client:
            client.sendall(request(b'{"text": "at home"}'))
            until(lambda: counted(server, "sgmft_inside") == 1, 10)
        until(lambda: counted(server, "sgmft_inside") == 0, 10)
    finally:
        worker.resume()
    assert left(server) == before + 1
    assert 'status="500"' not in server.get("/metrics").text
    assert server.post("/v1/predict", json=POST).status_code == 200


def test_a_client_that_leaves_within_its_body(server: Any) -> None:
    before = left(server)
    for kind in ("application/json", "multipart/form-data; boundary=x"):
        with socket.create_connection(address_of(server)) as client:
            client.sendall(request(b"--x\r\nContent-Disposition: form-", kind, length=1000))
            until(lambda: counted(server, "sgmft_inside") == 1, 10)
        until(lambda: counted(server, "sgmft_inside") == 0, 10)
    assert left(server) == before + 2
    assert server.post("/v1/predict", json=POST).status_code == 200


def left(server: Any) -> float:
    return counted(server, 'sgmft_requests_total{route="/v1/predict",status="499"}')


def test_a_slow_client_is_refused_and_others_are_answered_meanwhile(tight: Any) -> None:
    start = time.monotonic()
    with socket.create_connection(address_of(tight), timeout=20) as client:
        client.sendall(request(b'{"text": "', length=1000))
        while time.monotonic() < start + 1:
            client.sendall(b"a")
            assert tight.post("/v1/predict", json=POST).status_code == 200
        received = b""
        while some := client.recv(65536):
            received += some
    assert status(received) == 408
    assert document(received)["type"] == "/problems/too-slow"
    assert 2 <= time.monotonic() - start < 10
    assert tight.post("/v1/predict", json=POST).status_code == 200


def test_with_a_full_queue_further_requests_are_refused_at_once(tight: Any) -> None:
    with held(tight, 2) as pending:
        start = time.monotonic()
        answer = tight.post("/v1/predict", json=POST)
        took = time.monotonic() - start
        worker_of(tight).resume()
        assert answer.status_code == 503
        assert answer.json()["type"] == "/problems/busy"
        assert int(answer.headers["Retry-After"]) >= 1
        assert took < 0.5
        assert [one.result(SOON).status_code for one in pending] == [200, 200]


def test_a_post_that_takes_too_long(tight: Any) -> None:
    picture = base64.b64encode(encoded(plain(size=(5000, 5000)))).decode()
    restarts = counted(tight, "sgmft_worker_restarts")
    start = time.monotonic()
    answer = tight.post("/v1/predict", json={"posts": [{"images": [picture] * 16}] * 4})
    assert (answer.status_code, answer.json()["type"]) == (422, "/problems/takes-too-long")
    assert time.monotonic() - start < 10
    until(lambda: tight.get("/ready").status_code == 200 and is_started(tight, restarts + 1))
    assert tight.post("/v1/predict", json=POST).status_code == 200


def is_started(server: Any, restarts: float) -> bool:
    return counted(server, "sgmft_worker_restarts") == restarts


@pytest.mark.parametrize("number", ["SIGTERM", "SIGINT"])
def test_a_signal_ends_the_server_when_all_are_answered(
    limited: Any, serving: Callable[..., Any], trained: Path, number: str
) -> None:
    server = limited if number == "SIGINT" else serving(trained, "--no-page")
    with httpx.Client() as idle, held(server, 2) as pending:
        idle.get(f"{server.address}/health")  # a connection that stays open ends with the server
        worker = worker_of(server)
        server.process.send_signal(getattr(signal, number))
        until(lambda: refuses(server), 10)
        assert not any(one.done() for one in pending)
        worker.resume()
        assert [one.result(SOON).status_code for one in pending] == [200, 200]
        assert server.process.wait(20) == 0
        worker.wait(20)
    assert not [line for line in server.log if "ERROR" in line or "Traceback" in line]


def refuses(server: Any) -> bool:
    try:
        socket.create_connection(address_of(server)).close()
    except ConnectionRefusedError:
        return True
    return False


@pytest.fixture(scope="module")
def broken(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Models that cannot be served, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("broken")
    names = ("truncated weights", "no config", "broken JSON", "no held-out posts")
    models = {name: folder / name for name in names}
    for model in models.values():
        shutil.copytree(trained, model)
    weights = models["truncated weights"] / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    (models["no config"] / "config.json").unlink()
    (models["broken JSON"] / "config.json").write_text('{"sgmft": {"format": 1, ')
    (models["no held-out posts"] / "held_out.safetensors").unlink()
    models["a file"] = weights
    return models


REFUSED = {
    "truncated weights": ("damaged", ()),
    "no config": ("config.json", ()),
    "broken JSON": ("not readable", ()),
    "a file": ("no such folder", ()),
    "no held-out posts": ("had not learned from", ("--coverage", 0.9)),
}


@pytest.fixture(scope="module")
def refusals(broken: dict[str, Path], run_process: Callable[..., Any]) -> dict[str, Any]:
    with ThreadPoolExecutor(2) as pool:
        words = {name: ("serve", broken[name], "--port", 0, *REFUSED[name][1]) for name in REFUSED}
        ended = pool.map(lambda x: run_process(*x), words.values())
        return dict(zip(words, ended, strict=True))


@pytest.mark.slow
@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_cannot_be_served_is_refused(refusals: dict[str, Any], name: str) -> None:
    assert_one_sentence(refusals[name], REFUSED[name][0])


def test_a_taken_port_is_refused(run: Callable[..., Any], trained: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_one_sentence(run("serve", trained, "--port", port), f"Port {port} of 127.0.0.1")


def assert_one_sentence(ended: Any, words: str) -> None:
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert words in ended.stderr
    assert ended.stderr.startswith("sgmft: ")
    assert ended.stderr.count("\n") == 1
