"""Workers that stop, clients that leave or dawdle, signals, full queues: nobody hangs."""

import base64
import shutil
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from loopback import SOON, problem, request, until

from image_files import encoded, plain

POST = {"text": "at home on the sofa"}


@pytest.fixture(scope="module")
def limited(serving, trained):
    """At most two requests, and two seconds; the last test ends it."""
    return serving(trained, "--no-page", "--max-seconds", 2, "--max-requests", 2)


@pytest.fixture
def tight(limited):
    """The same, when its model is there."""
    until(limited.is_ready)
    return limited


@pytest.fixture(scope="module")
def vanishing(serving, trained, tmp_path_factory):
    """A server whose model is a copy of its own; the last test kills it."""
    copy = tmp_path_factory.mktemp("vanishing") / "model"
    shutil.copytree(trained, copy)
    return serving(copy, "--no-page")


@contextmanager
def held(server, count):
    """So many requests inside, with a worker that stands still; who wants answers moves it on."""
    worker = server.worker()
    worker.suspend()
    with ThreadPoolExecutor(count) as pool:
        try:
            pending = [pool.submit(server.post, "/v1/predict", json=POST) for _ in range(count)]
            until(lambda: server.counted("sgmft_inside") == count, 10)
            yield pending
        finally:
            if worker.is_running():
                worker.resume()


def test_a_worker_killed_at_work_costs_at_most_its_own_request(server):
    restarts = server.counted("sgmft_worker_restarts")
    with held(server, 4) as pending:
        server.worker().kill()
        answers = [one.result(SOON) for one in pending]
    refused = [x for x in answers if x.status_code != 200]
    assert len(refused) <= 1  # one was with the worker, the others waited
    for answer in refused:
        assert problem(answer) == (503, "worker-stopped")
        assert int(answer.headers["Retry-After"]) > 0
    until(server.is_ready)
    assert server.counted("sgmft_worker_restarts") == restarts + 1
    assert server.post("/v1/predict", json=POST).status_code == 200


@pytest.mark.slow
def test_a_worker_killed_while_idle_is_replaced(server):
    before = server.post("/v1/predict", json=POST).json()
    server.worker().kill()
    until(lambda: server.get("/ready").status_code == 503, 10)
    assert server.get("/health").status_code == 200
    first = server.post("/v1/predict", json=POST)
    assert first.status_code in (200, 503)
    until(server.is_ready)
    assert server.post("/v1/predict", json=POST).json() == before


@pytest.mark.slow
def test_a_model_that_is_gone_when_the_worker_is_started_again(vanishing):
    server = vanishing
    folder = Path(server.process.args[2])
    folder.rename(folder.with_name("away"))
    server.worker().kill()
    answer = server.post("/v1/predict", json=POST)
    assert problem(answer) == (503, "worker-stopped")
    assert server.get("/health").status_code == 200
    folder.with_name("away").rename(folder)
    until(server.is_ready)
    assert server.post("/v1/predict", json=POST).status_code == 200


@pytest.mark.slow
def test_the_worker_ends_when_its_parent_is_killed(vanishing):
    until(vanishing.is_ready)
    worker = vanishing.worker()
    vanishing.process.kill()
    vanishing.process.wait()
    assert worker.wait(20) is not False  # raises where it lives on


def test_a_client_that_leaves_before_its_answer(server):
    worker = server.worker()
    worker.suspend()
    try:
        before = left(server)
        with server.connect() as client:
            client.sendall(request(b'{"text": "at home"}'))
            until(lambda: server.counted("sgmft_inside") == 1, 10)
        until(lambda: server.counted("sgmft_inside") == 0, 10)
    finally:
        worker.resume()
    assert left(server) == before + 1
    assert 'status="500"' not in server.get("/metrics").text
    assert server.post("/v1/predict", json=POST).status_code == 200


def test_a_client_that_leaves_within_its_body(server):
    before = left(server)
    for kind in ("application/json", "multipart/form-data; boundary=x"):
        with server.connect() as client:
            client.sendall(request(b"--x\r\nContent-Disposition: form-", kind, length=1000))
            until(lambda: server.counted("sgmft_inside") == 1, 10)
        until(lambda: server.counted("sgmft_inside") == 0, 10)
    assert left(server) == before + 2
    assert server.post("/v1/predict", json=POST).status_code == 200


def left(server):
    return server.counted('sgmft_requests_total{route="/v1/predict",status="499"}')


def test_a_slow_client_is_refused_and_others_are_answered_meanwhile(tight):
    start = time.monotonic()
    with tight.connect() as client:
        client.sendall(request(b'{"text": "', length=1000))
        while time.monotonic() < start + 1:
            client.sendall(b"a")
            assert tight.post("/v1/predict", json=POST).status_code == 200
        received = b""
        while some := client.recv(65536):
            received += some
    assert problem(received) == (408, "too-slow")
    assert 2 <= time.monotonic() - start < 10
    assert tight.post("/v1/predict", json=POST).status_code == 200


def test_with_a_full_queue_further_requests_are_refused_at_once(tight):
    with held(tight, 2) as pending:
        start = time.monotonic()
        answer = tight.post("/v1/predict", json=POST)
        took = time.monotonic() - start
        tight.worker().resume()
        assert problem(answer) == (503, "busy")
        assert int(answer.headers["Retry-After"]) >= 1
        assert took < 0.5
        assert [one.result(SOON).status_code for one in pending] == [200, 200]


@pytest.mark.slow
def test_a_post_that_takes_too_long(tight):
    picture = base64.b64encode(encoded(plain(size=(5000, 5000)))).decode()
    restarts = tight.counted("sgmft_worker_restarts")
    start = time.monotonic()
    answer = tight.post("/v1/predict", json={"posts": [{"images": [picture] * 16}] * 4})
    assert problem(answer) == (422, "takes-too-long")
    assert time.monotonic() - start < 10
    until(lambda: tight.is_ready() and tight.counted("sgmft_worker_restarts") == restarts + 1)
    assert tight.post("/v1/predict", json=POST).status_code == 200


@pytest.mark.parametrize("number", [pytest.param("SIGTERM", marks=pytest.mark.slow), "SIGINT"])
def test_a_signal_ends_the_server_when_all_are_answered(limited, serving, trained, number):
    server = limited if number == "SIGINT" else serving(trained, "--no-page")
    with httpx.Client() as idle, held(server, 2) as pending:
        idle.get(f"{server.address}/health")  # a connection that stays open ends with the server
        worker = server.worker()
        server.process.send_signal(getattr(signal, number))
        until(lambda: refuses(server), 10)
        assert not any(one.done() for one in pending)
        worker.resume()
        assert [one.result(SOON).status_code for one in pending] == [200, 200]
        assert server.process.wait(20) == 0
        worker.wait(20)
    assert server.complaints() == []


def refuses(server):
    try:
        server.connect().close()
    except ConnectionRefusedError:
        return True
    return False


def cut(model):
    weights = model / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])


BROKEN = {
    cut: "damaged",
    lambda model: (model / "held_out.safetensors").unlink(): "had not learned from",
}


@pytest.mark.slow
@pytest.mark.parametrize("damage", BROKEN)
def test_a_model_that_cannot_be_served_is_refused(run_process, trained, tmp_path, damage):
    model = shutil.copytree(trained, tmp_path / "model")
    damage(model)
    refused = run_process("serve", model, "--port", 0, "--coverage", 0.9)
    assert_one_sentence(refused, BROKEN[damage])


def test_a_taken_port_is_refused(run, trained):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert_one_sentence(run("serve", trained, "--port", port), f"Port {port} of 127.0.0.1")


def assert_one_sentence(ended, words):
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert words in ended.stderr
    assert ended.stderr.startswith("sgmft: ")
    assert ended.stderr.count("\n") == 1
