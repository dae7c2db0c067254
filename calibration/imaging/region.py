"""A rectangle of the frame, and the pixels in it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.errors import DatasetError, SettingError

if TYPE_CHECKING:
    from collections.abc import Sequence

Image: TypeAlias = NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Region:
    """A rectangle, in frame pixels."""

    x: int
    y: int
    width: int
    height: int

    def __str__(self) -> str:
        """``x,y,width,height``, as on the command line."""
        return f"{self.x},{self.y},{self.width},{self.height}"

    @classmethod
    def from_text(cls, text: str, option: str = "--roi") -> Region:
        """The region that an option of the command line gives; the inverse of `str`.

        Raises:
            SettingError: Not four whole numbers.
        """
        remedy = "give X,Y,WIDTH,HEIGHT in frame pixels"
        try:
            sides = [float(side) for side in text.split(",")]
        except ValueError as error:
            raise SettingError(what=f"{option} {text!r} is not understood", remedy=remedy) from error
        if len(sides) != 4 or not all(side.is_integer() for side in sides):  # noqa: PLR2004
            raise SettingError(what=f"{option} {text} is not a region", remedy=remedy)
        return cls(*map(int, sides))

    def moved(self, right: int, down: int) -> Region:
        """The rectangle, shifted."""
        return Region(self.x + right, self.y + down, self.width, self.height)

    def centred(self, share: float) -> Region:
        """The rectangle in its middle with this share of each side."""
        width, height = (max(1, round(side * share)) for side in (self.width, self.height))
        return Region(self.x + (self.width - width) // 2, self.y + (self.height - height) // 2, width, height)

    def clipped(self, rows: int, columns: int) -> Region:
        """The part of it that lies inside a frame of this size.

        Raises:
            DatasetError: It lies outside the frame.
        """
        left, top = max(self.x, 0), max(self.y, 0)
        right, bottom = min(self.x + self.width, columns), min(self.y + self.height, rows)
        if right <= left or bottom <= top:
            raise _outside_frame_error(self, rows, columns)
        return Region(left, top, right - left, bottom - top)


def whole_frame(frame: NDArray[Any]) -> Region:
    """The whole frame as a region."""
    return Region(0, 0, frame.shape[1], frame.shape[0])


def bounding_region(regions: Sequence[Region]) -> Region:
    """The smallest region that contains all of these; one or more."""
    left, top = min(each.x for each in regions), min(each.y for each in regions)
    right = max(each.x + each.width for each in regions)
    bottom = max(each.y + each.height for each in regions)
    return Region(left, top, right - left, bottom - top)


def crop(frame: NDArray[Scalar], region: Region) -> NDArray[Scalar]:
    """The pixels of the region, as a view of the frame.

    Raises:
        DatasetError: The region does not lie inside the frame.
    """
    rows, columns = frame.shape[:2]
    inside = region.x >= 0 and region.y >= 0 and region.width > 0 and region.height > 0
    if not inside or region.x + region.width > columns or region.y + region.height > rows:
        raise _outside_frame_error(region, rows, columns)
    return frame[region.y : region.y + region.height, region.x : region.x + region.width]


def crop_padded(frame: Image, region: Region) -> Image:
    """The pixels of a region that may reach beyond the frame, where the frame's border is repeated.

    Raises:
        DatasetError: The region lies outside the frame.
    """
    rows, columns = frame.shape[:2]
    visible = region.clipped(rows, columns)
    pixels = crop(frame, visible)
    if visible == region:
        return pixels
    left, top = visible.x - region.x, visible.y - region.y
    right, bottom = region.width - visible.width - left, region.height - visible.height - top
    return np.asarray(cv2.copyMakeBorder(pixels, top, bottom, left, right, cv2.BORDER_REPLICATE), np.uint8)


def _outside_frame_error(region: Region, rows: int, columns: int) -> DatasetError:
    return DatasetError(
        what=f"region of interest {region} (x,y,width,height) does not fit into a frame of {columns}x{rows} pixels",
        remedy="calibrate with a region inside the frame (--roi), or set the camera to the resolution it had then",
    )


def to_grey(frame: Image) -> Image:
    """Luminance, (height, width)."""
    return cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY).astype(np.uint8, copy=False)
