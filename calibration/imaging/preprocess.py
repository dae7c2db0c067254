"""Camera frame to network input: the one definition that calibration and the agent share.

Everything after this step (colour order, normalisation, backbone, head) is inside the network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from calibration.errors import DatasetError
from calibration.imaging.alignment import PartLocation
from calibration.imaging.region import Image, Region, crop, crop_padded, whole_frame

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.imaging.alignment import Alignment
    from calibration.imaging.ignore_mask import IgnoreMask

__all__ = ["Image", "PartLocation", "Preprocess", "Region", "as_bgr8", "crop", "prepare_image"]


@dataclass(frozen=True, slots=True)
class Preprocess:
    """Locate the part, cut the region of interest, resize it, paint over what is ignored.

    Attributes:
        height: Rows of the network input, in pixels.
        width: Columns of the network input, in pixels.
        region: Region of interest; None takes the whole frame.
        frame_size: (rows, columns) that a frame must have; None takes any.
        alignment: Moves the region with the part; None leaves it.
        ignore_mask: What is never judged; None judges all.
    """

    height: int
    width: int
    region: Region | None = None
    frame_size: tuple[int, int] | None = None
    alignment: Alignment | None = None
    ignore_mask: IgnoreMask | None = None

    def region_of_interest(self, frame: Image) -> Image:
        """The region of interest where it lies without alignment, as the camera gave it; without a copy.

        Raises:
            DatasetError: It reaches outside the frame, or the frame has not the size that calibration saw.
        """
        if self.frame_size not in {None, frame.shape[:2]}:
            raise _another_size(self.frame_size, frame)
        return frame if self.region is None else crop(frame, self.region)

    def locate(self, frame: Image) -> PartLocation:
        """Where in the frame the part is inspected.

        Raises:
            DatasetError: As of ``region_of_interest``.
        """
        self.region_of_interest(frame)
        region = self.region or whole_frame(frame)
        return PartLocation(region) if self.alignment is None else self.alignment(frame, region)

    def network_input(self, frame: Image, region: Region) -> Image:
        """Network input of what a frame shows there, as ``__call__`` gives it."""
        picture = self.resize(crop_padded(frame, region))
        return picture if self.ignore_mask is None else self.ignore_mask(picture)

    def __call__(self, frame: Image) -> Image:
        """Network input of one frame.

        Args:
            frame: (rows, columns, 3), uint8, BGR.

        Returns:
            (height, width, 3), uint8, BGR, contiguous.

        Raises:
            DatasetError: As of ``region_of_interest``.
        """
        return self.network_input(frame, self.locate(frame).region)

    def inspected_mask(self, region: Region) -> NDArray[np.bool_]:
        """What of the region is not ignored, (its height, its width)."""
        if self.ignore_mask is None:
            return np.ones((region.height, region.width), np.bool_)
        labels = cv2.resize(self.ignore_mask.labels, (region.width, region.height), interpolation=cv2.INTER_NEAREST)
        return np.asarray(labels == 0)

    def resize(self, picture: Image) -> Image:
        """A picture of any size in that of the network input, contiguous."""
        rows, columns = picture.shape[:2]
        if (rows, columns) == (self.height, self.width):
            return np.ascontiguousarray(picture)
        if rows < self.height or columns < self.width:
            return _resized(picture, self.height, self.width, cv2.INTER_LINEAR)
        # Averaging keeps fine defects from aliasing away. OpenCV does it several times as fast over whole pixels, so
        # the frame first grows to the next whole multiple.
        multiple = _resized(
            picture, -(-rows // self.height) * self.height, -(-columns // self.width) * self.width, cv2.INTER_LINEAR
        )
        return _resized(multiple, self.height, self.width, cv2.INTER_AREA)


def prepare_image(preprocess: Preprocess, name: str, image: Image) -> tuple[Image, PartLocation]:
    """Network input of an image, and where it was taken.

    Raises:
        DatasetError: That of ``Preprocess``, which names the image.
    """
    try:
        place = preprocess.locate(image)
        return preprocess.network_input(image, place.region), place
    except DatasetError as error:
        raise DatasetError(what=f"{name}: {error.what}", remedy=error.remedy) from error


def _another_size(known: tuple[int, int] | None, frame: Image) -> DatasetError:
    rows, columns = known or (0, 0)
    return DatasetError(
        what=f"the frame has {frame.shape[1]}x{frame.shape[0]} pixels, those calibrated with had {columns}x{rows}",
        remedy="give frames of that size: what is followed (--align) or ignored (--ignore) has its place in them",
    )


def _resized(picture: Image, rows: int, columns: int, interpolation: int) -> Image:
    if picture.shape[:2] == (rows, columns):
        return picture
    return cv2.resize(picture, (columns, rows), interpolation=interpolation).astype(np.uint8, copy=False)


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
