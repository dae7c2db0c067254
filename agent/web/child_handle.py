"""The page's process, seen from the agent: started, heard, told, ended; nothing here waits for it."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING, cast

from agent.child_process import how_it_ended
from agent.errors import PageError
from agent.web.ipc import LONGEST_MESSAGE_BYTES, PageReport, SharedImage, Shown, new_memory

if TYPE_CHECKING:
    from typing_extensions import Self

    from agent.web.ipc import Asked, PageOrder
    from calibration.imaging.heatmap import Array
    from calibration.imaging.preprocess import Image

_ENDED_WITHIN_S = 1.0
_BEGUN_WITHIN_S = 60.0
_AGAIN = "it is started again; the inspection goes on"


class PageProcess:
    """Runs from enter to exit, and dies with the thread that has entered it.

    Args:
        order: What it is to serve. It is not on the command line, which everybody may read: it holds the token.
        listener: Where it listens; stays open here, so that browsers find somebody again after it has died.
        silent_after_s: A process that gives no sign of life for so long hangs.
    """

    def __init__(self, order: PageOrder, listener: socket.socket, silent_after_s: float) -> None:
        self._order = order
        self._listener = listener
        self._silent_after_s = silent_after_s
        self._resources = ExitStack()
        self._limit_s, self._since_s = _BEGUN_WITHIN_S, time.monotonic()

    def __enter__(self) -> Self:
        """Start it.

        Raises:
            PageError: This device has no room for a process.
        """
        try:
            with ExitStack() as started:
                self._start(started)
                self._resources = started.pop_all()
        except OSError as error:
            raise PageError(
                what=f"no process can be started for the page: {error.strerror}",
                remedy="see which processes take the memory of this device; it is tried again",
            ) from error
        return self

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    def hear(self, timeout_s: float) -> Asked | None:
        """What it asks for; None when it asks for nothing in time.

        Raises:
            PageError: It has died, or gives no sign of life.
        """
        self._line.settimeout(timeout_s)
        try:
            message = self._line.recv(LONGEST_MESSAGE_BYTES)
        except TimeoutError:
            self._check_life()
            return None
        except ConnectionResetError:  # dead, with messages of ours unread
            message = b""
        if not message:
            raise PageError(what=self._how_it_ended(), remedy=_AGAIN)
        self._limit_s, self._since_s = self._silent_after_s, time.monotonic()
        return cast("Asked", message.decode())

    def tell(self, message: bytes) -> bool:
        """Hand over a message; False when it has not taken enough of those before. Never waits."""
        self._line.settimeout(0.0)
        try:
            self._line.send(message)
        except (BlockingIOError, BrokenPipeError, ConnectionResetError):  # `hear` tells of the last two
            return False
        return True

    def show(self, image: Image, score_map: Array | None, shown: Shown) -> bool:
        """Hand over the picture that it has asked for; False as in ``tell``, True also for one that is too large."""
        if not self._room.write(image, score_map):
            return True
        return self.tell(PageReport("picture", shown).as_bytes())

    def __exit__(self, *_: object) -> None:
        """End it at once: it has nothing to lose."""
        self._resources.close()

    def _start(self, started: ExitStack) -> None:
        with ExitStack() as only_theirs:
            memory = new_memory()
            only_theirs.callback(os.close, memory)
            self._room = SharedImage(memory)
            started.callback(self._room.close)
            self._line, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            started.enter_context(self._line)
            only_theirs.enter_context(theirs)
            descriptors = (theirs.fileno(), memory, self._listener.fileno())
            code = f"import sys; sys.path[:] = {sys.path!r}; from agent.web.server_main import main; main()"
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-c", code, *(str(number) for number in (os.getpid(), *descriptors))],
                stdin=subprocess.DEVNULL,
                pass_fds=descriptors,
                start_new_session=True,  # Ctrl-C is for the agent, who ends it
            )
        started.callback(_end, self._process)
        self._limit_s, self._since_s = _BEGUN_WITHIN_S, time.monotonic()
        self.tell(self._order.as_bytes())

    def _check_life(self) -> None:
        if time.monotonic() - self._since_s > self._limit_s:
            raise PageError(what=f"the page's process gives no sign of life within {self._limit_s:g} s", remedy=_AGAIN)

    def _how_it_ended(self) -> str:
        try:
            return f"the page's process {how_it_ended(self._process.wait(_ENDED_WITHIN_S))}"
        except subprocess.TimeoutExpired:
            return "the page's process has hung up"


def _end(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    try:
        process.wait(_ENDED_WITHIN_S)
    except subprocess.TimeoutExpired:  # inside the kernel, where nothing can end it; it has no line to us any more
        return
