"""The recalibration worker as the agent sees it."""

from __future__ import annotations

import json
import queue
import socket
import threading
from contextlib import suppress
from dataclasses import asdict
from typing import TYPE_CHECKING

from agent.child_process import ChildProcess, ChildProgram
from agent.errors import CommandRefusedError, RecalibrationError
from agent.recalibration.ipc import Message, send

if TYPE_CHECKING:
    from typing_extensions import Self

    from agent.recalibration.ipc import WorkerOrder, WorkerReport

_PROGRAM = ChildProgram(
    module="agent.recalibration.worker",
    failure=RecalibrationError,
    remedy="the log above may say more; give the command again",
    niceness=19,
    is_expendable=True,
)
_SMALL = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    **dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(256 * 1024)),
    "MALLOC_ARENA_MAX": "1",
}
"""One thread; and glibc gives memory that is no longer needed back to the kernel."""
_MOST_WAITING, _MOST_WAITING_BYTES = 64, 32 * 2**20
_LEAST_WAITING = 4
_ENDED_WITHIN_S = 0.5


class WorkerHandle(ChildProcess):
    """Runs a `RecalibrationWorker`.

    Args:
        order: What to do.
        lock: Descriptor that the process holds until it has ended.
    """

    def __init__(self, order: WorkerOrder, lock: int) -> None:
        name = "the recalibration worker"
        super().__init__(_PROGRAM, name, asdict(order), descriptors=(lock,), environment=_SMALL)
        self._outgoing: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._send_waiting, name="recalibration parts", daemon=True)

    def __enter__(self) -> Self:
        """Start it; RecalibrationError if this device has no room for a process."""
        super().__enter__()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it at once: it has nothing to save."""
        self.kill()
        with suppress(OSError):  # it has closed the connection already
            self.socket.shutdown(socket.SHUT_RDWR)
        self._outgoing.put(None)
        self._thread.join(_ENDED_WITHIN_S)
        super().__exit__()

    def offer(self, message: Message) -> bool:
        """Give it a part, without waiting; False if too many wait already. Called by one thread."""
        most = min(_MOST_WAITING, max(_LEAST_WAITING, _MOST_WAITING_BYTES // max(1, len(message.content))))
        if self._outgoing.qsize() >= most:
            return False
        self._outgoing.put(message)
        return True

    def refit(self) -> None:
        """Order the refit, after all parts that it was given."""
        self._outgoing.put(Message({"kind": "refit"}))

    def next_report(self, timeout_s: float) -> WorkerReport | None:
        """The next report; None if there is none in time.

        Raises:
            CommandRefusedError: It cannot learn from these parts, or not with these settings.
            RecalibrationError: It has failed, or has died.
        """
        message = self.receive(timeout_s)
        report: WorkerReport | None = None if message is None else json.loads(message)
        if report is not None and report["kind"] == "failed":
            failure = CommandRefusedError if report["refused"] else RecalibrationError
            raise failure(what=report["what"], remedy=report["remedy"])
        return report

    def _send_waiting(self) -> None:
        with suppress(OSError):  # it has died: `next_report` raises
            while (message := self._outgoing.get()) is not None:
                send(message, self.socket)
