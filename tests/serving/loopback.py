"""Bytes sent to a server on this machine, and what it says to them."""

from __future__ import annotations

import json
import select
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

Address = tuple[str, int]
SOON = 60.0  # seconds; for what takes a few on an idle machine


class Case(NamedTuple):
    """What is sent, and whether it is a whole request that must be answered."""

    sent: bytes
    whole: bool = True


def request(
    body: bytes = b"",
    kind: str = "application/json",
    path: str = "/v1/predict",
    *more: str,
    method: str = "POST",
    length: object = None,
) -> bytes:
    """Well-formed HTTP around anything; odd characters stand for their UTF-8 or escaped bytes."""
    lines = [f"{method} {path} HTTP/1.1", "Host: x", "Connection: close", f"Content-Type: {kind}"]
    lines += [f"Content-Length: {len(body) if length is None else length}", *more, "", ""]
    return "\r\n".join(lines).encode("utf-8", "surrogateescape") + body


def answer(address: Address, made: Case, seconds: float = 30) -> bytes:
    """All that the server says to it; b"" where it ends without a word."""
    found: list[bytes] = []
    with socket.create_connection(address, timeout=seconds) as client:
        try:
            client.sendall(made.sent)
            if not made.whole and not select.select([client], [], [], 0.05)[0]:
                client.shutdown(socket.SHUT_WR)  # the server waits for what never comes
            while some := client.recv(65536):
                found.append(some)
        except (ConnectionResetError, BrokenPipeError):
            pass  # it has sent what it had to send
    return b"".join(found).removeprefix(b"HTTP/1.1 100 Continue\r\n\r\n")


def status(received: bytes) -> int:
    """Of an answer; 0 of none."""
    return int(received[9:12]) if received.startswith(b"HTTP/1.") else 0


def document(received: bytes) -> Any:
    """The JSON of an answer."""
    return json.loads(received.partition(b"\r\n\r\n")[2])


def address_of(server: Any) -> Address:
    """Where a server listens."""
    where = urlsplit(server.address)
    return str(where.hostname), int(where.port or 0)


def counted(server: Any, name: str) -> float:
    """A number of its /metrics."""
    lines = server.get("/metrics").text.splitlines()
    return sum(float(line.split()[-1]) for line in lines if line.startswith(name))


def until(true: Callable[[], bool], seconds: float = SOON) -> None:
    """Returns when it is true."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it does not come about"
        time.sleep(0.05)
