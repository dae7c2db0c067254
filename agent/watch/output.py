"""The two ways of showing what is heard: a page that is drawn again and again, or a line for each piece of news."""

from __future__ import annotations

import os
import select
import sys
import time
from typing import TYPE_CHECKING

from rich.text import Text

from agent.clock import now_ms
from agent.messages.records import to_json
from agent.watch.board import StationBoard
from agent.watch.incoming import printable
from agent.watch.rendering import line
from agent.watch.screen import render_screen
from calibration.terminal import error_console, escape

if TYPE_CHECKING:
    from rich.live import Live
    from typing_extensions import Self

    from agent.mqtt.connection import Received

_REDRAW_S, _REDRAW_IDLE_S = 0.1, 1.0


class LineOutput:
    """Prints news to standard output, one line each, and what is wrong to standard error.

    Args:
        address: Of the broker.
        count: Results after which it is done; None for never.
        as_json: Print every message, as one JSON object with topic and content.
    """

    def __init__(self, address: str, count: int | None, *, as_json: bool) -> None:
        self._board = StationBoard()
        self._address = address
        self._count = count
        self._as_json = as_json
        self._is_up: bool | None = None
        self._is_read = True

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """Tell what was left out."""
        if self._board.malformed:
            error_console.print(f"malformed messages that were left out: {self._board.malformed}")

    @property
    def is_done(self) -> bool:
        """So many results as were asked for, or nobody reads any more."""
        return not self._is_read or (self._count is not None and self._board.result_count >= self._count)

    def up(self) -> None:
        """Tell it once."""
        self._is_up = True
        error_console.print(f"connected to {escape(self._address)}", soft_wrap=True)

    def down(self, why: str, retry_s: float) -> None:
        """Tell it once, however many attempts fail."""
        if self._is_up is not False:
            self._is_up = False
            again = f"trying again and again, next in {retry_s:.1f} s"
            error_console.print(f"not connected: {escape(printable(why))}; {again}", soft_wrap=True)

    def hear(self, received: Received) -> None:
        """Print it if it is news."""
        heard_at_ms = now_ms()
        taken = self._board.hear(received.topic, received.payload, heard_at_ms)
        if taken is None:
            return
        if self._as_json:
            self._print(to_json({"topic": received.topic, "content": taken.content}))
        elif taken.is_new and (text := line(taken.root, taken.message, heard_at_ms)):
            self._print(text)

    def rest(self) -> None:
        """Look whether somebody still reads: `watch | head -1` must not wait for a second line."""
        self._is_read = self._is_read and not _reader_has_gone()

    def _print(self, text: str) -> None:
        try:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
        except BrokenPipeError:
            self._is_read = False
            # What could not be written is written again when Python ends, and would be an error then.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class ScreenOutput:
    """Draws the board when there is news, at most ten times a second, and each second for what grows old.

    Args:
        live: Where.
        address: Of the broker.
        topic: What we listen to.
        count: Results after which it is done; None for never.
    """

    def __init__(self, live: Live, address: str, topic: str, count: int | None) -> None:
        self._board = StationBoard()
        self._live = live
        self._address = address
        self._topic = topic
        self._count = count
        self._connection = Text(f"connecting to {address}", "yellow")
        self._is_new = True
        self._drawn_s = float("-inf")
        self.rest()

    @property
    def is_done(self) -> bool:
        """So many results as were asked for."""
        return self._count is not None and self._board.result_count >= self._count

    def up(self) -> None:
        """Show it."""
        self._connection, self._is_new = Text(f"connected to {self._address}", "green"), True

    def down(self, why: str, retry_s: float) -> None:
        """Show it, and when it is tried again."""
        text = f"not connected, trying again in {retry_s:.0f} s: {printable(why)}"
        if text != self._connection.plain:
            self._connection, self._is_new = Text(text, "bold red"), True

    def hear(self, received: Received) -> None:
        """Put it on the board."""
        self._board.hear(received.topic, received.payload, now_ms())
        self._is_new = True

    def rest(self) -> None:
        """Draw, if it is time to."""
        silent_s = time.monotonic() - self._drawn_s
        if silent_s >= (_REDRAW_S if self._is_new and not self.is_done else _REDRAW_IDLE_S) or self.is_done:
            self._is_new = False
            self._drawn_s = time.monotonic()
            height = self._live.console.height
            self._live.update(render_screen(self._board, self._connection, self._topic, now_ms(), height), refresh=True)


def _reader_has_gone() -> bool:
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
