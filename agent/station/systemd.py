"""What systemd hears of the agent: that it watches, how it is, that it goes on (sd_notify, without its library)."""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

_STATUS_EVERY_S = 10.0


class ServiceManager:
    """Told over ``$NOTIFY_SOCKET``; where there is none, nobody is. No call waits, and none fails.

    Args:
        status: One line about the station, for people.
        environment: Of the process, as systemd sets it.
        clock_s: Monotonic clock.
    """

    def __init__(
        self,
        status: Callable[[], str],
        environment: Mapping[str, str] = os.environ,
        clock_s: Callable[[], float] = time.monotonic,
    ) -> None:
        self._status = status
        self._clock_s = clock_s
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address  # an abstract one
        self._every_s = min(_STATUS_EVERY_S, _watchdog_s(environment) / 4)
        self._due_s = float("-inf") if address else float("inf")
        self._greeting = "READY=1\n"
        self._is_deaf = False

    def progress(self) -> None:
        """The inspection has come round; the first time that means that the station watches.

        The watchdog is fed by this alone, at most four times in its patience: only what is progress may call it.
        """
        now_s = self._clock_s()
        if now_s >= self._due_s and self._tell(f"{self._greeting}STATUS={_one_line(self._status())}\nWATCHDOG=1"):
            self._greeting = ""
            self._due_s = now_s + self._every_s

    def stopping(self) -> None:
        """The inspection has ended; what waits is still being sent."""
        if self._address:
            self._tell("STOPPING=1")

    def _tell(self, message: str) -> bool:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as line:
                line.sendto(message.encode(), self._address)
        except OSError as error:
            if not self._is_deaf:
                log.warning("the service manager cannot be told how the agent is: %s; trying on", error)
            self._is_deaf = True
            return False
        self._is_deaf = False
        return True


def _watchdog_s(environment: Mapping[str, str]) -> float:
    """How long the watchdog waits; for ever where there is none, or where it is that of another process."""
    text, process = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not text.isdecimal() or process not in {"", str(os.getpid())}:
        return float("inf")
    return int(text) / 1e6


def _one_line(text: str) -> str:
    return " ".join(text.split())
