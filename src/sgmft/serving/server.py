"""Serve a model until a signal ends it."""

from __future__ import annotations

import asyncio
import logging
import math
import signal
import socket
import warnings
from collections.abc import Callable

import uvicorn

from sgmft.errors import SgmftError, SgmftWarning
from sgmft.locator.abstention import Abstention
from sgmft.serving.app import create_app
from sgmft.serving.connection import TimedConnection
from sgmft.serving.engine import InferenceEngine
from sgmft.serving.limits import Limits


def serve_model(
    model: str,
    host: str,
    port: int,
    *,
    limits: Limits,
    rules: Abstention,
    page: bool = True,
    key: str | None = None,
    runtime: str | None = None,
    device: str | None = None,
    on_start: Callable[[str], None] = print,
) -> None:
    """Serve a model until SIGINT or SIGTERM; requests accepted by then are answered first.

    Args:
        on_start: called with the server's address.

    Raises:
        SgmftError: the model cannot be loaded, or the address is taken or not this machine's.
    """
    listening = _listen(host, port)
    with listening:
        engine = InferenceEngine(model, limits, rules, runtime=runtime, device=device)
        engine.start()
        app = create_app(engine, key)
        end_page: Callable[[], None] | None = None
        if page:
            from sgmft.serving.page.routes import add_page

            end_page = add_page(app, engine)
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
        server = _Server(config, end_page)

        def end(number: int, frame: object) -> None:  # until uvicorn listens to signals, and after
            server.should_exit = True

        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, end)
        shown, taken = listening.getsockname()[:2]
        on_start(f"http://{f'[{shown}]' if ':' in shown else shown}:{taken}")
        asyncio.run(server.serve(sockets=[listening]))


class _Server(uvicorn.Server):
    """A server that first ends what it would else wait for: tables of the page."""

    def __init__(self, config: uvicorn.Config, end_page: Callable[[], None] | None) -> None:
        super().__init__(config)
        self._end_page = end_page

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End what is begun, after the last request was accepted."""
        if self._end_page is not None:
            self._end_page()
        await super().shutdown(sockets)


def _listen(host: str, port: int) -> socket.socket:
    if not host:  # to the system, every address there is
        raise SgmftError("The host is empty: give 127.0.0.1, or 0.0.0.0 for all addresses.")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=2048)
    except (OSError, UnicodeError) as error:  # the latter for names that are no host's
        why = getattr(error, "strerror", None) or "no such address"
        raise SgmftError(
            f"Port {port} of {host} cannot be listened on ({why}): choose "
            "another with --port or --host."
        ) from error
