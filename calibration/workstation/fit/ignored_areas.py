"""Areas that are not inspected, and the colour that good images have around each."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from calibration.errors import DatasetError, SettingError
from calibration.imaging.ignore_mask import IgnoreMask, label_areas, surrounding_rings
from calibration.imaging.region import Region, crop

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image, Preprocess
    from calibration.workstation.settings import Area


class IgnoredAreas:
    """The areas in the network input, and the colours around them.

    Attributes:
        labels: 0 where the network input is inspected, else the number of the area, (height, width), uint8.

    Raises:
        SettingError: An area does not fit the frames, or together they cover nothing or everything.
    """

    def __init__(self, areas: Sequence[Area], preprocess: Preprocess, region: Region) -> None:
        self.labels = np.zeros((preprocess.height, preprocess.width), np.uint8)
        if areas and preprocess.frame_size:
            drawn = _drawn(areas, preprocess.frame_size)
            ignored = preprocess.network_input(np.repeat(drawn[..., None] * np.uint8(255), 3, axis=2), region)
            # Every pixel of the network input to which an ignored pixel of the frame contributes.
            self.labels = label_areas(ignored[..., 0] > 0)
            if self.labels.all() or not self.labels.any():
                covered = "everything" if self.labels.all() else "nothing"
                raise SettingError(
                    what=f"--ignore covers {covered} of the region of interest",
                    remedy="paint white what is ignored and black what is inspected (or give X,Y,W,H in frame pixels)",
                )
        self._rings = surrounding_rings(self.labels)
        self._colours: list[NDArray[np.float64]] = []

    def add(self, frame: Image) -> None:
        """Note the colours in one network input."""
        if self._rings:
            self._colours.append(np.array([cv2.mean(frame, ring)[:3] for ring in self._rings]))

    def learned(self) -> IgnoreMask | None:
        """The areas with their mean colours; None without areas."""
        if not self._rings:
            return None
        return IgnoreMask(self.labels, np.rint(np.mean(self._colours, axis=0)).astype(np.uint8))


def _drawn(areas: Sequence[Area], frame_size: tuple[int, int]) -> NDArray[np.uint8]:
    drawn = np.zeros(frame_size, np.uint8)
    rows, columns = frame_size
    for area in areas:
        if isinstance(area, Region):
            try:
                crop(drawn, area)[:] = 1
            except DatasetError as error:
                raise SettingError(
                    what=f"--ignore {area} (x,y,width,height) does not fit into frames of {columns}x{rows} pixels",
                    remedy="give a rectangle inside the frame",
                ) from error
        elif area.shape != drawn.shape:
            raise SettingError(
                what=f"the mask of --ignore has {area.shape[1]}x{area.shape[0]} pixels, the frames have "
                f"{columns}x{rows}",
                remedy="paint it on a frame as the camera gives it, and save it in the same size",
            )
        else:
            drawn[area] = 1
    # One pixel more: weights that are too small for eight bits count as well.
    return np.asarray(cv2.dilate(drawn, np.ones((3, 3), np.uint8)), np.uint8)
