"""The line to the agent, heard for all viewers: results, state, pictures; asked for only while somebody looks."""

from __future__ import annotations

import asyncio
import os
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from agent.web.ipc import LONGEST_MESSAGE_BYTES, PageReport, Shown
from agent.web.picture import encoded

if TYPE_CHECKING:
    import socket
    from collections.abc import Iterator

    from agent.web.dashboard import Dashboard
    from agent.web.ipc import Asked, SharedImage

_TICK_S = 0.1
"""Between two pictures, at least."""
_STATE_EVERY_S = 1.0
_LIFE_EVERY_S = 1.0
_TOLD_AT_MOST_EVERY_S, _TOLD_AT_LEAST_EVERY_S = 0.2, 1.0


class FrameStream:
    """For one event loop.

    Args:
        line: To the agent.
        room: The memory with the picture.
        board: Filled here.

    Attributes:
        encoded: How many pictures were made for browsers; each for all of them.
        viewers: How many look now.
        news: How often results or state were heard.
    """

    def __init__(self, line: socket.socket, room: SharedImage, board: Dashboard) -> None:
        self.encoded = 0
        self.viewers = 0
        self.news = 0
        self._line = line
        self._room = room
        self._board = board
        self._heard = asyncio.Condition()
        self._picture: tuple[str, bytes] | None = None
        self._waiting = 0
        self._is_asked = False
        self._asked_at_s: dict[Asked, float] = {}
        self._unanswered_since_s: float | None = None

    @property
    def silent_ms(self) -> int:
        """How long the agent has left us without an answer."""
        since_s = self._unanswered_since_s
        return 0 if since_s is None else round(1000 * (time.monotonic() - since_s))

    @contextmanager
    def viewer(self) -> Iterator[None]:
        """Somebody looks from enter to exit."""
        self.viewers += 1
        try:
            yield
        finally:
            self.viewers -= 1

    async def news_after(self, known: int) -> int:
        """Return when more was heard than is known, or after a second: a viewer must see that the line lives."""
        await asyncio.sleep(_TOLD_AT_MOST_EVERY_S)
        with suppress(asyncio.TimeoutError):
            async with self._heard:
                await asyncio.wait_for(self._heard.wait_for(lambda: self.news != known), _TOLD_AT_LEAST_EVERY_S)
        return self.news

    async def picture_after(self, result_id: str, patience_s: float) -> bytes | None:
        """The newest picture unless it is of this result; waits for one, None when none comes in time."""
        self._waiting += 1
        try:
            async with self._heard:
                await asyncio.wait_for(self._heard.wait_for(lambda: self._id not in {"", result_id}), patience_s)
        except asyncio.TimeoutError:
            return None
        finally:
            self._waiting -= 1
        return None if self._picture is None else self._picture[1]

    def ask_soon(self) -> None:
        """The station may have changed just now."""
        self._asked_at_s.pop("state", None)

    async def listen(self) -> None:
        """Until the agent has gone; then this process ends, too."""
        loop = asyncio.get_running_loop()
        self._line.settimeout(0.0)
        while message := await loop.sock_recv(self._line, LONGEST_MESSAGE_BYTES):
            told = PageReport.from_bytes(message)
            self._unanswered_since_s = None
            if told.kind == "picture":
                await self._take_picture(Shown(*told.content))
            else:
                self._take_news(told)
            async with self._heard:
                self._heard.notify_all()
        os._exit(0)

    async def _take_picture(self, shown: Shown) -> None:
        about = self._board.about(shown.result_id)
        loop = asyncio.get_running_loop()
        self._picture = shown.result_id, await loop.run_in_executor(None, encoded, self._room, shown, about)
        self.encoded += 1
        self._is_asked = False

    def _take_news(self, told: PageReport) -> None:
        self.news += 1
        if told.kind == "results":
            self._board.take_results(told.content)
        else:
            self._board.take_state(told.content)

    async def ask(self) -> None:
        """For ever: tell the agent that we live, and what somebody waits for."""
        while True:
            self._ask_every("nothing", _LIFE_EVERY_S)
            if self.viewers and self._ask_every("state", _STATE_EVERY_S):
                self._unanswered_since_s = self._unanswered_since_s or time.monotonic()
            if self._waiting and not self._is_asked:
                self._is_asked = self._ask_every("picture", _TICK_S)
            await asyncio.sleep(_TICK_S)

    @property
    def _id(self) -> str:
        return "" if self._picture is None else self._picture[0]

    def _ask_every(self, wish: Asked, every_s: float) -> bool:
        now_s = time.monotonic()
        if now_s - self._asked_at_s.get(wish, float("-inf")) < every_s:
            return False
        self._asked_at_s[wish] = now_s
        with suppress(BlockingIOError, BrokenPipeError, ConnectionResetError):
            self._line.send(wish.encode())
            return True
        return False
