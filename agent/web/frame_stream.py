"""The connection to the agent, shared by all viewers: results, state and frames, asked for while a viewer watches."""

from __future__ import annotations

import asyncio
import json
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from agent.child_process import LONGEST_MESSAGE_BYTES
from agent.web.ipc import PageReport, ShownFrame
from agent.web.picture import encoded

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    from agent.web.dashboard import Dashboard
    from agent.web.ipc import PageRequest, SharedImage

_TICK_S = 0.1
"""The shortest time between two frames."""
_STATE_EVERY_S = 1.0
_SIGN_OF_LIFE_EVERY_S = 1.0
_UPDATES_AT_MOST_EVERY_S, _UPDATES_AT_LEAST_EVERY_S = 0.2, 1.0


class FrameStream:
    """Fills the dashboard, for one event loop.

    Attributes:
        encoded: Number of frames encoded for browsers; each serves all of them.
        viewers: Number of viewers now.
        updates: How often results or a state have arrived.
    """

    def __init__(self, to_agent: socket.socket, shared: SharedImage, dashboard: Dashboard) -> None:
        self.encoded = 0
        self.viewers = 0
        self.updates = 0
        self._to_agent = to_agent
        self._shared = shared
        self._dashboard = dashboard
        self._arrived = asyncio.Event()
        self._picture: tuple[str, bytes] = ("", b"")
        self._waiting = 0
        self._is_asked = False
        self._asked_at_s: dict[PageRequest, float] = {}
        self._unanswered_since_s: float | None = None

    @property
    def silent_ms(self) -> int:
        """How long the agent has left a request unanswered."""
        since_s = self._unanswered_since_s
        return 0 if since_s is None else round(1000 * (time.monotonic() - since_s))

    @contextmanager
    def viewer(self) -> Iterator[None]:
        """Count a viewer from enter to exit."""
        self.viewers += 1
        try:
            yield
        finally:
            self.viewers -= 1

    async def updates_after(self, known: int) -> int:
        """``updates``, once it differs from ``known``, or after a second: a viewer must see that the page is alive."""
        await asyncio.sleep(_UPDATES_AT_MOST_EVERY_S)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(self._news(lambda: self.updates != known), _UPDATES_AT_LEAST_EVERY_S)
        return self.updates

    async def picture_after(self, result_id: str, timeout_s: float) -> bytes | None:
        """The newest frame unless it is the one of this result; waits for one, None if none comes in time."""
        self._waiting += 1
        try:
            await asyncio.wait_for(self._news(lambda: self._picture[0] not in {"", result_id}), timeout_s)
        except asyncio.TimeoutError:
            return None
        finally:
            self._waiting -= 1
        return self._picture[1]

    def ask_soon(self) -> None:
        """Ask for the state at once: the station may have changed just now."""
        self._asked_at_s.pop("state", None)

    async def listen(self) -> None:
        """Take what the agent sends, until it has gone; then this process ends, too."""
        loop = asyncio.get_running_loop()
        self._to_agent.settimeout(0.0)
        while message := await loop.sock_recv(self._to_agent, LONGEST_MESSAGE_BYTES):
            self._unanswered_since_s = None
            report = PageReport(*json.loads(message))
            if report.kind == "picture":
                await self._encode(ShownFrame(*report.content))
            else:
                self.updates += 1
                take = self._dashboard.take_results if report.kind == "results" else self._dashboard.take_state
                take(report.content)
            self._arrived.set()
            self._arrived = asyncio.Event()
        os._exit(0)

    async def ask(self) -> None:
        """Send the agent signs of life and requests, until cancelled."""
        while True:
            self._ask_every("nothing", _SIGN_OF_LIFE_EVERY_S)
            if self.viewers and self._ask_every("state", _STATE_EVERY_S):
                self._unanswered_since_s = self._unanswered_since_s or time.monotonic()
            if self._waiting and not self._is_asked:
                self._is_asked = self._ask_every("picture", _TICK_S)
            await asyncio.sleep(_TICK_S)

    async def _news(self, are_there: Callable[[], bool]) -> None:
        """Return once they are there.

        Not with a condition: a viewer that goes is cancelled more than once, and would release a lock that it lacks.
        """
        while not are_there():
            await self._arrived.wait()

    async def _encode(self, shown: ShownFrame) -> None:
        about = self._dashboard.about(shown.result_id)
        loop = asyncio.get_running_loop()
        self._picture = shown.result_id, await loop.run_in_executor(None, encoded, self._shared, shown, about)
        self.encoded += 1
        self._is_asked = False

    def _ask_every(self, request: PageRequest, every_s: float) -> bool:
        now_s = time.monotonic()
        if now_s - self._asked_at_s.get(request, float("-inf")) < every_s:
            return False
        self._asked_at_s[request] = now_s
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            self._to_agent.send(request.encode())
            return True
        return False
