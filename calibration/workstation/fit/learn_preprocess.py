"""What the preprocessing learns from the good images: the reference to align by, the colour of what is ignored."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import cv2
import numpy as np

from calibration.errors import DatasetError, SettingError
from calibration.imaging.alignment import Grid
from calibration.imaging.ignore_mask import IgnoreMask, label_areas, surrounding_rings
from calibration.imaging.region import Region, crop, crop_padded, whole_frame
from calibration.imaging.thinned_sample import ThinnedSample
from calibration.workstation.fit.registration import registered

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.imaging.alignment import Alignment
    from calibration.imaging.preprocess import Image, Preprocess
    from calibration.progress import Progress
    from calibration.workstation.dataset import Images

    Mask: TypeAlias = NDArray[np.bool_]
    Area: TypeAlias = Region | Mask

AUTO_PX = 0
_AUTO_SHARE = 0.05
_REMEMBERED = 256
_FARTHEST_SHARE = 0.25


@dataclass(frozen=True)
class PreprocessRequest:
    """What a person wants to be learnt.

    Attributes:
        align_px: Largest displacement that is followed, in frame pixels; ``AUTO_PX``: 5 % of the region's
            shorter side; None: nothing is.
        ignored: What is never judged: rectangles, and masks of the frame's size.
    """

    align_px: int | None = None
    ignored: Sequence[Area] = ()


def learn_preprocess(
    images: Images, preprocess: Preprocess, wanted: PreprocessRequest, progress: Progress
) -> Preprocess:
    """The preprocessing with what it learns from one look at all images; as it is where nothing is to be learnt.

    Raises:
        SettingError: The largest displacement makes no sense; a mask has not the frames' size, or covers nothing or
            everything.
        DatasetError: The frames are of several sizes, or the region of interest does not fit into one.
    """
    if wanted.align_px is None and not wanted.ignored:
        return preprocess
    look: _Look | None = None
    for number, (name, image) in enumerate(images, start=1):
        if look is None:
            look = _first_look(preprocess, wanted, name, image)
        look.at(name, image)
        progress("looking", number, len(images))
    return preprocess if look is None else look.learnt(sequential=images.sequential)


@dataclass
class _Look:
    """What one pass over the images leaves."""

    preprocess: Preprocess
    region: Region
    limit_px: int | None
    labels: NDArray[np.uint8]
    _windows: ThinnedSample = field(default_factory=lambda: ThinnedSample(_REMEMBERED))
    _colours: list[NDArray[np.float64]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._rings = surrounding_rings(self.labels)
        self._grid = Grid.of(self.region, self.limit_px or 0)

    def at(self, name: str, image: Image) -> None:
        """Look at one image."""
        inspected = _inspected(self.preprocess, name, image)
        if self.limit_px is not None:
            self._windows.offer(self._grid.window(image, self.region))
        if self._rings:
            picture = self.preprocess.resize(inspected)
            self._colours.append(np.array([cv2.mean(picture, ring)[:3] for ring in self._rings]))

    def learnt(self, *, sequential: bool) -> Preprocess:
        """The preprocessing with what they taught."""
        colours = np.rint(np.mean(self._colours, axis=0)).astype(np.uint8) if self._rings else None
        return replace(
            self.preprocess,
            alignment=self._alignment(sequential=sequential),
            ignore_mask=None if colours is None else IgnoreMask(self.labels, colours),
        )

    def _alignment(self, *, sequential: bool) -> Alignment | None:
        if self.limit_px is None:
            return None
        return registered(self._windows.images, self._grid, self.limit_px, self._counting(), sequential=sequential)

    def _counting(self) -> Mask:
        """Cells of the reference that have nothing to do with what is ignored."""
        ignored = (self.labels > 0).astype(np.float32)
        share = cv2.resize(ignored, (self._grid.columns, self._grid.rows), interpolation=cv2.INTER_AREA)
        # Two cells more: the direction of an edge is that of three, and a cell of the last row may lie a little askew.
        return np.asarray(cv2.dilate((share > 0).astype(np.uint8), np.ones((5, 5), np.uint8)) == 0)


def _first_look(preprocess: Preprocess, wanted: PreprocessRequest, name: str, image: Image) -> _Look:
    region = preprocess.region or whole_frame(image)
    _inspected(preprocess, name, image)
    limit_px = None if wanted.align_px is None else _limit_px(wanted.align_px, region)
    rows, columns = image.shape[:2]
    labels = _labels(wanted.ignored, preprocess, region, (rows, columns))
    return _Look(replace(preprocess, frame_size=(rows, columns)), region, limit_px, labels)


def _limit_px(asked_px: int, region: Region) -> int:
    side = min(region.width, region.height)
    if not 0 <= asked_px <= _FARTHEST_SHARE * side:
        raise SettingError(
            what=f"--align {asked_px} makes no sense: a part displaced by more than a quarter of the region of "
            f"interest ({region.width}x{region.height} pixels) cannot be told from another part",
            remedy=f"give at most {int(_FARTHEST_SHARE * side)} pixels, or `auto`",
        )
    return asked_px if asked_px != AUTO_PX else max(1, round(_AUTO_SHARE * side))


def _labels(
    areas: Sequence[Area], preprocess: Preprocess, region: Region, frame_size: tuple[int, int]
) -> NDArray[np.uint8]:
    """Areas of the network input: each pixel to which one of the frame contributes that is ignored."""
    if not areas:
        return np.zeros((preprocess.height, preprocess.width), np.uint8)
    drawn = np.zeros(frame_size, np.uint8)
    for area in areas:
        _draw(drawn, area)
    drawn = np.asarray(cv2.dilate(drawn, np.ones((3, 3), np.uint8)), np.uint8)  # weights too small for eight bits count
    enlarged = preprocess.resize(crop_padded(np.repeat(drawn[..., None] * np.uint8(255), 3, axis=2), region))
    labels = label_areas(enlarged[..., 0] > 0)
    if labels.all() or not labels.any():
        raise SettingError(
            what=f"--ignore covers {'everything' if labels.all() else 'nothing'} of the region of interest",
            remedy="paint white what shall be ignored and black what shall be judged (or give X,Y,W,H in frame pixels)",
        )
    return labels


def _draw(drawn: NDArray[np.uint8], area: Area) -> None:
    rows, columns = drawn.shape
    if isinstance(area, Region):
        try:
            crop(drawn, area)[:] = 1
        except DatasetError as error:
            raise SettingError(
                what=f"--ignore {area} (x,y,width,height) does not fit into frames of {columns}x{rows} pixels",
                remedy="give a rectangle inside the frame",
            ) from error
        return
    if area.shape != drawn.shape:
        raise SettingError(
            what=f"the mask of --ignore has {area.shape[1]}x{area.shape[0]} pixels, the frames have {columns}x{rows}",
            remedy="paint it on a frame as the camera gives it, and save it in the same size",
        )
    drawn[area] = 1


def _inspected(preprocess: Preprocess, name: str, image: Image) -> Image:
    try:
        return preprocess.region_of_interest(image)
    except DatasetError as error:
        raise DatasetError(what=f"{name}: {error.what}", remedy=error.remedy) from error
