"""A server, started as a user starts it."""

import socket
import subprocess
import sys
import threading
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

SGMFT = Path(sys.executable).with_name("sgmft")


@dataclass
class Server:
    """A running `sgmft serve` and its log so far."""

    process: subprocess.Popen[str]
    address: str = ""
    log: list[str] = field(default_factory=list)

    def post(self, path, **what):
        return httpx.post(self.address + path, timeout=60, verify=False, **what)  # plain HTTP

    def get(self, path, **what):
        return httpx.get(self.address + path, timeout=60, verify=False, **what)

    def connect(self):
        """A connection without a word on it."""
        where = urlsplit(self.address)
        return socket.create_connection((where.hostname, where.port), timeout=30)

    def counted(self, name):
        """A number of its /metrics."""
        lines = self.get("/metrics").text.splitlines()
        return sum(float(line.split()[-1]) for line in lines if line.startswith(name))

    def worker(self):
        """Its process with the model."""
        children = psutil.Process(self.process.pid).children()
        return next(child for child in children if "spawn_main" in " ".join(child.cmdline()))

    def is_ready(self):
        return self.get("/ready").status_code == 200

    def complaints(self):
        """Lines of its log that tell of a bug."""
        return [line for line in self.log if "ERROR" in line or "Traceback" in line]


def start_server(model, *options):
    """Returns when the server listens; raises with its words when it ends instead."""
    command = [str(x) for x in (SGMFT, "serve", model, "--port", 0, *options)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    server = Server(process)
    for line in process.stderr:
        server.log.append(line)
        if " at http://" in line:
            server.address = line.split()[-1]
            break
    else:
        raise RuntimeError("".join(server.log))

    def listen():
        for line in process.stderr:
            server.log.append(line)

    threading.Thread(target=listen, daemon=True).start()
    return server


@pytest.fixture(scope="session")
def serving():
    """Starts servers that end with the tests: `serving(model, "--max-posts", 3)`."""
    started = []

    def start(model, *options):
        started.append(start_server(model, *options))
        return started[-1]

    yield start
    for server in started:
        server.process.kill()
        server.process.wait()


@pytest.fixture(scope="session")
def server(serving, trained):
    """Everything by default, with the page."""
    return serving(trained)
