"""Bytes sent to a server on this machine, and what it says to them."""

import json
import select
import socket
import time
from typing import NamedTuple

SOON = 60.0  # seconds; for what takes a few on an idle machine


class Case(NamedTuple):
    """What is sent, and whether it is a whole request that must be answered."""

    sent: bytes
    whole: bool = True


def request(
    body=b"", kind="application/json", path="/v1/predict", *more, method="POST", length=None
):
    """Well-formed HTTP around anything; odd characters stand for their UTF-8 or escaped bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Type: {kind}"]
    lines += [f"Content-Length: {len(body) if length is None else length}", *more, "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + body


def answer(server, made):
    """All that the server says to it; b"" where it ends without a word."""
    found = []
    with server.connect() as client:
        try:
            client.sendall(made.sent)
            if not made.whole and not select.select([client], [], [], 0.05)[0]:
                client.shutdown(socket.SHUT_WR)  # the server waits for what never comes
            while some := client.recv(65536):
                found.append(some)
        except (ConnectionResetError, BrokenPipeError):
            pass  # it has sent what it had to send
    return b"".join(found).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")


def status(received):
    """Of an answer; 0 of none."""
    return int(received[9:12]) if received.startswith(b"HTTP/1.") else 0


def document(received):
    """The JSON of an answer."""
    return json.loads(received.partition(b"\r\n\r\n")[2])


def problem(received):
    """The status of an answer, in bytes or as httpx has it, and the kind of problem it tells of."""
    if isinstance(received, bytes):
        return status(received), document(received)["type"].removeprefix("/problems/")
    return received.status_code, received.json()["type"].removeprefix("/problems/")


def until(true, seconds=SOON):
    """Returns when it is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.05)
