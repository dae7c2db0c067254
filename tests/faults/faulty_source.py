"""A source for capture processes whose lives are scripted: each time it is opened, the next one begins."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from agent.errors import CameraError

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

ROWS, COLUMNS = 12, 16


def faulty_source(journal: str, lives: list[tuple[str, int]], frames_per_s: float = 200.0) -> FaultySource:
    """As capture processes call it.

    Args:
        journal: A file in which each life leaves the number of its process.
        lives: Of each, its fault and the frames before it; after the last one there are no faults.
        frames_per_s: While there are none.
    """
    return FaultySource(Path(journal), [*lives], frames_per_s)


def full_speed(rows: int, columns: int) -> FullSpeed:
    return FullSpeed(rows, columns)


class FaultySource:
    """Its pictures are as bright as the life they are from; the fault comes after some of them."""

    name = "faulty"
    live = True
    refused_settings: Sequence[str] = ()
    is_rescaled = False
    stamp = None

    def __init__(self, journal: Path, lives: list[tuple[str, int]], frames_per_s: float) -> None:
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        self.frames_per_s = frames_per_s
        self._life = len(processes_in(journal))
        with journal.open("a") as written:
            written.write(f"{os.getpid()}\n")
        self._fault, self._left = lives[self._life] if self._life < len(lives) else ("none", 0)

    def open(self) -> None:
        fault: Callable[[], object] = getattr(self, f"_open_{self._fault}", lambda: None)
        fault()

    def grab(self) -> bool:
        time.sleep(1 / self.frames_per_s)
        self._left -= 1
        if self._left >= 0:
            return True
        fault: Callable[[], bool | None] = getattr(self, f"_grab_{self._fault}", lambda: True)
        return fault() is not False

    def retrieve(self) -> Any:  # noqa: ANN401 - that is its fault
        picture = np.full((ROWS, COLUMNS, 3), self._life, np.uint8)
        if self._left >= 0:
            return picture
        garbage: Callable[[Any], Any] = getattr(self, f"_retrieve_{self._fault}", lambda picture: picture)
        return garbage(picture)

    def trigger(self) -> None:
        pass

    def close(self) -> None:
        pass

    def _open_refused(self) -> NoReturn:
        raise CameraError(what="camera faulty does not open", remedy="wait")

    def _open_open_hangs(self) -> None:
        hang()

    def _open_open_crashes(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def _grab_hangs(self) -> None:
        hang()

    def _grab_hangs_but_hears_sigterm(self) -> None:
        time.sleep(1_000)

    def _grab_freezes(self) -> None:
        os.kill(os.getpid(), signal.SIGSTOP)

    def _grab_crashes(self) -> None:
        os.kill(os.getpid(), signal.SIGSEGV)

    def _grab_is_killed(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def _grab_raises(self) -> NoReturn:
        raise ZeroDivisionError

    def _grab_exits(self) -> NoReturn:
        os._exit(0)

    def _grab_ends(self) -> bool:
        return False

    def _grab_slows_down(self) -> None:
        time.sleep(3.0)

    def _retrieve_undecodable(self, _picture: object) -> None:
        return None

    def _retrieve_floats(self, picture: Any) -> Any:  # noqa: ANN401
        return picture.astype(np.float64)

    def _retrieve_flat(self, picture: Any) -> Any:  # noqa: ANN401
        return picture.ravel()

    def _retrieve_empty(self, picture: Any) -> Any:  # noqa: ANN401
        return picture[:0]

    def _retrieve_huge(self, _picture: object) -> Any:  # noqa: ANN401
        return np.zeros((1 << 14, 1 << 13, 3), np.uint8)

    def _retrieve_resized(self, picture: Any) -> Any:  # noqa: ANN401
        return picture[:-1]


FAULTS = tuple(
    name.partition("_")[2].partition("_")[2]
    for name in vars(FaultySource)
    if name.startswith(("_open_", "_grab_", "_retrieve_"))
)


class FullSpeed:
    """Each picture is of one brightness, its number; as many as there is time for."""

    name = "fast"
    live = True
    frames_per_s = 1e6
    refused_settings: Sequence[str] = ()
    is_rescaled = False
    stamp = None

    def __init__(self, rows: int, columns: int) -> None:
        self._picture = np.zeros((rows, columns, 3), np.uint8)

    def open(self) -> None:
        pass

    def grab(self) -> bool:
        return True

    def retrieve(self) -> np.ndarray[Any, Any]:
        self._picture += 1
        return self._picture

    def trigger(self) -> None:
        pass

    def close(self) -> None:
        pass


def processes_in(journal: Path) -> list[int]:
    return [int(line) for line in journal.read_text().split()] if journal.exists() else []


def hang() -> None:
    """As a driver does that does not come back: Python never gets to its signal handlers."""
    signal.pthread_sigmask(signal.SIG_BLOCK, set(signal.Signals))
    while True:
        time.sleep(1_000)
