"""Reference statistics of the good frames, from which the agent notices that the camera has changed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from calibration.camera_checks import frame_statistics
from calibration.camera_checks.limits import Bounds, Limit, limit_arrays, separated_limit, tail_limit
from calibration.imaging.orientation import Structure, edge_directions
from calibration.imaging.region import to_grey
from calibration.imaging.thinned_sample import ThinnedSample

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.imaging.orientation import Directions
    from calibration.imaging.preprocess import Image

THUMBNAIL = 32
REMEMBERED = 1024
_FOLDS = 5
_HALF_HIDDEN = 0.5
RECOGNISED = 0.25

_FIGURES = np.dtype([("colour", "f8", 3), ("sharpness", "f8"), ("light", "f8"), ("detail", "f8"), ("edges", "f8")])

# Log odds of brightness, logs of energies, shares of the image, correlations.
_LIGHT = Bounds(math.log(1.5), math.log(4.0))
_DETAIL = Bounds(math.log(2.0), math.log(6.0))
_EDGES = Bounds(math.log(1.25), math.log(2.0))
_BLOCKED = Bounds(0.2, 0.2)
MOVED = Bounds(0.0, 0.05)
_CHANGE = Bounds(math.log(2.0), math.log(10.0))


@dataclass(frozen=True, slots=True)
class Observation:
    """The statistics of one good frame.

    Attributes:
        figures: Its numbers, see ``frame_statistics``; ``light`` is the brightness.
        rows: Some rows of the frame, to compare with the next frame of a video; None if it is not from a video.
    """

    figures: NDArray[np.void]
    small: Image
    input_size: tuple[int, ...]
    thumbnail: Image
    blocks: Image
    frame_size: tuple[int, ...]
    rows: Image | None

    @classmethod
    def of(cls, frame: Image, inspected: Image, frame_size: tuple[int, ...]) -> Observation:
        """Observe one good frame.

        Args:
            frame: Network input, (height, width, 3).
            inspected: The region of the camera frame that it was made from.
            frame_size: Rows and columns of the whole camera frame.
        """
        grey = to_grey(frame)
        figures = (
            frame_statistics.mean_colour(frame),
            cv2.Laplacian(grey, cv2.CV_32F).var(),  # Pech-Pacheco et al. 2000
            frame_statistics.brightness(grey),
            frame_statistics.detail(grey),
            frame_statistics.edges(grey),
        )
        return cls(
            figures=np.array(figures, _FIGURES),
            small=cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False),
            input_size=grey.shape,
            thumbnail=frame_statistics.thumbnail(grey),
            blocks=frame_statistics.blocks(frame),
            frame_size=frame_size,
            rows=frame_statistics.sample_rows(inspected),
        )


@dataclass
class ReferenceStatistics:
    """How bright, sharp and similar the good frames are, and the limits of the camera checks that follow.

    Nearly everything is measured on the network input (after ``Preprocess``), and so comparable between cameras.
    """

    _figures: list[NDArray[np.void]] = field(default_factory=list)
    _change: list[float] = field(default_factory=list)
    _sizes: set[tuple[int, ...]] = field(default_factory=set)
    _input_size: tuple[int, ...] = ()
    _smalls: ThinnedSample = field(default_factory=lambda: ThinnedSample(REMEMBERED))
    _thumbnails: ThinnedSample = field(default_factory=lambda: ThinnedSample(REMEMBERED))
    _blocks: ThinnedSample = field(default_factory=lambda: ThinnedSample(REMEMBERED))
    _rows_before: Image | None = None
    _still: int = 0
    _still_at_most: int = 0
    _sum: NDArray[np.float64] = field(default_factory=lambda: np.zeros((THUMBNAIL, THUMBNAIL)))
    _squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros((THUMBNAIL, THUMBNAIL)))

    def update(self, frame: Image, inspected: Image, frame_size: tuple[int, ...]) -> None:
        """Add one good frame; arguments as for ``Observation.of``."""
        self.add(Observation.of(frame, inspected, frame_size))

    def add(self, observed: Observation) -> None:
        """Add the statistics of the next good frame."""
        self._figures.append(observed.figures)
        small = observed.small.astype(np.float64)
        self._sum += small
        self._squares += small**2
        self._smalls.offer(observed.small)
        self._input_size = observed.input_size
        self._thumbnails.offer(observed.thumbnail)
        self._blocks.offer(observed.blocks)
        self._sizes.add(observed.frame_size)
        if self._rows_before is not None and observed.rows is not None:
            self._change.append(frame_statistics.mean_difference(self._rows_before, observed.rows))
            self._still = 0 if self._change[-1] > 0.0 else self._still + 1
            self._still_at_most = max(self._still, self._still_at_most)
        self._rows_before = observed.rows

    def arrays(self, *, sequential: bool) -> dict[str, NDArray[Any]]:
        """Arrays for ``reference.npz``.

        ``brightness`` (n, 3) BGR, ``sharpness`` (n,) and ``edges`` (n,) of each good frame, in order;
        ``small_frames`` (m, 32, 32) of up to 1024 of them, grey; ``thumbnail_mean`` and ``thumbnail_std`` (32, 32) of
        all; ``check_names``, ``check_limits`` (NaN: off) and
        ``check_notes``, one entry for each check; and what the checks need:

        ``frame_size`` (2,), empty if the good frames have several sizes;
        ``still_at_most``, the longest run of video frames that were identical to the one before;
        ``blocks_least`` and ``blocks_most`` (rows, columns, 3), see ``block_colour_range``;
        and those of ``movement_arrays``.

        Args:
            sequential: The frames are consecutive frames of a video.
        """
        figures = np.array(self._figures, _FIGURES)
        mean = self._sum / max(len(figures), 1)
        arrays: dict[str, NDArray[Any]] = {
            "brightness": figures["colour"],
            "sharpness": figures["sharpness"],
            "edges": figures["edges"],
            "thumbnail_mean": mean,
            "thumbnail_std": np.sqrt(np.maximum(self._squares / max(len(figures), 1) - mean**2, 0.0)),
            "frame_size": np.array(next(iter(self._sizes)) if len(self._sizes) == 1 else (), np.int64),
        }
        if sequential:
            arrays["still_at_most"] = np.array(self._still_at_most)
        limits: dict[str, Limit] = {}
        if len(figures):
            arrays["small_frames"] = np.stack(self._smalls.images)
            limits = self._frame_limits(figures, sequential=sequential)
            limits["blocked"] = self._blocked(arrays, sequential=sequential)
            limits["moved"] = self._moved(arrays, sequential=sequential)
        return {**arrays, **limit_arrays(limits)}

    def _frame_limits(self, figures: NDArray[np.void], *, sequential: bool) -> dict[str, Limit]:
        """Limits of the checks that need only one frame, or two consecutive ones."""
        above = _lower_limit(-figures["light"], _LIGHT, sequential=sequential)
        one_size = len(self._sizes) == 1
        return {
            "resolution": Limit(0.0) if one_size else Limit(math.nan, "the good frames have several sizes"),
            "frozen": self._frozen()
            if sequential
            else Limit(0.0, "only identical frames: the good frames are not a video"),
            "dark": _lower_limit(figures["light"], _LIGHT, sequential=sequential),
            "over_exposed": Limit(-above.value, above.note),
            "blurred_detail": _lower_limit(figures["detail"], _DETAIL, sequential=sequential),
            "blurred_edges": _lower_limit(figures["edges"], _EDGES, sequential=sequential),
        }

    def _frozen(self) -> Limit:
        change = np.array(self._change)
        if self._still_at_most or not len(change):
            return Limit(0.0, f"only identical frames: up to {self._still_at_most} good ones in a row did not change")
        limit = _lower_limit(np.log(change), _CHANGE, sequential=True)
        return Limit(math.exp(limit.value), limit.note)

    def _blocked(self, arrays: dict[str, NDArray[Any]], *, sequential: bool) -> Limit:
        blocks = np.stack(self._blocks.images)
        folds = _folds(len(blocks), sequential=sequential)
        arrays["blocks_least"], arrays["blocks_most"] = frame_statistics.block_colour_range(blocks)
        shares = []
        for fold in np.unique(folds):
            least, most = frame_statistics.block_colour_range(blocks[folds != fold])
            shares += [frame_statistics.unknown_colour_share(each, least, most) for each in blocks[folds == fold]]
        return separated_limit(np.array(shares), _BLOCKED, sequential=sequential)

    def _moved(self, arrays: dict[str, NDArray[Any]], *, sequential: bool) -> Limit:
        images = self._thumbnails.images
        folds = _folds(len(images), sequential=sequential)
        sums: dict[int, Directions] = {}
        for fold, image in zip(folds.tolist(), images, strict=True):
            sums[fold] = sums.get(fold, np.float32(0.0)) + edge_directions(image)
        total = np.sum(list(sums.values()), axis=0)
        arrays["structure"] = total / np.float32(len(images))
        structure = Structure(arrays["structure"])
        if not structure.is_recognisable:
            return Limit(math.nan, "the good frames share no fixed structure")
        others = {fold: Structure((total - own) / np.float32((folds != fold).sum())) for fold, own in sums.items()}
        found = [others[fold].displacement(edge_directions(image)) for fold, image in zip(folds, images, strict=True)]
        gains = np.array([each.elsewhere - each.at_zero for each in found])
        limit = separated_limit(gains, MOVED, sequential=sequential)
        arrays.update(
            movement_arrays(structure, float(np.median([each.at_zero for each in found])), limit, self._input_size)
        )
        if limit.is_on and np.isnan(arrays["moved_seen_from"]).all():
            return Limit(math.nan, "the good frames share too little fixed structure")
        return limit


def movement_arrays(
    structure: Structure, typical: float, limit: Limit, input_size: tuple[int, ...]
) -> dict[str, NDArray[Any]]:
    """The arrays that the check for a moved camera needs.

    ``structure`` (rows, columns, 2), see ``Structure``; ``moved_recognised``, the correlation from which the structure
    counts as found; ``moved_seen_from``, the smallest noticeable displacement, (to the side, up or down), in pixels of
    the network input (NaN: none is noticeable).

    Args:
        structure: Of the good frames.
        typical: ``at_zero`` of a typical good frame.
        limit: Of ``elsewhere - at_zero``.
        input_size: (height, width) of the network input.
    """
    cells = structure.smallest_visible_shift(_HALF_HIDDEN * typical, limit.value)
    pixels = frame_statistics.pixels_in_cell(*input_size)
    return {
        "structure": structure.mean,
        "moved_recognised": np.array(RECOGNISED * typical),
        "moved_seen_from": np.array([math.nan if each is None else each * pixels for each in cells]),
    }


def _lower_limit(values: NDArray[np.float64], bounds: Bounds, *, sequential: bool) -> Limit:
    """Limit below the good frames; bounds are distances from the lowest of them."""
    lowest = float(values.min())
    limit = tail_limit(-values, Bounds(bounds.least - lowest, bounds.most - lowest), sequential=sequential)
    return Limit(-limit.value, limit.note)


def _folds(count: int, *, sequential: bool) -> NDArray[np.intp]:
    """Fold of each frame; consecutive frames of a video are alike and share a fold."""
    return np.arange(count) * _FOLDS // count if sequential else np.arange(count) % _FOLDS
