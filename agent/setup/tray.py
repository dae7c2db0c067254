"""The tray: images of good parts that were collected, as files."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import TYPE_CHECKING

from agent.capture.recording import prepared_folder, write_frame
from agent.errors import SetupError
from agent.web.picture import as_jpeg
from calibration.atomic_file import replace_file
from calibration.errors import StorageError
from calibration.imaging.image_files import IMAGE_SUFFIXES, read_image

if TYPE_CHECKING:
    from pathlib import Path

    from agent.camera import Frame
    from calibration.imaging.preprocess import Image

_SIZES_PX = {"small": 240, "large": 1280}
_MOST_IMAGES = 1500


class Tray:
    """Safe from any thread.

    Args:
        folder: Created if it does not exist; images that are there already belong to the tray.
    """

    def __init__(self, folder: Path) -> None:
        prepared_folder(folder)
        self.folder = folder
        self._lock = threading.Lock()
        self._names = sorted(path.name for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        self._small: OrderedDict[str, bytes] = OrderedDict()

    @property
    def names(self) -> list[str]:
        """All images, in the order of time."""
        with self._lock:
            return list(self._names)

    def add(self, frame: Frame) -> str:
        """Keep a frame; returns its name.

        Raises:
            StorageError: It cannot be written.
            SetupError: There are enough of them.
        """
        self._refuse_too_many()
        name = write_frame(self.folder, frame).name
        with self._lock:
            self._names.append(name)
        return name

    def add_file(self, name: str, content: bytes) -> bool:
        """Keep the content of an image file under this name; False if it is there already.

        Raises:
            StorageError: It cannot be written.
            SetupError: There are enough of them.
        """
        if name in self.names:
            return False
        self._refuse_too_many()
        try:
            replace_file(self.folder / name, content)
        except OSError as error:
            raise StorageError(
                what=f"cannot write {self.folder / name}: {error.strerror}", remedy="free space there"
            ) from error
        with self._lock:
            self._names.append(name)
        return True

    def _refuse_too_many(self) -> None:
        if len(self.names) >= _MOST_IMAGES:
            raise SetupError(
                what=f"{_MOST_IMAGES} images are in the tray, and that is enough",
                remedy=f"teach with them, or remove some from {self.folder} and give the command again",
            )

    def check(self, name: str) -> None:
        """Raise SetupError if there is no such image."""
        if name not in self.names:
            raise SetupError(what=f"there is no image {name!r:.100} in the tray", remedy="load the page again")

    def image(self, name: str) -> Image:
        """An image of the tray.

        Raises:
            SetupError: There is no such image.
            DatasetError: It cannot be read.
        """
        self.check(name)
        return read_image(self.folder / name)

    def jpeg(self, name: str, size: str) -> bytes:
        """An image of the tray for the page.

        Args:
            name: As in `names`.
            size: ``small`` or ``large``.

        Raises:
            SetupError: There is no such image, or size.
            DatasetError: It cannot be read.
        """
        if size not in _SIZES_PX:
            raise SetupError(what=f"there is no size {size!r:.100}", remedy=f"there are: {', '.join(_SIZES_PX)}")
        with self._lock:
            known = self._small.get(name) if size == "small" else None
        if known is not None:
            return known
        content = as_jpeg(self.image(name), _SIZES_PX[size])
        if size == "small":
            with self._lock:
                self._small[name] = content
                if len(self._small) > _MOST_IMAGES:
                    self._small.popitem(last=False)
        return content
