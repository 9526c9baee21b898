"""A server, started as a user starts it."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

SGMFT = Path(sys.executable).with_name("sgmft")


@dataclass
class Server:
    """A running `sgmft serve` and its log so far."""

    process: subprocess.Popen[str]
    address: str = ""
    log: list[str] = field(default_factory=list)

    def post(self, path: str, **what: Any) -> httpx.Response:
        return httpx.post(self.address + path, timeout=60, **what)

    def get(self, path: str, **what: Any) -> httpx.Response:
        return httpx.get(self.address + path, timeout=60, **what)


def start_server(model: Path, *options: object) -> Server:
    """Returns when the server listens; raises with its words when it ends instead."""
    command = [str(x) for x in (SGMFT, "serve", model, "--port", 0, *options)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    server = Server(process)
    assert process.stderr is not None
    for line in process.stderr:
        server.log.append(line)
        if " at http://" in line:
            server.address = line.split()[-1]
            break
    else:
        raise RuntimeError("".join(server.log))

    def listen() -> None:
        assert process.stderr is not None
        for line in process.stderr:
            server.log.append(line)

    threading.Thread(target=listen, daemon=True).start()
    return server


@pytest.fixture(scope="session")
def serving() -> Iterator[Callable[..., Server]]:
    """Starts servers that end with the tests: `serving(model, "--max-posts", 3)`."""
    started: list[Server] = []

    def start(model: Path, *options: object) -> Server:
        started.append(start_server(model, *options))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="session")
def server(serving: Callable[..., Server], trained: Path) -> Server:
    """Everything by default, with the page."""
    return serving(trained)
