"""Serve a model until a signal ends it."""

import asyncio
import logging
import math
import signal
import socket
import warnings
from collections.abc import Callable
from http import HTTPStatus

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from sgmft.errors import TEXTS, SgmftError, SgmftWarning
from sgmft.serving.app import create_app
from sgmft.serving.engine import InferenceEngine
from sgmft.serving.label_studio import LabelStudio
from sgmft.serving.page.routes import add_page
from sgmft.serving.problems import Problem


def serve_model(
    engine: InferenceEngine,
    host: str,
    port: int,
    on_start: Callable[[str], None] = print,
    *,
    page: bool = True,
    key: str | None = None,
    studio: LabelStudio | None = None,
) -> None:
    """Serve a model until SIGINT or SIGTERM; requests accepted by then are answered first."""
    with _listen(host, port) as listening:
        engine.start()
        limits = engine.limits
        app = create_app(engine, key, studio)
        logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
        logging.getLogger("sgmft").setLevel(logging.INFO)
        for name in ("uvicorn", "python_multipart"):  # a line for each odd request, or its bytes
            logging.getLogger(name).setLevel(logging.ERROR)
        warnings.simplefilter("ignore", SgmftWarning)  # they name visitors' tables
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,  # it writes down whole addresses
            server_header=False,
            ws="none",
            http=TimedConnection,
            limit_concurrency=limits.connections + 1,  # `TimedConnection` lets none be that many
            timeout_keep_alive=math.ceil(limits.seconds),
            timeout_graceful_shutdown=math.ceil(4 * limits.seconds),  # to its body, then its answer
        )
        server = _Server(config)
        server.end_page = add_page(app, engine) if page else lambda: None

        def end(number: int, frame: object) -> None:  # until uvicorn listens to signals, and after
            server.should_exit = True

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        shown, taken = listening.getsockname()[:2]
        on_start(f"http://{f'[{shown}]' if ':' in shown else shown}:{taken}")
        asyncio.run(server.serve(sockets=[listening]))


class TimedConnection(H11Protocol):
    """A connection that waits for a request's headers for `timeout_keep_alive` seconds.

    They count from the beginning and from each answer to the next request; uvicorn stops at a first
    byte, and a client that sends a header now and then has its connection for ever. What has begun
    to come is answered with a problem document. One beyond `limit_concurrency` is closed at once.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a client, or refuse it."""
        super().connection_made(transport)
        if len(self.connections) >= (self.limit_concurrency or math.inf):
            self.connections.discard(self)  # or others that are open would be refused as well
            self._refuse(Problem("busy", f"{len(self.connections)} connections are open.", retry=5))
        else:
            self._wait()

    def handle_events(self) -> None:
        """Take in some bytes, perhaps the last of a request's headers."""
        try:
            super().handle_events()
        except h11.LocalProtocolError:  # nonsense after an answer that did not wait for the body
            self.transport.close()
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()

    def on_response_complete(self) -> None:
        """Wait for the next request, which may be there already."""
        self._wait()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop waiting."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._stop_waiting()
        self._timer = self.loop.call_later(self.timeout_keep_alive, self._time_out)

    def _stop_waiting(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _time_out(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            detail = f"Its headers were not complete after {self.timeout_keep_alive} seconds."
            self._refuse(Problem("too-slow", detail))
        else:
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        response = problem.response()
        status, headers = HTTPStatus(response.status_code), response.raw_headers
        head = h11.Response(status_code=status, headers=headers, reason=status.phrase.encode())
        for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


class _Server(uvicorn.Server):
    """A server that first ends what it would else wait for: tables of the page."""

    end_page: Callable[[], None]

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.end_page()
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    if not host:  # to the system, every address there is
        raise SgmftError("The host is empty: give 127.0.0.1, or 0.0.0.0 for all addresses.")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:  # the latter for names that are no host's
        why = getattr(error, "strerror", None) or "no such address"
        raise SgmftError(TEXTS["not listening"], port=port, host=host, reason=why) from error
