"""Connections of the server: limited in number, and in how long they wait for a request."""

from __future__ import annotations

import asyncio
import math
from http import HTTPStatus

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from sgmft.serving.guard import problem_response
from sgmft.serving.problems import Problem


class TimedConnection(H11Protocol):
    """A connection that waits for a request's headers for `timeout_keep_alive` seconds.

    It is closed at once where as many as `limit_concurrency` would be open.

    uvicorn counts the seconds from the last answer to the first byte after it, and so lets a client
    that sends nothing, or a header now and then, have its connection for ever. Here they are
    counted from the beginning of the connection and from each answer to the next request. What has
    begun to come is answered with a problem document.
    """

    _timer: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Accept a client, or refuse it."""
        super().connection_made(transport)
        if len(self.connections) >= (self.limit_concurrency or math.inf):
            self.connections.discard(self)  # or others that are open would be refused as well
            detail = f"{len(self.connections)} connections are open."
            self._refuse(Problem("busy", detail, retry=5))
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
        response = problem_response(problem)
        status = HTTPStatus(response.status_code)
        head = h11.Response(
            status_code=status, headers=response.raw_headers, reason=status.phrase.encode()
        )
        for event in (head, h11.Data(data=bytes(response.body)), h11.EndOfMessage()):
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()
