"""Clients that connect and then say nothing, or not all, or that are too many."""

import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import pytest
from loopback import document, problem, request, status

LIMIT = 2  # seconds
ASKED = b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n"


def heard(client):
    """The next answer, a short JSON document, whole."""
    client.settimeout(20)
    received = b""
    while not received.endswith(b"}"):
        some = client.recv(65536)
        assert some, "the connection has ended"
        received += some
    return received


def answered(client):
    """The status of the next answer."""
    return status(heard(client))


@pytest.fixture(scope="module")
def brisk(serving, trained):
    """Waits two seconds for headers, and for the parts of an upload to its page."""
    return serving(trained, "--max-seconds", LIMIT)


def read_slowly(client, slowly):
    """What the server says until it ends a connection on which a byte comes now and then."""
    client.settimeout(0.3)
    received, left = b"", iter(slowly)
    end = time.monotonic() + 20
    while time.monotonic() < end:
        try:
            some = client.recv(65536)
            if not some:
                return received
            received += some
        except TimeoutError:
            if byte := next(left, None):
                client.sendall(bytes([byte]))
        except ConnectionResetError:
            return received
    raise AssertionError("the connection stays open")


SLOW = {  # what is asked before, what is sent then at once, and what now and then
    "nothing": (b"", b"", b""),
    "a letter": (b"", b"P", b"O" * 100),
    "a header": (b"", b"POST /v1/predict HTTP/1.1\r\nHost: x\r\nX-A: ", b"O" * 100),
    "nothing more": (ASKED, b"", b""),
    "half a line": (ASKED, b"GET /hea", b""),
    "a late body": (b"", ASKED.replace(b"x\r\n", b"x\r\nContent-Length: 1000\r\n"), b"a" * 100),
}


def say_slowly(server, asked, then, slowly):
    with server.connect() as client:
        if asked:
            client.sendall(asked)
            assert answered(client) == 200
        client.sendall(then)
        return read_slowly(client, slowly)


def say_in_parts(server):
    with server.connect() as client:
        head, _, body = request(b'{"text": "at home"}').partition(b"\r\n\r\n")
        client.sendall(head + b"\r\n")
        time.sleep(0.6 * LIMIT)
        client.sendall(b"\r\n" + body[:-1])
        time.sleep(0.6 * LIMIT)
        client.sendall(body[-1:])
        return answered(client)


@pytest.fixture(scope="module")
def said(brisk):
    """What the server says to each of these clients, who come at the same time."""
    with ThreadPoolExecutor(len(SLOW) + 1) as pool:
        found = {name: pool.submit(say_slowly, brisk, *what) for name, what in SLOW.items()}
        return found | {"in parts": pool.submit(say_in_parts, brisk)}


def test_a_client_that_sends_nothing_is_left_without_a_word(said):
    assert said["nothing"].result() == b""


@pytest.mark.parametrize("first", ["a letter", "a header"])
def test_headers_that_never_end_are_refused(said, first):
    received = said[first].result()
    assert problem(received) == (408, "too-slow")
    assert "headers were not complete after 2 seconds" in document(received)["detail"]


@pytest.mark.parametrize(("then", "answer"), [("nothing more", 0), ("half a line", 408)])
def test_nor_is_there_more_time_after_an_answer(said, then, answer):
    assert status(said[then].result()) == answer


def test_a_body_that_comes_after_its_answer_keeps_nothing_open(said):
    assert status(said["a late body"].result()) == 200


@pytest.mark.slow
def test_a_connection_in_use_stays(brisk):
    with brisk.connect() as client:
        end = time.monotonic() + 2 * LIMIT
        while time.monotonic() < end:
            client.sendall(ASKED)
            assert answered(client) == 200
            time.sleep(0.3)


def test_a_body_and_its_answer_have_their_own_time(said):
    assert said["in parts"].result() == 200


HEAD = b"--b\r\nContent-Disposition: form-data; name=table; filename=a.csv\r\n\r\n"
UPLOAD = request(
    HEAD + b"text\nat home\r\n--b--\r\n", "multipart/form-data; boundary=b", "/en/table"
)


@pytest.mark.slow
def test_an_upload_that_comes_slowly_comes(brisk):
    with brisk.connect() as client:
        for part in range(0, len(UPLOAD), len(UPLOAD) // 6):  # over twice the limit
            client.sendall(UPLOAD[part:][: len(UPLOAD) // 6])
            time.sleep(0.4 * LIMIT if part >= UPLOAD.index(b"--b") else 0)
        client.settimeout(20)
        assert status(client.recv(65536)) == 200


@pytest.mark.slow
def test_an_upload_that_stops_is_refused(brisk):
    with brisk.connect() as client:
        client.sendall(UPLOAD[:-20])
        received = heard(client)
    assert problem(received) == (408, "too-slow")


def test_more_connections_than_there_may_be(serving, trained):
    server = serving(trained, "--no-page", "--max-connections", 3)
    with ExitStack() as clients:
        first, *_ = [clients.enter_context(server.connect()) for _ in "123"]
        first.sendall(ASKED)
        assert answered(first) == 200
        for _ in range(3):  # several that come at the same time
            late = [clients.enter_context(server.connect()) for _ in range(5)]
            for received in [read_slowly(client, b"") for client in late]:
                assert problem(received) == (503, "busy")
                assert b"retry-after: 5" in received.lower()
        first.sendall(ASKED)
        assert answered(first) == 200
    assert server.get("/health").status_code == 200


def test_nonsense_after_an_early_answer_ends_the_connection(brisk):
    head = request(b"", "x", "/nowhere", "Transfer-Encoding: chunked", length=2)
    with brisk.connect() as client:
        client.sendall(head)
        assert answered(client) == 404
        client.sendall(b"no chunk\r\n" * 3)
        assert read_slowly(client, b"") == b""
    assert "Traceback" not in "".join(brisk.log)
