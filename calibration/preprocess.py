"""Camera frame to network input: the one definition that calibration and the agent share.

Everything after this step (colour order, normalisation, backbone, head) is inside the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from calibration.errors import DatasetError

Image: TypeAlias = NDArray[np.uint8]
Scalar = TypeVar("Scalar", bound=np.generic)


@dataclass(frozen=True, slots=True)
class Region:
    """Rectangle of the frame, in frame pixels, that is inspected."""

    x: int
    y: int
    width: int
    height: int

    def __str__(self) -> str:
        """As it is written on the command line: ``x,y,width,height``."""
        return f"{self.x},{self.y},{self.width},{self.height}"


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Crop to the region of interest, then resize.

    Attributes:
        height: Rows of the network input, in pixels.
        width: Columns of the network input, in pixels.
        region: Region of interest; None takes the whole frame.
    """

    height: int
    width: int
    region: Region | None = None

    def inspected(self, frame: Image) -> Image:
        """The part of a frame that is looked at, as the camera gave it; without a copy.

        Raises:
            DatasetError: The region of interest reaches outside the frame.
        """
        return frame if self.region is None else crop(frame, self.region)

    def __call__(self, frame: Image) -> Image:
        """Network input of one frame.

        Args:
            frame: (rows, columns, 3), uint8, BGR.

        Returns:
            (height, width, 3), uint8, BGR, contiguous.

        Raises:
            DatasetError: The region of interest reaches outside the frame.
        """
        cropped = self.inspected(frame)
        rows, columns = cropped.shape[:2]
        if (rows, columns) == (self.height, self.width):
            return np.ascontiguousarray(cropped)
        if rows < self.height or columns < self.width:
            return _resized(cropped, self.height, self.width, cv2.INTER_LINEAR)
        # Averaging keeps fine defects from aliasing away. OpenCV does it several times as fast over whole pixels, so
        # the frame first grows to the next whole multiple.
        multiple = _resized(
            cropped, -(-rows // self.height) * self.height, -(-columns // self.width) * self.width, cv2.INTER_LINEAR
        )
        return _resized(multiple, self.height, self.width, cv2.INTER_AREA)


def _resized(picture: Image, rows: int, columns: int, interpolation: int) -> Image:
    if picture.shape[:2] == (rows, columns):
        return picture
    return cv2.resize(picture, (columns, rows), interpolation=interpolation).astype(np.uint8, copy=False)


def crop(frame: NDArray[Scalar], region: Region) -> NDArray[Scalar]:
    """The part of the frame inside the region, without a copy.

    Raises:
        DatasetError: The region reaches outside the frame.
    """
    rows, columns = frame.shape[:2]
    inside = region.x >= 0 and region.y >= 0 and region.width > 0 and region.height > 0
    if not inside or region.x + region.width > columns or region.y + region.height > rows:
        raise DatasetError(
            what=f"region of interest {region} (x,y,width,height) does not fit into a frame of {columns}x{rows} pixels",
            remedy="calibrate with a region inside the frame (--roi), or set the camera to the resolution it had then",
        )
    return frame[region.y : region.y + region.height, region.x : region.x + region.width]


def as_bgr8(image: NDArray[Any]) -> Image:
    """Any picture OpenCV can read, as 8-bit BGR.

    Grey is repeated over the channels, alpha is dropped, 16-bit keeps its upper byte: a fixed rule, so that the
    same light always gives the same number.

    Args:
        image: (rows, columns) or (rows, columns, 1 | 3 | 4); uint8 or uint16.

    Returns:
        (rows, columns, 3), uint8.

    Raises:
        DatasetError: Another type or number of channels.
    """
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    channels = 1 if image.ndim == 2 else image.shape[-1]  # noqa: PLR2004
    if image.dtype != np.uint8 or image.ndim not in {2, 3} or channels not in {1, 3, 4}:
        raise DatasetError(
            what=f"cannot use a picture of type {image.dtype} and shape {image.shape}",
            remedy="give 8-bit or 16-bit pictures with 1, 3 or 4 channels",
        )
    if channels == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(image[..., :3])
