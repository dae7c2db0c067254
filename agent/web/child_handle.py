"""The page's process as the agent sees it; nothing here waits for it."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, cast

from agent.child_process import ChildProcess, ChildProgram
from agent.errors import PageError
from agent.web.ipc import MEMORY_BYTES, PageReport, SharedImage, ShownFrame

if TYPE_CHECKING:
    import socket

    from agent.web.ipc import PageOrder, PageRequest
    from calibration.imaging.heatmap import Array
    from calibration.imaging.preprocess import Image

_AGAIN = "it is started again; the inspection continues"
_PROGRAM = ChildProgram(
    module="agent.web.server_main",
    failure=PageError,
    remedy=_AGAIN,
    memory_bytes=MEMORY_BYTES,
    niceness=10,
)
_STARTED_WITHIN_S = 60.0


class PageProcess(ChildProcess):
    """Serves the page.

    Args:
        order: What it serves.
        listener: Where it listens; stays open here, so that browsers can connect while the process is started again.
        silent_after_s: A process that gives no sign of life for so long hangs.
    """

    def __init__(self, order: PageOrder, listener: socket.socket, silent_after_s: float) -> None:
        super().__init__(_PROGRAM, "the page's process", asdict(order), descriptors=[listener.fileno()])
        self._silent_after_s = silent_after_s
        self._limit_s, self._since_s = _STARTED_WITHIN_S, time.monotonic()

    def next_request(self, timeout_s: float) -> PageRequest | None:
        """What it asks for; None if it asks for nothing in time.

        Raises:
            PageError: It has died, or gives no sign of life.
        """
        message = self.receive(timeout_s)
        now_s = time.monotonic()
        if message is not None:
            self._limit_s, self._since_s = self._silent_after_s, now_s
            return cast("PageRequest", message.decode())
        if now_s - self._since_s > self._limit_s:
            raise PageError(what=f"the page's process gives no sign of life within {self._limit_s:g} s", remedy=_AGAIN)
        return None

    def show(self, image: Image, score_map: Array | None, shown: ShownFrame) -> bool:
        """Hand over the frame that it has asked for; False as in ``send``, True also for one that is too large."""
        if not SharedImage(self.memory).write(image, score_map):
            return True
        return self.send(PageReport("picture", shown).as_bytes())
