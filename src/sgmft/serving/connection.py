"""A connection of the server: one of so many, which waits for a request only so long."""

from __future__ import annotations

import asyncio
import math
from http import HTTPStatus

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from sgmft.serving.guard import as_response
from sgmft.serving.problems import Problem


class Connection(H11Protocol):
    """Closed where no request's headers are complete within `timeout_keep_alive` seconds.

    Also at once, where as many as `limit_concurrency` would be open.

    uvicorn counts the seconds from the last answer to the first byte after it, and so lets a client
    that sends nothing, or a header now and then, have its connection for ever. Here they are
    counted from the beginning of the connection and from each answer to the next request. What has
    begun to come is answered with a problem document.
    """

    _end: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client is there."""
        super().connection_made(transport)
        if len(self.connections) >= (self.limit_concurrency or math.inf):
            self.connections.discard(self)  # or others that are open would be refused as well
            told = f"{len(self.connections)} connections are open."
            self._refuse(Problem("busy", told, retry=5))
        else:
            self._wait()

    def handle_events(self) -> None:
        """Some bytes came, perhaps the last of a request's headers."""
        try:
            super().handle_events()
        except h11.LocalProtocolError:  # nonsense after an answer that did not wait for the body
            self.transport.close()
            return
        if self.cycle is not None and not self.cycle.response_complete:
            self._wait_no_more()

    def on_response_complete(self) -> None:
        """The next request may come, or be there already."""
        self._wait()
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """It is over."""
        self._wait_no_more()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._wait_no_more()
        self._end = self.loop.call_later(self.timeout_keep_alive, self._too_late)

    def _wait_no_more(self) -> None:
        if self._end is not None:
            self._end.cancel()

    def _too_late(self) -> None:
        if self.transport.is_closing():
            return
        if self.conn.our_state is h11.IDLE and self.conn.trailing_data[0]:
            told = f"Its headers were not complete after {self.timeout_keep_alive} seconds."
            self._refuse(Problem("too-slow", told))
        else:
            self.transport.close()

    def _refuse(self, problem: Problem) -> None:
        answer = as_response(problem)
        status = HTTPStatus(answer.status_code)
        head = h11.Response(
            status_code=status, headers=answer.raw_headers, reason=status.phrase.encode()
        )
        for event in (head, h11.Data(data=bytes(answer.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
