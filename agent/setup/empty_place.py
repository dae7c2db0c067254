"""What the place before the camera looks like without a part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2

from agent.errors import SetupError
from agent.setup.bench import inspected
from agent.trigger.stillness import alike, cells_of
from calibration.atomic_file import replace_file
from calibration.imaging.image_files import read_image

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

    from agent.setup.draft import Draft
    from agent.setup.tray import Tray
    from calibration.imaging.preprocess import Image


class EmptyPlace:
    """An image of the empty place, if there is one.

    Args:
        file: Where the image is, as PNG.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    @property
    def is_known(self) -> bool:
        """Whether there is an image."""
        return self.file.exists()

    def keep(self, image: Image) -> None:
        """Keep this image; raises SetupError if it cannot be written."""
        try:
            replace_file(self.file, cv2.imencode(".png", image)[1].tobytes())
        except OSError as error:
            raise SetupError(
                what=f"cannot write {self.file}: {error.strerror}", remedy="free space there, or fix permissions"
            ) from error

    def forget(self) -> None:
        """Forget the image."""
        self.file.unlink(missing_ok=True)

    def shown_in(self, names: Iterable[str], tray: Tray, draft: Draft) -> list[str]:
        """Those images of the tray that show the empty place, where the zones of the draft are."""
        empty = cells_of(inspected(read_image(self.file), draft))
        return [name for name in names if alike(empty, cells_of(inspected(tray.image(name), draft)))]
