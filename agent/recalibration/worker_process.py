"""The learning process, seen from the agent: started, given parts, heard, ended."""

from __future__ import annotations

import json
import os
import queue
import subprocess
import sys
import threading
from contextlib import suppress
from typing import TYPE_CHECKING

from agent.child_process import how_it_ended
from agent.errors import CommandRefusedError, RecalibrationError
from agent.recalibration.ipc import Message, packed

if TYPE_CHECKING:
    from typing_extensions import Self

    from agent.recalibration.ipc import Told

_WAITING = 64
_WAITING_BYTES = 32 * 2**20
_LEAST_WAITING = 4
_ENDED_WITHIN_S = 0.5
_SMALL = {
    **dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"),
    **dict.fromkeys(("MALLOC_MMAP_THRESHOLD_", "MALLOC_TRIM_THRESHOLD_"), str(256 * 1024)),
    "MALLOC_ARENA_MAX": "1",
}
"""One thread; and glibc gives back to the kernel what is not needed any more."""


class WorkerProcess:
    """Runs from enter to exit, and not longer than the agent.

    Args:
        order: See `Pupil`.
    """

    def __init__(self, order: Told) -> None:
        self._outgoing: queue.SimpleQueue[Message | None] = queue.SimpleQueue()
        self._outgoing.put(Message(order))
        self._incoming: queue.SimpleQueue[Told | None] = queue.SimpleQueue()
        self._threads: list[threading.Thread] = []

    def __enter__(self) -> Self:
        """Start it; RecalibrationError where this device has no room for a process."""
        code = f"import sys; sys.path[:] = {sys.path!r}; from agent.recalibration.worker_main import main; main()"
        try:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-c", code],
                bufsize=0,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env={**os.environ, **_SMALL},
            )
        except OSError as error:
            raise RecalibrationError(
                what=f"no process can be started for learning: {error.strerror}",
                remedy="see which processes take the memory of this device, and its limits for this user",
            ) from error
        for target in (self._write, self._read):
            self._threads.append(threading.Thread(target=target, name="learning", daemon=True))
            self._threads[-1].start()
        return self

    def __exit__(self, *_: object) -> None:
        """End it at once; it has nothing to save."""
        self.kill()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(_ENDED_WITHIN_S)
        self._outgoing.put(None)
        for thread in self._threads:
            thread.join(_ENDED_WITHIN_S)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    def kill(self) -> None:
        """From any thread; whoever hears it is told."""
        self._process.kill()

    def offer(self, message: Message) -> bool:
        """Give it a part, without waiting; whether there was room. By one thread."""
        most = min(_WAITING, max(_LEAST_WAITING, _WAITING_BYTES // max(1, len(message.content))))
        if self._outgoing.qsize() >= most:
            return False
        self._outgoing.put(message)
        return True

    def order(self, kind: str) -> None:
        """Tell it what is next, after all that it was given."""
        self._outgoing.put(Message({"kind": kind}))

    def hear(self, timeout_s: float) -> Told | None:
        """What it tells next; None when nothing comes in time.

        Raises:
            CommandRefusedError: It cannot learn from these parts, or not so.
            RecalibrationError: It has failed, or has died.
        """
        try:
            told = self._incoming.get(timeout=timeout_s)
        except queue.Empty:
            return None
        if told is None:
            raise RecalibrationError(what=self._how_it_ended(), remedy="the log above may tell more; command it again")
        if told["kind"] == "failed":
            failure = CommandRefusedError if told["refused"] else RecalibrationError
            raise failure(what=told["what"], remedy=told["remedy"])
        return told

    def _write(self) -> None:
        assert self._process.stdin is not None  # noqa: S101 - it is a pipe
        descriptor = self._process.stdin.fileno()
        with suppress(BrokenPipeError):  # it has died: `hear` tells
            while (message := self._outgoing.get()) is not None:
                left = memoryview(packed(message))
                while left:
                    left = left[os.write(descriptor, left) :]

    def _read(self) -> None:
        assert self._process.stdout is not None  # noqa: S101 - it is a pipe
        with open(self._process.stdout.fileno(), "rb", closefd=False) as lines:
            for line in lines:
                with suppress(ValueError):  # the last one, of a process that was killed
                    self._incoming.put(json.loads(line))
        self._incoming.put(None)

    def _how_it_ended(self) -> str:
        with suppress(subprocess.TimeoutExpired):
            return f"the learning process {how_it_ended(self._process.wait(_ENDED_WITHIN_S))}"
        return "the learning process has hung up"
