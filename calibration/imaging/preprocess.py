"""Camera frame to network input: the one definition that calibration and the agent share.

Everything after this step (colour order, normalisation, backbone, head) is inside the network.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from calibration.errors import DatasetError, SettingError
from calibration.imaging.alignment import PartLocation
from calibration.imaging.region import Image, Region, crop, crop_padded, whole_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.imaging.alignment import Alignment
    from calibration.imaging.ignore_mask import IgnoreMask

__all__ = ["Image", "PartLocation", "Preprocess", "Region", "as_bgr8", "crop", "prepare_image"]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Locate the part, crop the region of interest, resize it, paint over ignored areas.

    Attributes:
        height, width: Size of the network input, in pixels.
        region: Region of interest; None takes the whole frame.
        frame_size: (rows, columns) that a frame must have; None takes any.
        alignment: Moves the region with the part; None leaves it.
        ignore_mask: Areas that are not inspected; None inspects everything.
        averages_each_side: A side that shrinks is averaged whatever the other one does. Bundles from before did so
            only if both shrink, and keep to it.
        crop: Share of each side of the region that is inspected, in its middle.
    """

    height: int
    width: int
    region: Region | None = None
    frame_size: tuple[int, int] | None = None
    alignment: Alignment | None = None
    ignore_mask: IgnoreMask | None = None
    averages_each_side: bool = True
    crop: float = 1.0

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if not 0.0 < self.crop <= 1.0:
            raise SettingError(what=f"crop = {self.crop} is outside (0, 1]", remedy="give a share, e.g. 0.875")

    def of_size(self, height: int, width: int) -> Preprocess:
        """The same, for another size of the network input."""
        mask = None if self.ignore_mask is None else self.ignore_mask.resized(height, width)
        return replace(self, height=height, width=width, ignore_mask=mask)

    def region_of_interest(self, frame: Image) -> Image:
        """The region of interest before alignment, in camera pixels; a view of the frame.

        Raises:
            DatasetError: The region does not fit into the frame, or the frame is not of the calibrated size.
        """
        if self.frame_size not in {None, frame.shape[:2]}:
            rows, columns = self.frame_size or (0, 0)
            raise DatasetError(
                what=f"the frame has {frame.shape[1]}x{frame.shape[0]} pixels, "
                f"but calibration used frames of {columns}x{rows}",
                remedy="use frames of that size: --align and --ignore refer to locations in them",
            )
        return crop(frame, self.area(frame))

    def area(self, frame: NDArray[Any]) -> Region:
        """The region of interest of a frame before alignment; it may reach beyond the frame."""
        region = self.region or whole_frame(frame)
        return region if self.crop == 1.0 else region.centred(self.crop)

    def locate(self, frame: Image) -> PartLocation:
        """Where in the frame the part is inspected; raises what ``region_of_interest`` raises."""
        self.region_of_interest(frame)
        region = self.area(frame)
        return PartLocation(region) if self.alignment is None else self.alignment(frame, region)

    def network_input(self, frame: Image, region: Region) -> Image:
        """Network input from a region of the frame, as ``__call__`` returns it."""
        return self.input_from(crop_padded(frame, region))

    def input_from(self, pixels: Image) -> Image:
        """Network input from the pixels of the region where the part was located."""
        image = self.resize(pixels)
        return image if self.ignore_mask is None else self.ignore_mask(image)

    def __call__(self, frame: Image) -> Image:
        """Network input of one frame, (height, width, 3), uint8, BGR, contiguous.

        Args:
            frame: (rows, columns, 3), uint8, BGR.

        Raises:
            DatasetError: As for ``region_of_interest``.
        """
        return self.network_input(frame, self.locate(frame).region)

    def inspected_mask(self, region: Region) -> NDArray[np.bool_]:
        """The pixels of a region that are not ignored, (its height, its width)."""
        if self.ignore_mask is None:
            return np.ones((region.height, region.width), np.bool_)
        labels = cv2.resize(self.ignore_mask.labels, (region.width, region.height), interpolation=cv2.INTER_NEAREST)
        return np.asarray(labels == 0)

    def resize(self, image: Image) -> Image:
        """An image of any size resized to the network input, contiguous."""
        rows, columns = image.shape[:2]
        if (rows, columns) == (self.height, self.width):
            return np.ascontiguousarray(image)
        if not self.averages_each_side and (rows < self.height or columns < self.width):
            return _resized(image, self.height, self.width, cv2.INTER_LINEAR)
        # Averaging keeps fine defects from aliasing away. OpenCV averages whole pixels several times as fast, so each
        # side first grows to the next multiple of the network input.
        multiple = _resized(
            image, -(-rows // self.height) * self.height, -(-columns // self.width) * self.width, cv2.INTER_LINEAR
        )
        return _resized(multiple, self.height, self.width, cv2.INTER_AREA)


def prepare_image(preprocess: Preprocess, name: str, image: Image) -> tuple[Image, PartLocation]:
    """Network input of a named image, and the location it was taken from.

    Raises:
        DatasetError: As for ``Preprocess``, with the name of the image.
    """
    try:
        location = preprocess.locate(image)
        return preprocess.network_input(image, location.region), location
    except DatasetError as error:
        raise DatasetError(what=f"{name}: {error.what}", remedy=error.remedy) from error


def _resized(image: Image, rows: int, columns: int, interpolation: int) -> Image:
    if image.shape[:2] == (rows, columns):
        return image
    return cv2.resize(image, (columns, rows), interpolation=interpolation).astype(np.uint8, copy=False)


def as_bgr8(image: NDArray[Any]) -> Image:
    """Convert any image that OpenCV reads to 8-bit BGR, (rows, columns, 3).

    Grey is repeated over the channels, alpha is dropped, and 16 bits keep their upper byte: the rule does not depend
    on the content, so the same light always gives the same value.

    Args:
        image: (rows, columns) or (rows, columns, 1 | 3 | 4); uint8 or uint16.

    Raises:
        DatasetError: Another type or number of channels.
    """
    if image.dtype == np.uint16:
        image = (image >> 8).astype(np.uint8)
    channels = 1 if image.ndim == 2 else image.shape[-1]  # noqa: PLR2004
    if image.dtype != np.uint8 or image.ndim not in {2, 3} or channels not in {1, 3, 4}:
        raise DatasetError(
            what=f"cannot use an image of type {image.dtype} and shape {image.shape}",
            remedy="use 8-bit or 16-bit images with 1, 3 or 4 channels",
        )
    if channels == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(image[..., :3])
