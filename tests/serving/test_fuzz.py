"""Thousands of malformed requests: each is refused in order, and the server does not notice."""

import os
import socket
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import pytest
from loopback import answer, document, status
from malformed_requests import case

CASES = (100, pytest.param(int(os.environ.get("SGMFT_FUZZ_CASES", "5000")), marks=pytest.mark.slow))
SEED = os.environ.get("SGMFT_FUZZ_SEED", "0")
STATUSES = {200, 307, 400, 401, 404, 405, 408, 413, 415, 422}
HTTP_ERROR = b"Invalid HTTP request received."  # uvicorn's own word where there is no request


@contextmanager
def nobody_calls():
    """The port of a listener; in the end nobody must have connected to it."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]
        listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            listener.accept()


def wrong(made, received):
    """What is wrong with an answer, if anything."""
    code = status(received)
    if code == 0:
        return "no answer" if made.whole or received else ""
    if code not in STATUSES:
        return f"status {code}"
    if code >= 400 and HTTP_ERROR not in received and b"application/problem+json" not in received:
        return "no problem document"
    if made.sent.startswith(b"HEAD") or HTTP_ERROR in received:
        return ""
    if made.whole and code >= 400 and document(received)["status"] != code:
        return "another status in the document"
    return ""


@pytest.mark.parametrize("cases", CASES)
def test_malformed_requests_are_refused_and_leave_no_trace(server, cases):
    restarts, logged = server.counted("sgmft_worker_restarts"), server.complaints()
    before = server.post("/v1/predict", json={"text": "we are at home"}).json()
    seen = Counter()
    with nobody_calls() as port, ThreadPoolExecutor(8) as pool:

        def tried(number):
            made = case(f"{SEED} {number}", port)
            try:
                received = answer(server, made)
            except OSError as error:
                return f"case {number}: {type(error).__name__} for {made.sent[:300]!r}"
            seen[status(received)] += 1
            reason = wrong(made, received)
            return reason and f"case {number}: {reason}: {received[:300]!r} for {made.sent[:300]!r}"

        failures = [reason for reason in pool.map(tried, range(cases)) if reason]
    assert not failures, f"{len(failures)} of {cases}: " + "\n".join(failures[:10])
    if cases >= 1000:  # then every kind has been tried
        assert set(seen) >= {0, 200, 400, 404, 405, 413, 415, 422}, seen
    assert server.get("/ready").status_code == 200
    assert server.post("/v1/predict", json={"text": "we are at home"}).json() == before
    assert server.counted("sgmft_worker_restarts") == restarts
    assert server.counted("sgmft_inside") == 0
    assert server.complaints() == logged
