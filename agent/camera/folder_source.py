"""The images of a folder as a source of frames."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent.errors import CameraError
from calibration.errors import DatasetError
from calibration.imaging.image_files import images_and_masks_in, read_image

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from calibration.imaging.preprocess import Image

_FRAMES_PER_S = 10.0

_log = logging.getLogger(__name__)


class FolderSource:
    """The images of a folder, not of its subfolders, by name."""

    live = False
    refused_settings: Sequence[str] = ()
    is_rescaled = False
    stamp = None

    def __init__(self, folder: Path, frames_per_s: float | None = None) -> None:
        self.name = str(folder)
        self.frames_per_s = frames_per_s or _FRAMES_PER_S
        self._folder = folder
        self._waiting: list[Path] = []
        self._current: Path | None = None
        self._reported: set[Path] = set()

    def open(self) -> None:
        """See Source."""
        try:
            found, masks = images_and_masks_in(self._folder)
        except OSError as error:
            what = f"image folder {self._folder.absolute()} cannot be read: {error.strerror}"
            raise CameraError(what=what, remedy="check that it exists and that this user may read it") from error
        if not found:
            remedy = "give the folder that holds the images itself: subfolders are not searched"
            raise CameraError(what=f"no images in image folder {self._folder.absolute()}", remedy=remedy)
        if masks and not self._reported:
            self._reported.update(masks)
            _log.warning(
                "left out as masks, PNG files beside a photo of the same name: %d, such as %s", len(masks), masks[0]
            )
        self._waiting = found[::-1]

    def grab(self) -> bool:
        """See Source."""
        self._current = self._waiting.pop() if self._waiting else None
        return self._current is not None

    def retrieve(self) -> Image | None:
        """See Source."""
        if self._current is None:
            return None
        try:
            return read_image(self._current)
        except DatasetError as error:
            if self._current not in self._reported:
                self._reported.add(self._current)
                _log.warning("skipped: %s", error.what)
            return None

    def trigger(self) -> None:
        """See Source; nothing here waits for it."""

    def close(self) -> None:
        """See Source."""
        self._waiting = []
