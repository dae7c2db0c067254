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

_NAME = re.compile(r"\d{8}T\d{6}Z-[0-9a-f]{8}")
_ENGINE = ".tensorrt"


class BundleFolder:
    """Each bundle is named for when it was accepted and its identity: ``20260131T120000Z-3f2a9c01``."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def remove_left_overs(self) -> None:
        """Remove the workplace of a recalibration that was killed."""
        for path in self._folder.glob(".*"):
            log.info("removing %s, left by a recalibration that was interrupted", path)
            shutil.rmtree(path, ignore_errors=True)

    def workplace(self) -> Path:
        """A new path for a bundle in the making; the caller removes it."""
        return self._folder / f".{uuid4().hex}"

    def accept(self, path: Path, identity: str) -> Path:
        """Move a bundle out of its workplace; its new path.

        Raises:
            StorageError: The folder cannot be written.
        """
        target = self._folder / f"{datetime.now(timezone.utc):%Y%m%dT%H%M%SZ}-{identity[:8]}"
        try:
            path.rename(target)
            flush_folder(self._folder)
        except OSError as error:
            raise StorageError(
                what=f"cannot rename the new bundle to {target}: {error.strerror}",
                remedy="fix the permissions of state_dir",
            ) from error
        return target

    def prune(self, keep: int, in_use: Collection[Path]) -> None:
        """Remove all but the newest ``keep``, and never one in use."""
        used = {path.absolute() for path in in_use}
        made = sorted(path.absolute() for path in self._folder.glob("*") if _NAME.fullmatch(path.name))
        for path in made[: max(0, len(made) - keep)]:
            if path not in used:
                log.info("removing the bundle %s: %d newer ones are kept", path, keep)
                self.remove(path)

    @staticmethod
    def remove(path: Path) -> None:
        """Remove a bundle and its engine."""
        shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(path.with_name(f"{path.name}{_ENGINE}"), ignore_errors=True)
