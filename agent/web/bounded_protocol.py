"""HTTP connections of the page: bounded in number, and in the time that a request may take to arrive."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, ClassVar, cast

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

if TYPE_CHECKING:
    import asyncio


class BoundedProtocol(H11Protocol):
    """Ends a connection whose request does not arrive, header and body, in time; uvicorn itself waits for ever.

    A connection too many takes the place of the one that has waited longest, so that browsers get through while
    others open connections and send nothing.

    Attributes:
        request_within_s: Time from the connection, or from the answer before, to the whole request.
        most: Number of connections at the same time.
    """

    request_within_s: ClassVar[float] = 10.0
    most: ClassVar[int] = 63
    _waiting_since_s = 0.0
    _deadline: asyncio.TimerHandle | None = None

    @property
    def is_waiting(self) -> bool:
        """Whether a request is expected, or has arrived in part."""
        return self.conn.their_state in {h11.IDLE, h11.SEND_BODY}

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override] # as uvicorn has it
        """See `asyncio.Protocol`."""
        super().connection_made(transport)
        self._expect_request()
        if len(self.connections) > self.most:
            others = cast("set[BoundedProtocol]", self.connections - {self})
            waiting = [each for each in others if each.is_waiting]
            min(waiting, key=lambda each: each._waiting_since_s, default=self).transport.abort()  # noqa: SLF001 - its own class

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        if self._deadline is not None:
            self._deadline.cancel()
        super().connection_lost(exc)

    def on_response_complete(self) -> None:
        """See `H11Protocol`."""
        super().on_response_complete()
        self._expect_request()

    def _expect_request(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        self._waiting_since_s = time.monotonic()
        self._deadline = self.loop.call_later(self.request_within_s, self._end_if_waiting)

    def _end_if_waiting(self) -> None:
        if self.is_waiting:
            self.transport.abort()
