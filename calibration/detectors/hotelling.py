"""Hotelling's T2 of mean shifts, as published (Hermann et al. 2022): one covariance of un-averaged patches.

Patches of R pixels are joined cells of the grid. Their covariance around one mean (eq. 5), shrunk as Ledoit and Wolf do
(eq. 7), is that of a whitening convolution. An image is compared by the means of its patches: over regions of A pixels,
each with the mean of the good images there (eqs. 9 to 11), or over the whole image (eq. 6).
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from calibration.detectors.contract import Fit
from calibration.detectors.feature_store import batch_images
from calibration.detectors.memory_bank import greedy_coreset, sample
from calibration.errors import SettingError
from calibration.statistics.covariance import inverse_cholesky
from calibration.statistics.moments import identical_features_error
from calibration.statistics.scores import Scores
from calibration.statistics.shrinkage import ShrinkageSums

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from numpy.typing import NDArray

    from calibration.detectors.contract import Folds
    from calibration.detectors.feature_store import Features
    from calibration.onnx_graph import FeatureMap, GraphBuilder, GridCell

    Float32 = NDArray[np.float32]
    Float64 = NDArray[np.float64]

_SEED = 0
_CANDIDATES = 10_000  # averaged patches, drawn at random, that several means are chosen from
_ROWS = 2048  # patches whose outer products are summed at a time
_SUGGESTED = 6


@dataclass(frozen=True)
class HotellingHead:
    """T2 = factor * || W (P - mu) ||^2, where P is the mean of patches over a window; the score is the largest.

    The mean is taken from the features and the window averages them before cells are joined: all of this is linear,
    and joined cells are many times as many numbers.

    Attributes:
        mean: Mean of the good images at each cell, or of each channel, (c, h or 1, w or 1), float32.
        whitening: W, (d, d), float32, with d = c * patch * patch; channels of P in the order (c, row, column).
        patch: Side of a patch, in cells.
        window: Rows and columns of patches that are averaged.
        factor: 1, or the number n of patches of eq. 6.
        modes: Whitened means of K kinds of good patches, less that of ``mean``, (K, d), float32; the nearest counts.
    """

    mean: Float32
    whitening: Float32
    patch: int
    window: tuple[int, int]
    factor: float = 1.0
    modes: Float32 | None = None

    def scores(self, reduced: Float32) -> Scores:
        """Map and score of images, (n, c, h, w)."""
        maps = np.stack([self._map(each) for each in reduced])
        return Scores(maps.max(axis=(1, 2)), maps)

    def _map(self, features: Float32) -> Float32:
        averaged = averages((features - self.mean)[None], self.window)
        whitened = joined(averaged, self.patch)[0] @ self.whitening.T
        kinds = (0.0,) if self.modes is None else self.modes
        distances = np.min([np.square(whitened - kind).sum(axis=1) for kind in kinds], axis=0)
        distances *= self.factor
        grid = tuple(side - self.patch + 1 for side in averaged.shape[2:])
        located: Float32 = distances.reshape(grid)
        return located

    def attach(self, graph: GraphBuilder, reduced: FeatureMap) -> tuple[int, int]:
        """Add one pool and one convolution, squares, and the largest."""
        channels, height, width = reduced.shape
        features = graph.add("Sub", reduced.name, graph.constant("head.mean", self.mean[None]))
        if self.window != (1, 1):
            features = graph.add("AveragePool", features, kernel_shape=list(self.window), strides=[1, 1])
        kernel = self.whitening.reshape(-1, channels, self.patch, self.patch)
        whitened = graph.add("Conv", features, graph.constant("head.whitening", kernel))
        distances = graph.add("ReduceSum", graph.add("Mul", whitened, whitened), graph.ints(1), keepdims=0)
        if self.modes is not None:
            distances = self._attach_modes(graph, whitened, distances)
        if self.factor != 1.0:
            distances = graph.add("Mul", distances, graph.floats(self.factor))
        graph.add("Identity", distances, output="map")
        graph.add("ReduceMax", "map", axes=[1, 2], keepdims=0, output="score")
        rows, columns = (
            side - window - self.patch + 2 for side, window in zip((height, width), self.window, strict=True)
        )
        return rows, columns

    def _attach_modes(self, graph: GraphBuilder, whitened: str, squares: str) -> str:
        """|w|^2 + min over kinds of |m|^2 - 2 w.m, as one more convolution: K differences would fill the memory."""
        assert self.modes is not None  # noqa: S101 - see the caller
        kernel = graph.constant("head.modes", -2 * self.modes[:, :, None, None])
        lengths = graph.constant("head.lengths", np.square(self.modes).sum(axis=1))
        nearest = graph.add("ReduceMin", graph.add("Conv", whitened, kernel, lengths), axes=[1], keepdims=0)
        return graph.add("Relu", graph.add("Add", squares, nearest))  # rounding may take it below zero


@dataclass(frozen=True, slots=True)
class Hotelling:
    """The detector and its parameters; sizes are in pixels of the network input.

    Attributes:
        patch_px: R, side of a patch. The backbone's cells allow R0 + (k - 1) tau (eq. 12).
        region_px: A, side of the region over which patches are averaged: rho = 1 + (A - R) / tau patches (eq. 8).
        location: ``local`` compares each region with the mean of the good images there (eqs. 9 to 11); ``shared`` with
            one mean of all patches, for parts whose position varies. ``global`` compares the whole image, as one
            ensemble of patches (eq. 6).
        modes: Means of kinds of good patches that all regions share: averaged patches, each as far as possible from
            those chosen before. 1: the mean.
    """

    name: ClassVar[str] = "hotelling"
    memory_advice: ClassVar[str] = "a smaller patch_px"

    patch_px: int = 64
    region_px: int = 80
    location: Literal["local", "shared", "global"] = "local"
    modes: int = 1

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.location not in {"local", "shared", "global"}:
            raise SettingError(what=f"location = {self.location!r} is not known", remedy="give local, shared or global")
        if self.modes < 1:
            raise SettingError(what=f"modes = {self.modes} is too small", remedy="give 1 or more")

    def reduce(self, graph: GraphBuilder, levels: Sequence[FeatureMap], features: FeatureMap) -> FeatureMap:
        """Keep the features: cells are joined, and averaged, where statistics and head need them."""
        del graph, levels
        return features

    def on_grid(self, cell: GridCell, grid: tuple[int, int]) -> HotellingOnGrid:
        """The detector with its sizes in cells of this grid, (h, w).

        Raises:
            SettingError: The cells do not allow these sizes.
        """
        patch = _whole_steps("patch_px", self.patch_px, cell.patch_px, cell)
        averaging = 1 if self.location == "global" else _whole_steps("region_px", self.region_px, self.patch_px, cell)
        if patch + averaging - 1 > min(grid):
            name, given = ("patch_px", self.patch_px) if self.location == "global" else ("region_px", self.region_px)
            largest = cell.patch_px + (min(grid) - 1) * cell.stride_px
            raise SettingError(
                what=f"{name} = {given} is larger than the {grid[0]}x{grid[1]} cells of the image",
                remedy=f"give {largest} or less, or a larger --size",
            )
        return HotellingOnGrid(**asdict(self), patch=patch, averaging=averaging, cell=cell)

    def memory_mib(self, reduced: tuple[int, int, int], images: int) -> float:
        """See ``HotellingOnGrid``."""
        raise NotImplementedError

    def fit(self, store: Features, folds: Folds, levels: Sequence[int]) -> Fit:
        """See ``HotellingOnGrid``."""
        raise NotImplementedError


def _whole_steps(name: str, given: int, first: int, cell: GridCell) -> int:
    """Number n with given = first + (n - 1) tau.

    Raises:
        SettingError: There is none.
    """
    steps, rest = divmod(given - first, cell.stride_px)
    if rest or steps < 0:
        possible = ", ".join(str(first + step * cell.stride_px) for step in range(_SUGGESTED))
        raise SettingError(
            what=f"{name} = {given} is not possible with this backbone: a cell of its grid stands for {cell.patch_px} "
            f"pixels, and the next one begins {cell.stride_px} pixels further",
            remedy=f"give {possible} or so on, or another backbone or stage",
        )
    return steps + 1


@dataclass(frozen=True, slots=True)
class HotellingOnGrid(Hotelling):
    """The detector for the cells of one backbone.

    Attributes:
        patch: k, side of a patch in cells.
        averaging: rho, side of a region in patches.
        cell: A cell in pixels.
    """

    patch: int = field(kw_only=True)
    averaging: int = field(kw_only=True)
    cell: GridCell = field(kw_only=True)

    def memory_mib(self, reduced: tuple[int, int, int], images: int) -> float:
        """A batch, and while patches are summed, or a matrix is inverted, the sums of all images and two heads.

        Several means are chosen from a sample in three copies.
        """
        channels, height, width = reduced
        length = channels * self.patch**2
        rows = max(_ROWS, height * width)
        summing = 2 * 8 * length**2 + (2 * 8 + 2 * 4) * rows * length
        inverting = (4 * 8 + 4) * length**2
        kinds = 0 if self.modes == 1 else 3 * min(_CANDIDATES, images * height * width) * length
        batch = 2 * batch_images(reduced, images) * channels * height * width
        return (max(summing, inverting) + 2 * 4 * length**2 + 4 * (kinds + batch)) / 2**20

    def fit(self, store: Features, folds: Folds, levels: Sequence[int]) -> Fit:
        """Fit from sums over all patches; held-out scores come from these without those of a fold."""
        del levels
        counts = [len(group) for group in folds.groups]
        sums = [_sum_of(store, group) for group in folds.groups]
        mean = np.sum(sums, axis=0) / sum(counts)
        others = ((mean * sum(counts) - each) / (sum(counts) - count) for each, count in zip(sums, counts, strict=True))
        total = self._patch_sums(store, folds.images, joined(mean[None], self.patch)[0].mean(axis=0))
        nothing = ShrinkageSums.around(total.origin)
        head, share = self._head(store, folds.images, mean, total.without(nothing))
        del nothing
        parameters: dict[str, Any] = {**asdict(self), "shrinkage": share}
        cell = parameters.pop("cell")
        parameters |= {f"cell_{name}": value for name, value in cell.items() if value is not None}
        return Fit(head, self._held_out(store, folds, others, total), parameters)

    def _held_out(
        self, store: Features, folds: Folds, means: Iterable[Float64], total: ShrinkageSums
    ) -> Iterator[HotellingHead]:
        for group, others, mean in zip(folds.groups, folds.complements(), means, strict=True):
            # Nothing but the head is kept while its images are scored.
            yield self._head(store, others, mean, total.without(self._patch_sums(store, group, total.origin)))[0]

    def _patch_sums(self, store: Features, images: Sequence[int], origin: Float64) -> ShrinkageSums:
        """Sums over all patches of some images, several images at a time."""
        sums = ShrinkageSums.around(origin)
        patches = int(np.prod(self._patches(store.shape)))
        together = max(1, _ROWS // patches)
        for batch in store.batches(images):
            for start in range(0, len(batch), together):
                rows = joined(batch[start : start + together], self.patch)
                sums.update(rows.reshape(-1, rows.shape[2]))
        return sums

    def _patches(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """Rows and columns of patches of an image with features (c, h, w)."""
        return shape[1] - self.patch + 1, shape[2] - self.patch + 1

    def _head(
        self, store: Features, images: Sequence[int], mean: Float64, sums: ShrinkageSums
    ) -> tuple[HotellingHead, float]:
        """The head for the patches of some images, whose mean features are (c, h, w), and the share of the identity."""
        covariance, share = sums.shrunk_covariance()
        if not covariance.any():
            raise identical_features_error()
        whitening = inverse_cholesky(covariance[None])[0].astype(np.float32)
        whole = self._patches(store.shape)
        window, factor = (self.averaging, self.averaging), 1.0
        if self.location == "global":
            window, factor = whole, float(np.prod(whole))
        if self.location != "shared" and self.modes == 1:
            return HotellingHead(mean.astype(np.float32), whitening, self.patch, window, factor), share
        channel_mean = mean.mean(axis=(1, 2), keepdims=True).astype(np.float32)
        if self.modes > 1:
            modes = self._modes(store, images, channel_mean, window)
        else:
            modes = joined((mean - channel_mean)[None], self.patch).mean(axis=1).astype(np.float32)
        return HotellingHead(channel_mean, whitening, self.patch, window, factor, modes @ whitening.T), share

    def _modes(self, store: Features, images: Sequence[int], mean: Float32, window: tuple[int, int]) -> Float32:
        """Averaged patches that cover the others, less the mean, (K, d)."""
        rows, columns = (side - step + 1 for side, step in zip(self._patches(store.shape), window, strict=True))
        length = store.shape[0] * self.patch**2
        patches = (
            joined(averages((each - mean)[None], window), self.patch).transpose(0, 2, 1)
            for batch in store.batches(images)
            for each in batch
        )
        shape = (len(images) * rows * columns, length)
        drawn = sample(patches, shape, _CANDIDATES, np.random.default_rng(_SEED))
        chosen: Float32 = drawn[greedy_coreset(drawn - drawn.mean(axis=0), min(self.modes, len(drawn)))]
        return chosen


def _sum_of(store: Features, images: Sequence[int]) -> Float64:
    """Sum of the features of some images, (c, h, w)."""
    total = np.zeros(store.shape)
    for batch in store.batches(images):
        total += batch.sum(axis=0, dtype=np.float64)
    return total


def averages(features: Float32, window: tuple[int, int]) -> Float32:
    """Means of (n, c, h, w) over a window, stride 1, no padding."""
    means: Float32 = sliding_window_view(features, window, axis=(2, 3)).mean(axis=(4, 5))
    return means


def joined(features: NDArray[np.floating], patch: int) -> NDArray[np.floating]:
    """Vectors of all patches of ``patch`` x ``patch`` cells, (n, patches, c * patch * patch)."""
    windows = sliding_window_view(features, (patch, patch), axis=(2, 3))
    count, channels, rows, columns = windows.shape[:4]
    vectors: NDArray[np.floating] = windows.transpose(0, 2, 3, 1, 4, 5).reshape(
        count, rows * columns, channels * patch**2
    )
    return vectors
