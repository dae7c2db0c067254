"""What the good frames looked like as pictures, so that the agent can tell when the camera has changed."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np

from calibration.camera_checks import frame_statistics
from calibration.camera_checks.limits import Bounds, Limit, separated_limit, tail_limit
from calibration.imaging.orientation import Structure, edge_directions
from calibration.imaging.region import to_grey
from calibration.imaging.thinned_sample import ThinnedSample

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image

THUMBNAIL = 32
_REMEMBERED = 1024
_FOLDS = 5
HALF_HIDDEN = 0.5
RECOGNISED = 0.25

# In log odds of light, logs of energies, shares of the picture, correlations: what no good frames can tell.
_LIGHT = Bounds(math.log(1.5), math.log(4.0))
_DETAIL = Bounds(math.log(2.0), math.log(6.0))
_EDGES = Bounds(math.log(1.25), math.log(2.0))
_STRANGE = Bounds(0.2, 0.2)
MOVED = Bounds(0.0, 0.05)
_CHANGE = Bounds(math.log(2.0), math.log(10.0))


def sharpness(frame: Image) -> float:
    """Variance of the Laplacian of the grey picture (Pech-Pacheco et al. 2000): falls when the lens is blurred."""
    return float(cv2.Laplacian(cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY), cv2.CV_32F).var())


@dataclass(frozen=True, slots=True)
class Observation:
    """What the statistics need to know of one good frame.

    Attributes:
        rows: Some rows of it, for comparison with the next frame of a video; None where frames are no neighbours.
    """

    colour: NDArray[np.float64]
    sharpness: float
    small: NDArray[np.float64]
    light: float
    detail: float
    edges: float
    input_size: tuple[int, ...]
    thumbnail: Image
    blocks: Image
    frame_size: tuple[int, ...]
    rows: Image | None

    @classmethod
    def of(cls, frame: Image, inspected: Image, frame_size: tuple[int, ...]) -> Observation:
        """Look at one good frame.

        Args:
            frame: Network input, (height, width, 3).
            inspected: The region of the picture that it was made from.
            frame_size: Rows and columns of the whole picture.
        """
        grey = to_grey(frame)
        return cls(
            colour=frame_statistics.mean_colour(frame),
            sharpness=sharpness(frame),
            small=cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA).astype(np.float64),
            light=frame_statistics.brightness(grey),
            detail=frame_statistics.detail(grey),
            edges=frame_statistics.edges(grey),
            input_size=grey.shape,
            thumbnail=frame_statistics.thumbnail(grey),
            blocks=frame_statistics.blocks(frame),
            frame_size=frame_size,
            rows=frame_statistics.sample_rows(inspected),
        )


@dataclass
class ReferenceStatistics:
    """How bright, sharp and alike the good frames are, and from that the limits of the camera checks.

    Nearly all is taken on the network input (after ``Preprocess``), so that it means the same on every camera.
    """

    count: int = 0
    _brightness: list[NDArray[np.float64]] = field(default_factory=list)
    _sharpness: list[float] = field(default_factory=list)
    _light: list[float] = field(default_factory=list)
    _detail: list[float] = field(default_factory=list)
    _edges: list[float] = field(default_factory=list)
    _change: list[float] = field(default_factory=list)
    _sizes: set[tuple[int, ...]] = field(default_factory=set)
    _input_size: tuple[int, ...] = ()
    _thumbnails: ThinnedSample = field(default_factory=lambda: ThinnedSample(_REMEMBERED))
    _blocks: ThinnedSample = field(default_factory=lambda: ThinnedSample(_REMEMBERED))
    _rows_before: Image | None = None
    _still: int = 0
    _still_at_most: int = 0
    _sum: NDArray[np.float64] = field(default_factory=lambda: np.zeros((THUMBNAIL, THUMBNAIL)))
    _squares: NDArray[np.float64] = field(default_factory=lambda: np.zeros((THUMBNAIL, THUMBNAIL)))

    def update(self, frame: Image, inspected: Image, frame_size: tuple[int, ...]) -> None:
        """Add one good frame; arguments as of ``Observation.of``."""
        self.add(Observation.of(frame, inspected, frame_size))

    def add(self, seen: Observation) -> None:
        """Add what was seen of the next good frame."""
        self.count += 1
        self._brightness.append(seen.colour)
        self._sharpness.append(seen.sharpness)
        self._sum += seen.small
        self._squares += seen.small**2
        self._light.append(seen.light)
        self._detail.append(seen.detail)
        self._edges.append(seen.edges)
        self._input_size = seen.input_size
        self._thumbnails.offer(seen.thumbnail)
        self._blocks.offer(seen.blocks)
        self._sizes.add(seen.frame_size)
        if self._rows_before is not None and seen.rows is not None:
            self._change.append(frame_statistics.mean_difference(self._rows_before, seen.rows))
            self._still = 0 if self._change[-1] > 0.0 else self._still + 1
            self._still_at_most = max(self._still, self._still_at_most)
        self._rows_before = seen.rows

    def arrays(self, *, sequential: bool) -> dict[str, NDArray[Any]]:
        """Arrays for the bundle.

        ``brightness`` (n, 3) BGR, ``sharpness`` (n,) and ``edges`` (n,) of every good frame, in their order;
        ``thumbnail_mean`` and ``thumbnail_std`` (32, 32), grey. By check ``check_names``, ``check_limits`` (NaN: off)
        and ``check_notes``, and what they need:

        ``frame_size`` (2,), empty where good frames have several;
        ``still_at_most``, how many frames of a video in a row were identical to the one before;
        ``blocks_least`` and ``blocks_most`` (rows, columns, 3), see ``block_colour_range``;
        ``structure`` (rows, columns, 2), see ``Structure``;
        ``moved_recognised``, the correlation from which it counts as found;
        ``moved_seen_from``, the smallest displacement that is noticed, (to the side, up or down) in pixels of the
        network input (NaN: none is).

        Args:
            sequential: The frames are neighbours in a video.
        """
        mean = self._sum / max(self.count, 1)
        variance = np.maximum(self._squares / max(self.count, 1) - mean**2, 0.0)
        arrays: dict[str, NDArray[Any]] = {
            "brightness": np.array(self._brightness).reshape(-1, 3),
            "sharpness": np.array(self._sharpness),
            "edges": np.array(self._edges),
            "thumbnail_mean": mean,
            "thumbnail_std": np.sqrt(variance),
            "frame_size": np.array(next(iter(self._sizes)) if len(self._sizes) == 1 else (), np.int64),
        }
        limits = dict(self._own_limits(sequential=sequential)) if self.count else {}
        if sequential:
            arrays["still_at_most"] = np.array(self._still_at_most)
        if self.count:
            limits["blocked"] = self._blocked(arrays, sequential=sequential)
            limits["moved"] = self._moved(arrays, sequential=sequential)
        return {
            **arrays,
            "check_names": np.array(list(limits), np.str_),
            "check_limits": np.array([limit.value for limit in limits.values()], np.float64),
            "check_notes": np.array([limit.note for limit in limits.values()], np.str_),
        }

    def _own_limits(self, *, sequential: bool) -> Iterator[tuple[str, Limit]]:
        """Of what needs one frame, or two, alone."""
        light = np.array(self._light)
        yield "resolution", Limit(0.0) if len(self._sizes) == 1 else Limit(math.nan, "good frames of several sizes")
        yield "frozen", self._frozen() if sequential else Limit(0.0, "identical ones only: good frames were no video")
        yield "dark", _below(light, _LIGHT, sequential=sequential)
        above = _below(-light, _LIGHT, sequential=sequential)
        yield "over_exposed", Limit(-above.value, above.note)
        yield "blurred_detail", _below(np.array(self._detail), _DETAIL, sequential=sequential)
        yield "blurred_edges", _below(np.array(self._edges), _EDGES, sequential=sequential)

    def _frozen(self) -> Limit:
        change = np.array(self._change)
        if self._still_at_most or not len(change):
            return Limit(0.0, f"identical ones only: so were up to {self._still_at_most} good ones in a row")
        limit = _below(np.log(change), _CHANGE, sequential=True)
        return Limit(math.exp(limit.value), limit.note)

    def _blocked(self, arrays: dict[str, NDArray[Any]], *, sequential: bool) -> Limit:
        seen = np.stack(self._blocks.pictures)
        folds = _folds(len(seen), sequential=sequential)
        arrays["blocks_least"], arrays["blocks_most"] = frame_statistics.block_colour_range(seen)
        shares = []
        for fold in np.unique(folds):
            least, most = frame_statistics.block_colour_range(seen[folds != fold])
            shares += [frame_statistics.unknown_colour_share(each, least, most) for each in seen[folds == fold]]
        return separated_limit(np.array(shares), _STRANGE, sequential=sequential)

    def _moved(self, arrays: dict[str, NDArray[Any]], *, sequential: bool) -> Limit:
        seen = self._thumbnails.pictures
        folds = _folds(len(seen), sequential=sequential)
        sums = {fold: _sum_of_directions(seen, folds == fold) for fold in np.unique(folds)}
        total = np.sum(list(sums.values()), axis=0)
        arrays["structure"] = total / np.float32(len(seen))
        structure = Structure(arrays["structure"])
        if not structure.is_recognisable:
            return Limit(math.nan, "nothing stands still")
        others = {fold: Structure((total - one) / np.float32((folds != fold).sum())) for fold, one in sums.items()}
        found = [others[fold].displacement(edge_directions(each)) for fold, each in zip(folds, seen, strict=True)]
        limit = separated_limit(
            np.array([each.elsewhere - each.at_zero for each in found]), MOVED, sequential=sequential
        )
        here = float(np.median([each.at_zero for each in found]))
        cells = structure.smallest_visible_shift(HALF_HIDDEN * here, limit.value)
        pixels = frame_statistics.pixels_in_cell(*self._input_size)
        arrays["moved_recognised"] = np.array(RECOGNISED * here)
        arrays["moved_seen_from"] = np.array([math.nan if each is None else each * pixels for each in cells])
        return Limit(math.nan, "too little stands still") if cells == (None, None) and limit.is_on else limit


def _below(values: NDArray[np.float64], bounds: Bounds, *, sequential: bool) -> Limit:
    """Limit below good frames; the bounds count from the lowest of them."""
    lowest = float(values.min())
    limit = tail_limit(-values, Bounds(bounds.least - lowest, bounds.most - lowest), sequential=sequential)
    return Limit(-limit.value, limit.note)


def _folds(count: int, *, sequential: bool) -> NDArray[np.intp]:
    """Neighbours in a video resemble each other, and are left out together."""
    return np.arange(count) * _FOLDS // count if sequential else np.arange(count) % _FOLDS


def _sum_of_directions(seen: list[Image], chosen: NDArray[np.bool_]) -> NDArray[np.float32]:
    total = np.zeros((*seen[0].shape, 2), np.float32)
    for each, counts in zip(seen, chosen, strict=True):
        if counts:
            total += edge_directions(each)
    return total
