"""The two outputs of `watch`: a screen that is redrawn, or one line for each change."""

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

    from agent.mqtt.connection import Received

_REDRAW_S, _REDRAW_IDLE_S = 0.1, 1.0
_STATES_KNOWN_S = 1.0
"""From the subscription until the broker has sent the state of every station."""


class Limit:
    """When an output has shown enough.

    Args:
        count: Results after which it is done; None for never.
    """

    def __init__(self, board: StationBoard, count: int | None) -> None:
        self._board = board
        self._count = count
        self._subscribed_s = float("inf")
        self.is_paused = False

    def subscribed(self) -> None:
        """The broker sends the states of the stations now."""
        self._subscribed_s = time.monotonic()

    def look(self) -> None:
        """Notice that no more results come."""
        are_known = time.monotonic() - self._subscribed_s > _STATES_KNOWN_S
        self.is_paused = self._count is not None and are_known and self._board.is_paused

    @property
    def is_reached(self) -> bool:
        """Whether all results came, or no more come."""
        return self._count is not None and (self.is_paused or self._board.result_count >= self._count)

    @property
    def shortfall(self) -> str | None:
        """Why fewer results came."""
        if not self.is_paused or self._count is None or self._board.result_count >= self._count:
            return None
        return f"{self._board.result_count} of {self._count} results came; every station is paused"


class LineOutput:
    """Prints each change to standard output, one line each, and problems to standard error.

    Args:
        count: See `Limit`.
        as_json: Print every message, as one JSON object with topic and content.
    """

    def __init__(self, address: str, count: int | None, *, as_json: bool) -> None:
        self._board = StationBoard()
        self._address = address
        self.limit = Limit(self._board, count)
        self._as_json = as_json
        self._is_connected: bool | None = None
        self._is_read = True

    def close(self) -> None:
        """Report how many messages were left out."""
        if self._board.malformed:
            error_console.print(f"malformed messages that were left out: {self._board.malformed}")

    @property
    def is_done(self) -> bool:
        """Whether the limit is reached, or the reader of the output is gone."""
        return not self._is_read or self.limit.is_reached

    def connected(self) -> None:
        """Report it."""
        self._is_connected = True
        self.limit.subscribed()
        error_console.print(f"connected to {escape(self._address)}", soft_wrap=True)

    def disconnected(self, why: str, retry_s: float) -> None:
        """Report it once, however many attempts fail."""
        if self._is_connected is not False:
            self._is_connected = False
            again = f"trying again and again, next in {retry_s:.1f} s"
            error_console.print(f"not connected: {escape(printable(why))}; {again}", soft_wrap=True)

    def receive(self, received: Received) -> None:
        """Print the message if it is new."""
        received_at_ms = now_ms()
        update = self._board.update(received.topic, received.payload, received_at_ms)
        if update is None:
            return
        incoming, is_new = update
        if self._as_json:
            self._print(to_json({"topic": received.topic, "content": incoming.content}))
        elif is_new and (text := line(incoming.root, incoming.message, received_at_ms)):
            self._print(text)

    def idle(self) -> None:
        """Check that the output is still read: `watch | head -1` must not wait for a second line."""
        self.limit.look()
        self._is_read = self._is_read and not _reader_is_gone()

    def _print(self, text: str) -> None:
        try:
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()
        except BrokenPipeError:
            self._is_read = False
            # What could not be written is written again when Python ends, and would be an error then.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


class ScreenOutput:
    """Redraws the board when something is new, at most ten times a second, and every second as ages grow.

    Args:
        count: See `Limit`.
    """

    def __init__(self, live: Live, address: str, topic: str, count: int | None) -> None:
        self._board = StationBoard()
        self._live = live
        self._address = address
        self._topic = topic
        self.limit = Limit(self._board, count)
        self._connection = Text(f"connecting to {address}", "yellow")
        self._is_new = True
        self._drawn_s = float("-inf")
        self.idle()

    @property
    def is_done(self) -> bool:
        """Whether the limit is reached."""
        return self.limit.is_reached

    def connected(self) -> None:
        """Show it."""
        self.limit.subscribed()
        self._connection, self._is_new = Text(f"connected to {self._address}", "green"), True

    def disconnected(self, why: str, retry_s: float) -> None:
        """Show it, and when the next attempt is."""
        text = f"not connected, trying again in {retry_s:.0f} s: {printable(why)}"
        if text != self._connection.plain:
            self._connection, self._is_new = Text(text, "bold red"), True

    def receive(self, received: Received) -> None:
        """Put the message on the board."""
        self._board.update(received.topic, received.payload, now_ms())
        self._is_new = True

    def idle(self) -> None:
        """Redraw, if it is time to."""
        self.limit.look()
        age_s = time.monotonic() - self._drawn_s
        if age_s >= (_REDRAW_S if self._is_new and not self.is_done else _REDRAW_IDLE_S) or self.is_done:
            self._is_new = False
            self._drawn_s = time.monotonic()
            height = self._live.console.height
            self._live.update(render_screen(self._board, self._connection, self._topic, now_ms(), height), refresh=True)


def _reader_is_gone() -> bool:
    poll = select.poll()
    poll.register(sys.stdout, 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))
