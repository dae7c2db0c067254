"""Another program on the same disk."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


class Neighbour:
    """Fills a file system to the last byte."""

    def __init__(self, folder: Path) -> None:
        self._path = folder / "log of another program"
        self._file = self._path.open("wb", buffering=0)

    def take_everything(self) -> None:
        for size in (4096, 1):
            with suppress(OSError):
                while True:
                    self._file.write(bytes(size))

    def leave(self) -> None:
        self._file.close()
        self._path.unlink()
