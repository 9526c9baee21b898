"""A server on loopback that speaks the OpenAI chat protocol; what it answers, a test decides."""

from __future__ import annotations

import json
import math
import re
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple

LABELS = {"Home": ["Home"], "School": ["in class", "at the library"], "Work": ["Work"]}
WORDS = {"sofa": "A", "exam": "B", "boss": "C", "沙发": "A"}


class Answer(NamedTuple):
    """An answer as it goes over the wire; a body that is cut ends before its stated length."""

    status: int = 200
    body: Any = b""
    headers: dict[str, str] = {}  # noqa: RUF012
    cut: bool = False
    seconds: float = 0
    drip: float = 0  # seconds between the bytes of the body


def completion(text: str | None, tops: dict[str, float] | None = None, **choice: Any) -> Answer:
    """A completion of one token for each character, whose alternatives have these probabilities."""
    message = {"role": "assistant", "content": text}
    found = {"index": 0, "finish_reason": "stop", "message": message, "logprobs": None} | choice
    if tops is not None:
        others = [{"token": x, "logprob": math.log(p), "bytes": None} for x, p in tops.items()]
        tokens = [
            {"token": x, "logprob": -0.1, "bytes": None, "top_logprobs": others} for x in text or ""
        ]
        found["logprobs"] = {"content": tokens, "refusal": None}
    usage = {"prompt_tokens": 100, "completion_tokens": 3, "total_tokens": 103}
    own = {"id": "x", "object": "chat.completion", "created": 1, "model": "m", "usage": usage}
    return Answer(body=own | {"choices": [found]})


def refusal(status: int, message: str, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Answer(status, {"error": {"message": message}}, named)


def prompt_of(body: dict[str, Any]) -> str:
    """The text that a request begins with."""
    content = body["messages"][0]["content"]
    return content if isinstance(content, str) else content[0]["text"]


def post_of(body: dict[str, Any]) -> str:
    """The text of the post in a request with the prompt of the package."""
    return re.split(r"\n-{8}\n", prompt_of(body))[1]


def by_words(body: dict[str, Any], number: int) -> Answer:
    """The letter of the first known word; D, none of the labels, without one."""
    found = [code for word, code in WORDS.items() if word in post_of(body)]
    return completion(found[0] if found else "D")


Behaviour = Callable[[dict[str, Any], int], Answer]


class ChatServer(ThreadingHTTPServer):
    """The server; `seen` has the body and headers of each request, `most` how many at once."""

    daemon_threads = True

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.behaviour = behaviour
        self.seen: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.at_once = self.most = 0
        self.lock = threading.Lock()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, *_: Any) -> None:
        """Clients hang up here on purpose."""


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # a body does not wait until its headers are acknowledged
    server: ChatServer

    def log_message(self, *_: Any) -> None:
        pass

    def do_POST(self) -> None:
        server = self.server
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with server.lock:
            server.seen.append(body)
            server.headers.append({name.lower(): x for name, x in self.headers.items()})
            number = len(server.seen)
            server.at_once += 1
            server.most = max(server.most, server.at_once)
        try:
            answer = server.behaviour(body, number)
            time.sleep(answer.seconds)
        finally:
            with server.lock:
                server.at_once -= 1
        plain = isinstance(answer.body, bytes)
        data = answer.body if plain else json.dumps(answer.body).encode()
        self.send_response(answer.status)
        self.send_header("Content-Type", "text/html" if plain else "application/json")
        self.send_header("Content-Length", str(2 * len(data) if answer.cut else len(data)))
        for key, value in answer.headers.items():
            self.send_header(key, value)
        self.end_headers()
        for part in [data[i : i + 1] for i in range(len(data))] if answer.drip else [data]:
            self.wfile.write(part)
            time.sleep(answer.drip)
        self.close_connection = answer.cut


@contextmanager
def serve_chat(behaviour: Behaviour = by_words) -> Iterator[ChatServer]:
    server = ChatServer(behaviour)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
