"""The folder of the bundles that were made on this device."""

from __future__ import annotations

import logging
import re
import shutil
from datetime import datetime, timezone
from typing import TYPE_CHECKING
from uuid import uuid4

from calibration.atomic_file import flush_folder
from calibration.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

log = logging.getLogger(__name__)

_OWN = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
_ENGINE = ".tensorrt"


class BundleFolder:
    """``20260131T120000Z-3f2a9c01``: when it was accepted, and the beginning of its identity.

    Args:
        folder: Made when needed.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def remove_left_overs(self) -> None:
        """Of a recalibration that was killed."""
        for path in self._folder.glob(".*"):
            log.info("removing %s, left by a recalibration that was interrupted", path)
            shutil.rmtree(path, ignore_errors=True)

    def workplace(self) -> Path:
        """A new name, for what is not a bundle yet; whoever uses it removes it."""
        return self._folder / f".{uuid4().hex}"

    def accept(self, path: Path, identity: str) -> Path:
        """Give a bundle its name.

        Args:
            path: Where it lies, inside a workplace.
            identity: Its own.

        Returns:
            Where it lies from now on.

        Raises:
            StorageError: The folder cannot be written.
        """
        target = self._folder / f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{identity[:8]}"
        try:
            path.rename(target)
            flush_folder(self._folder)
        except OSError as error:
            raise StorageError(
                what=f"cannot name the new bundle {target}: {error.strerror}",
                remedy="mend the permissions of state_dir",
            ) from error
        return target

    def prune(self, keep: int, in_use: Collection[Path]) -> None:
        """Remove all but the newest, and never one in use."""
        used = {path.absolute() for path in in_use}
        own = sorted(path.absolute() for path in self._folder.glob("*") if _OWN.fullmatch(path.name))
        for path in own[: max(0, len(own) - keep)]:
            if path not in used:
                log.info("removing the bundle %s: %d newer ones are kept", path, keep)
                self.remove(path)

    @staticmethod
    def remove(path: Path) -> None:
        """A bundle and its engine."""
        shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(path.with_name(f"{path.name}{_ENGINE}"), ignore_errors=True)
