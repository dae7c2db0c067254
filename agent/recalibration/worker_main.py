"""The program of a learning process: as unimportant as a process can be, and gone as soon as the agent is."""

from __future__ import annotations

import json
import os
import queue
import signal
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from agent.recalibration.ipc import received
from calibration.errors import (
    DatasetError,
    DegenerateFeaturesError,
    ModelTooLargeError,
    SettingError,
    ShiftwatchError,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.recalibration.ipc import Message

_WAITING = 4
_REFUSALS = (SettingError, DatasetError, DegenerateFeaturesError, ModelTooLargeError)


def main() -> None:
    """In the new process: an order and parts on stdin, what became of them on stdout."""
    _step_back()
    line = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print is not for the agent

    def tell(kind: str, **more: object) -> None:
        line.write(json.dumps({"kind": kind, **more}) + "\n")
        line.flush()

    messages = _messages()
    order = next(messages).header
    from agent.recalibration.worker import RecalibrationWorker  # noqa: PLC0415 - takes a second, at low priority and not before

    try:
        RecalibrationWorker(order, messages, tell).run()
    except ShiftwatchError as error:
        tell("failed", what=error.what, remedy=error.remedy, refused=isinstance(error, _REFUSALS))


def _step_back() -> None:
    """Behind the inspection, for the processor and where memory runs out."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, who ends us
    os.nice(19)
    with suppress(OSError):
        os.sched_setscheduler(0, os.SCHED_BATCH, os.sched_param(0))
    with suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _messages() -> Iterator[Message]:
    """What comes, read by a thread of its own: the end of the pipe is the end of the process, whatever it is doing."""
    waiting: queue.Queue[Message] = queue.Queue(_WAITING)

    def read() -> None:
        with open(0, "rb", closefd=False) as pipe:
            while (message := received(pipe)) is not None:
                waiting.put(message)
        os._exit(0)

    threading.Thread(target=read, name="messages", daemon=True).start()
    while True:
        yield waiting.get()
