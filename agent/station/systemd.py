"""Reports readiness, status and progress to systemd (the sd_notify protocol, without its library)."""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import TYPE_CHECKING

from calibration.plain_text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

log = logging.getLogger(__name__)

_STATUS_EVERY_S = 10.0


class ServiceManager:
    """Writes to ``$NOTIFY_SOCKET`` if it is set. No call waits or fails.

    Args:
        environment: Of the process, as systemd sets it.
        clock_s: Monotonic clock.
    """

    def __init__(
        self, environment: Mapping[str, str] = os.environ, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self._clock_s = clock_s
        address = environment.get("NOTIFY_SOCKET", "")
        self._address = "\0" + address[1:] if address.startswith("@") else address  # an abstract socket
        self._every_s = min(_STATUS_EVERY_S, _watchdog_s(environment) / 4)
        self._due_s = float("-inf") if address else float("inf")
        self._ready = "READY=1\n"
        self._is_failing = False

    def progress(self, status: Callable[[], str] | None = None) -> None:
        """Report that the inspection advances; the first call means that the station is ready.

        Only this feeds the watchdog, at most four times per timeout, so only real progress may call it.

        Args:
            status: Gives one line about the station, for people.
        """
        now_s = self._clock_s()
        if now_s < self._due_s:
            return
        line = "" if status is None else f"STATUS={printable(' '.join(status().split()))}\n"
        if self._send(f"{self._ready}{line}WATCHDOG=1"):
            self._ready = ""
            self._due_s = now_s + self._every_s

    def stopping(self) -> None:
        """Report that the inspection has ended; waiting records are still being sent."""
        if self._address:
            self._send("STOPPING=1")

    def _send(self, message: str) -> bool:
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK) as connection:
                connection.sendto(message.encode(), self._address)
        except OSError as error:
            if not self._is_failing:
                log.warning("the service manager cannot be reached: %s; trying again", error)
            self._is_failing = True
            return False
        self._is_failing = False
        return True


def _watchdog_s(environment: Mapping[str, str]) -> float:
    """Timeout of the watchdog; infinite without one, or if it watches another process."""
    text, process = environment.get("WATCHDOG_USEC", ""), environment.get("WATCHDOG_PID", "")
    if not text.isdecimal() or process not in {"", str(os.getpid())}:
        return float("inf")
    return int(text) / 1e6
