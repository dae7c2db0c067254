"""``bdSeq``, the number that a Sparkplug will shares with the birth it belongs to: 0 to 255 and round again."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from calibration.atomic_file import replace_file

if TYPE_CHECKING:
    from pathlib import Path

log = logging.getLogger(__name__)

_COUNT = 256


class BdSeq:
    """One number for each accepted connection, also across restarts.

    An attempt that no broker accepted passes its number on to the next one: hosts see no gaps, and nothing is written
    while the broker is away. A number is on disk before it is used, so that no restart uses it again.

    Args:
        path: File with the last number; absent before the first.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._value = self._read()
        self._is_used = True

    def to_use(self) -> int:
        """The number for the next attempt to connect."""
        if self._is_used:
            self._value = (self._value + 1) % _COUNT
            self._is_used = False
            try:
                replace_file(self._path, f"{self._value}\n".encode())
            except OSError as error:
                log.warning("cannot store the number of the Sparkplug birth in %s: %s", self._path, error)
        return self._value

    def note_accepted(self) -> int:
        """A broker has accepted the connection; returns the number of its will."""
        self._is_used = True
        return self._value

    def _read(self) -> int:
        try:
            return int(self._path.read_text()) % _COUNT
        except (OSError, ValueError):
            return _COUNT - 1  # the first is 0
