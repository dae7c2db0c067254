"""PatchCore (Roth et al. 2022): a small bank of good patches, from which those of an image are far if it is not."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from calibration.detectors.contract import Fit
from calibration.detectors.embedding import join_levels
from calibration.detectors.feature_store import batch_images
from calibration.detectors.memory_bank import AHEAD, gather, greedy_coreset, most_that_fit
from calibration.detectors.patchcore_head import BLOCK, EnsembleHead, PatchCoreHead, nearest_entries
from calibration.errors import SettingError
from calibration.onnx_graph import FeatureMap
from calibration.statistics.smoothing import Smoothing

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from numpy.typing import NDArray

    from calibration.detectors.contract import Folds
    from calibration.detectors.feature_store import Features
    from calibration.onnx_graph import GraphBuilder

    Float32 = NDArray[np.float32]

_SEED = 0
_PROJECTED = 128
_PER_LEVEL = 1024


@dataclass(frozen=True, slots=True)
class PatchCore:
    """The detector and its parameters.

    Attributes:
        coreset: Share of all patches that the bank holds, in (0, 1].
        neighbours: b of eq. 7.
        aggregation: p, side of the averaged neighbourhood, in cells of each level, odd.
        stride: s of eq. 3, cells from one patch to the next.
        dimensions: d, channels that all levels are pooled to, an equal share each, after 1024 of each as in the
            authors' code; None: no pooling over channels.
        smoothing: Sigma, in pixels of the network input, of the Gaussian that blurs the map (section 3.3: 4), enlarged
            to the input's size first; None: the map has the features' grid.
        banks: ``one`` for the joined features of all backbones, or one for ``each`` backbone, whose scores and maps are
            averaged (section 4.2's ensembles).
        candidates: Maximum number of patches, drawn at random, that the coreset is chosen from; None: all.
    """

    name: ClassVar[str] = "patchcore"
    memory_advice: ClassVar[str] = "a smaller coreset"

    coreset: float = 0.01
    neighbours: int = 9
    aggregation: int = 3
    candidates: int | None = None
    stride: int = 1
    dimensions: int | None = None
    smoothing: int | None = None
    banks: Literal["one", "each"] = "one"

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if not 0.0 < self.coreset <= 1.0:
            raise SettingError(what=f"coreset = {self.coreset} is outside (0, 1]", remedy="give a share, e.g. 0.01")
        if self.neighbours < 2:  # noqa: PLR2004 - with itself as the only neighbour, eq. 7 is zero for every image
            raise SettingError(what=f"neighbours = {self.neighbours} is too few", remedy="give 2 or more, e.g. 9")
        if self.aggregation < 1 or self.aggregation % 2 == 0:
            raise SettingError(what=f"aggregation = {self.aggregation} is not odd", remedy="give 1, 3, 5, ...")
        if self.banks not in {"one", "each"}:
            raise SettingError(what=f"banks = {self.banks!r} is not known", remedy="give one or each")
        for name, value in (("stride", self.stride), ("dimensions", self.dimensions), ("smoothing", self.smoothing)):
            if value is not None and value < 1:
                raise SettingError(what=f"{name} = {value} is too small", remedy="give 1 or more")
        if self.candidates is not None and self.candidates < self.neighbours:
            raise SettingError(
                what=f"candidates = {self.candidates} is fewer than the {self.neighbours} neighbours",
                remedy="give more, e.g. 50000",
            )

    def on_image(self, size: tuple[int, int], levels: Sequence[int] = ()) -> PatchCore:
        """The detector for a network input of this size, (height, width), and backbones of these numbers of levels."""
        if not self.smoothing and self.banks == "one":
            return self
        members = ",".join(map(str, levels)) if self.banks == "each" else None
        return PatchCoreOnImage(**{**asdict(self), "map_height": size[0], "map_width": size[1], "members": members})

    def reduce(self, graph: GraphBuilder, levels: Sequence[FeatureMap], features: FeatureMap) -> FeatureMap:
        """Average each level over the neighbourhood of each of its own cells, then join the levels (eqs. 1 to 3).

        Cells outside a level count as zeros, as in the authors' code.

        Raises:
            SettingError: The stride does not divide the grid, or the channels cannot be pooled to the dimensions.
        """
        height, width = features.shape[1:]
        if height % self.stride or width % self.stride:
            raise SettingError(
                what=f"stride = {self.stride} does not divide the {height}x{width} grid", remedy="give 1 or 2"
            )
        return join_levels(
            graph,
            [
                self._aggregated(graph, level, part.stop - part.start)
                for part in self._members(len(levels))
                for level in levels[part]
            ],
        )

    def _members(self, levels: int) -> list[slice]:
        """The levels that share a bank."""
        assert self.banks == "one"  # noqa: S101 - see ``on_image``
        return [slice(0, levels)]

    def _aggregated(self, graph: GraphBuilder, level: FeatureMap, levels: int) -> FeatureMap:
        channels, *sides = level.shape
        window: dict[str, Any] = {
            "kernel_shape": [self.aggregation] * 2,
            "strides": [self.stride] * 2,
            "pads": [self.aggregation // 2] * 4,
        }
        height, width = (-(-side // self.stride) for side in sides)
        if self.dimensions is None:
            averaged = graph.add("AveragePool", level.name, count_include_pad=1, **window)
            return FeatureMap(averaged, (channels, height, width))
        share, rest = divmod(self.dimensions, levels)
        if rest:
            raise SettingError(
                what=f"{levels} levels cannot have an equal share of dimensions = {self.dimensions}",
                remedy=f"give a multiple of {levels}, e.g. {_PER_LEVEL - _PER_LEVEL % levels}",
            )
        weights = _pooling(channels * self.aggregation**2, share).reshape(share, -1, *window["kernel_shape"])
        groups = 1
        if channels % share == 0:
            blocks = np.split(weights, share, axis=1)
            if not any(np.delete(block, number, axis=0).any() for number, block in enumerate(blocks)):
                groups, weights = share, np.stack([block[number] for number, block in enumerate(blocks)])
        pooled = graph.add("Conv", level.name, graph.constant(f"reduce.{level.name}", weights), group=groups, **window)
        return FeatureMap(pooled, (share, height, width))

    def memory_mib(self, reduced: tuple[int, int, int], images: int) -> float:
        """The projected candidates with what the coreset computes, four banks, the distances to one, and a batch.

        The batch counts five times: as read, as patches, as those chosen of them, centred, and the one scored last.
        """
        channels, height, width = reduced
        total = images * height * width
        candidates = min(self.candidates or total, total)
        bank = self._bank_size(candidates, total)
        compared = max(3 * BLOCK, 2 * height * width)
        smoothing = self._smoothing((height, width))
        map_pixels = 0 if smoothing is None else smoothing.size[0] * smoothing.size[1]
        batch = batch_images(reduced, images) * (5 * channels * height * width + 3 * map_pixels)
        chosen = 0 if bank == candidates else candidates * (min(channels, _PROJECTED) + AHEAD + 8)
        neighbours = 2 * self.neighbours * len(self._members(1))
        numbers = chosen + 4 * candidates + bank * (4 * (channels + neighbours) + compared)
        return 4 * (numbers + batch) / 2**20

    def _smoothing(self, grid: tuple[int, int]) -> Smoothing | None:
        """How maps of this grid are made smooth: back to the features' grid, if patches are farther apart."""
        assert self.smoothing is None  # noqa: S101 - see ``on_image``
        return _back_to_features(grid, self.stride)

    def within(self, limit_mib: float, reduced: tuple[int, int, int], images: int) -> PatchCore:
        """The same with as many candidates as this memory allows, if their number was not given.

        A bank that is too large stays as it is.
        """
        total = images * int(np.prod(reduced[1:]))
        numbers = range(self._bank_size(total, total), total + 1)
        most = most_that_fit(numbers, limit_mib, lambda each: self._of(each).memory_mib(reduced, images))
        return self if self.candidates is not None or most is None else self._of(most)

    def _of(self, candidates: int) -> PatchCore:
        return replace(self, candidates=candidates)

    def fit(self, store: Features, folds: Folds, levels: Sequence[int]) -> Fit:
        """Choose a coreset of all patches, and for each fold one of the other folds."""
        members = self._members(len(levels))
        widths = [self.dimensions or sum(levels[part]) for part in members]
        held_out = (self._head(store, others, widths) for others in folds.complements())
        head, patches = self._head(store, folds.images, widths), _patches(store, folds.images)
        given = {name: value for name, value in asdict(self).items() if value is not None}
        candidates = min(self.candidates or patches, patches)
        counts = {"candidates": candidates, "patches": patches, "bank": self._bank_size(candidates, patches)}
        return Fit(head, held_out, {**given, **counts})

    def _head(self, store: Features, images: Sequence[int], widths: Sequence[int] = ()) -> PatchCoreHead | EnsembleHead:
        """The head of these images; ``widths`` are the channels of each bank, if there are several."""
        smoothing = self._smoothing((store.shape[1], store.shape[2]))
        if len(widths) <= 1:
            return replace(self._bank(store, images, slice(None)), smoothing=smoothing)
        ends = np.cumsum(widths).tolist()
        parts = [slice(end - width, end) for width, end in zip(widths, ends, strict=True)]
        return EnsembleHead.of([self._bank(store, images, part) for part in parts], smoothing)

    def _bank(self, store: Features, images: Sequence[int], part: slice) -> PatchCoreHead:
        """Two passes over these channels, so that only the projected candidates and the bank are in memory."""

        def batches(chosen: Sequence[int]) -> Iterator[Float32]:
            return (batch[:, part] for batch in store.batches(chosen))

        random, total = np.random.default_rng(_SEED), _patches(store, images)
        channels = len(range(store.shape[0])[part])
        rows = np.arange(total)
        if self.candidates is not None and self.candidates < total:
            rows = np.sort(random.choice(total, self.candidates, replace=False))
        size = self._bank_size(len(rows), total)
        if size < len(rows):
            near = next(batches(images[:1])).mean(axis=(0, 2, 3))
            project = _projection(channels, random)
            width = min(channels, _PROJECTED)
            projected = gather(batches(images), rows, width, lambda patches: project(patches - near))
            projected -= projected.mean(axis=0)
            rows = np.sort(rows[greedy_coreset(projected, size)])
        bank = gather(batches(images), rows, channels)
        mean = bank.mean(axis=0)
        bank -= mean
        return PatchCoreHead(mean, bank, nearest_entries(bank, self.neighbours))

    def _bank_size(self, candidates: int, total: int) -> int:
        return min(candidates, max(self.neighbours, round(self.coreset * total)))


@dataclass(frozen=True, slots=True)
class PatchCoreOnImage(PatchCore):
    """The detector for a network input of this size, which is that of smoothed maps, and for several backbones.

    Attributes:
        members: Number of levels of each backbone, joined by commas; None if they share a bank.
    """

    map_height: int = 0
    map_width: int = 0
    members: str | None = None

    def _members(self, levels: int) -> list[slice]:
        ends = np.cumsum([int(each) for each in self.members.split(",")] if self.members else [levels]).tolist()
        return [slice(start, end) for start, end in pairwise([0, *ends])]

    def _smoothing(self, grid: tuple[int, int]) -> Smoothing | None:
        if self.smoothing is None:
            return _back_to_features(grid, self.stride)
        return Smoothing((self.map_height, self.map_width), self.smoothing, self.stride)


def _back_to_features(grid: tuple[int, int], stride: int) -> Smoothing | None:
    return None if stride == 1 else Smoothing((grid[0] * stride, grid[1] * stride), 0, stride)


def _pooling(values: int, bins: int) -> Float32:
    """Means of ``_PER_LEVEL`` bins over all values, then of ``bins`` over these, as one matrix (bins, values)."""
    return (_bin_means(_PER_LEVEL, bins) @ _bin_means(values, _PER_LEVEL)).astype(np.float32)


def _bin_means(values: int, bins: int) -> NDArray[np.float64]:
    """Matrix (bins, values) that takes means over equal bins, which share the values that they divide."""
    means = np.zeros((bins, values))
    for number, row in enumerate(means):
        part = slice(number * values // bins, -(-(number + 1) * values // bins))
        row[part] = 1 / (part.stop - part.start)
    return means


def _patches(store: Features, images: Sequence[int]) -> int:
    return len(images) * int(np.prod(store.shape[1:]))


def _projection(channels: int, random: np.random.Generator) -> Callable[[Float32], Float32]:
    """Projects points at random, which nearly keeps distances (Johnson and Lindenstrauss 1984)."""
    if channels <= _PROJECTED:
        return lambda points: points
    matrix = random.standard_normal((channels, _PROJECTED)).astype(np.float32) / np.sqrt(np.float32(_PROJECTED))
    return lambda points: points @ matrix
