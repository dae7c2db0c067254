"""Patch SVDD (Yi and Yoon 2020): product of the distances to the nearest good patches of two sizes.

The encoders that make patches comparable are trained on all good images (`torch_models.patch_svdd`). Images that are
held out for the threshold are held out of the memory banks only.

References:
    Yi and Yoon 2020, "Patch SVDD: Patch-level SVDD for Anomaly Detection and Segmentation", ACCV. What the paper leaves
    open is as in the authors' code, github.com/nuclearboy95/Anomaly-Detection-PatchSVDD-PyTorch.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, get_args

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from calibration.detectors.contract import Fit
from calibration.detectors.feature_store import batch_images
from calibration.detectors.memory_bank import AHEAD, MemoryBank, greedy_coreset, most_that_fit, sample, squared_lengths
from calibration.errors import SettingError
from calibration.onnx_graph import FeatureMap
from calibration.statistics.scores import Scores

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from calibration.detectors.contract import Folds
    from calibration.detectors.feature_store import Features
    from calibration.onnx_graph import GraphBuilder

    Float32 = NDArray[np.float32]
    _Real = TypeVar("_Real", bound=np.floating[Any])

EncoderKind = Literal["he", "paper", "raw"]

_SEED = 0
_SEARCHED = 2**14  # entries at a time: the distances of a frame's patches to a whole bank could take gigabytes


@dataclass(frozen=True, slots=True)
class PatchSize:
    """Size and spacing of patches.

    Attributes:
        side: Side of a patch, in pixels.
        stride: Distance from one patch to the next, in pixels.
    """

    side: int
    stride: int

    @property
    def cells(self) -> int:
        """Side of a patch in steps."""
        return self.side // self.stride

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches in an image whose sides, in pixels, are multiples of the stride."""
        return height // self.stride + 1 - self.cells, width // self.stride + 1 - self.cells


FINE, COARSE = PatchSize(32, 4), PatchSize(64, 16)
_FINER = COARSE.stride // FINE.stride


class PatchBank(MemoryBank):
    """Good patches of one size."""

    def distances(self, features: Float32) -> Float32:
        """Distance to the nearest entry at each location of (d, h, w): (h, w)."""
        patches = self.patches(features)
        nearest = np.min([part.part_distances(patches) for part in self._parts()], axis=0)
        return np.asarray(nearest).reshape(features.shape[1:])

    def part_distances(self, patches: Float32) -> Float32:
        """Distance of centred patches, (n, d), to the nearest entry: (n,)."""
        to_bank = patches @ (-2 * self.bank.T)
        to_bank += squared_lengths(self.bank)
        # The difference of vectors has more digits than that of squares: an entry of the bank has distance 0.
        nearest: Float32 = np.linalg.norm(self.bank[to_bank.argmin(axis=1)] - patches, axis=1)
        return nearest

    def attach_distances(self, graph: GraphBuilder, features: FeatureMap, suffix: str) -> str:
        """Add the nodes of ``distances``; returns the name of their output, (1, 1, h, w)."""
        parts = [
            part.attach_part(graph, features, f"{suffix}.{number}" if number else suffix)
            for number, part in enumerate(self._parts())
        ]
        nearest = graph.add("Min", *parts) if len(parts) > 1 else parts[0]
        return graph.add("Reshape", nearest, graph.ints(1, 1, *features.shape[1:]))

    def attach_part(self, graph: GraphBuilder, features: FeatureMap, suffix: str) -> str:
        """Add the nodes of ``part_distances`` of all locations; returns the name of their output, (h * w,)."""
        patches, to_bank = self.attach_search(graph, features, suffix)
        entry = graph.add("ArgMin", to_bank, axis=1, keepdims=0)
        nearest = graph.add("Gather", f"head.bank{suffix}", entry, axis=0)
        return graph.add("ReduceL2", graph.add("Sub", nearest, patches), axes=[1], keepdims=0)

    def _parts(self) -> Iterator[PatchBank]:
        """The bank in parts of a size whose distances to all patches of a frame fit into memory."""
        for start in range(0, len(self.bank), _SEARCHED):
            yield PatchBank(self.mean, self.bank[start : start + _SEARCHED])


@dataclass(frozen=True)
class PatchSvddHead:
    """The product of two maps, in cells of ``FINE.stride`` pixels; the score is its maximum.

    Each cell of a map has the mean distance of the patches that contain it (section 3.4 of the paper).
    """

    fine: PatchBank
    coarse: PatchBank

    def scores(self, reduced: Float32) -> Scores:
        """Map and score of images, (n, d, rows, columns)."""
        maps = np.stack([self._map(*split_levels(each)) for each in reduced])
        return Scores(maps.max(axis=(1, 2)), maps)

    def _map(self, fine: Float32, coarse: Float32) -> Float32:
        large = _spread(self.coarse.distances(coarse), COARSE.cells).repeat(_FINER, axis=0).repeat(_FINER, axis=1)
        product: Float32 = _spread(self.fine.distances(fine), FINE.cells) * large
        return product

    def attach(self, graph: GraphBuilder, reduced: FeatureMap) -> tuple[int, int]:
        """Add both searches, both maps on the grid of the finer one, and their product."""
        fine, coarse = level_grids(reduced.shape)
        channels = reduced.shape[0]
        starts_ends = ((0, 0), fine), ((fine[0], 0), (fine[0] + coarse[0], coarse[1]))
        spread = []
        for bank, field, (start, end) in zip((self.fine, self.coarse), (FINE, COARSE), starts_ends, strict=True):
            axes = graph.ints(2, 3)
            part = graph.add("Slice", reduced.name, graph.ints(*start), graph.ints(*end), axes)
            shape = (channels, end[0] - start[0], end[1] - start[1])
            distances = bank.attach_distances(graph, FeatureMap(part, shape), f".{field.side}")
            window, border = [field.cells] * 2, [field.cells - 1] * 4
            pooled = graph.add(
                "AveragePool", distances, kernel_shape=window, strides=[1, 1], pads=border, count_include_pad=0
            )
            spread.append(pooled)
        factors = graph.floats(1.0, 1.0, _FINER, _FINER)
        large = graph.add(
            "Resize",
            spread[1],
            "",
            factors,
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        )
        height, width = (side + FINE.cells - 1 for side in fine)
        product = graph.add("Mul", spread[0], large)
        graph.add("Reshape", product, graph.ints(1, height, width), output="map")
        graph.add("ReduceMax", "map", axes=[1, 2], keepdims=0, output="score")
        return height, width


@dataclass(frozen=True, slots=True)
class PatchSvdd:
    """The detector and its parameters.

    Attributes:
        steps: Length of the training; 0 leaves the encoders random. The authors' code takes 300 epochs of a hundred
            pairs per image, about 180,000 steps for 391 images.
        batch: Pairs of patches of each kind and size in a step. The authors' code has 64.
        svdd_weight: lambda of eq. 5, weight of the SVDD' loss against that of the position prediction. The default of
            the authors' code is 1, their example has 0.001.
        encoders: "he": standardised images, weights drawn by He et al. 2015. "paper": as the authors' code, the mean
            image is subtracted pixel by pixel, and weights are drawn by torch's default, the last ones of the position
            prediction scaled and not trained. "raw": no encoders; a patch is compared by 8x8 means of its pixels.
        entries: Largest size of each memory bank; None: all patches, as in the paper, or as many of them, drawn at
            random, as the memory allows.
        candidates: Number of patches, drawn at random, that a smaller bank is chosen from to cover them; None: all, or
            as many as the memory allows.
    """

    name: ClassVar[str] = "patch_svdd"
    memory_advice: ClassVar[str] = "fewer --frames, fewer entries"

    steps: int = 20_000
    batch: int = 4
    svdd_weight: float = 0.001
    encoders: EncoderKind = "he"
    entries: int | None = 2000
    candidates: int | None = None

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.steps < 0:
            raise SettingError(what=f"steps = {self.steps} is negative", remedy="give 0 or more, e.g. 20000")
        for name, value in (("batch", self.batch), ("entries", self.entries), ("candidates", self.candidates)):
            if value is not None and value < 1:
                raise SettingError(what=f"{name} = {value} is too few", remedy="give 1 or more")
        if not 0.0 <= self.svdd_weight < np.inf:
            raise SettingError(what=f"svdd_weight = {self.svdd_weight} is negative", remedy="give 0 or more, e.g. 1")
        if self.encoders not in get_args(EncoderKind):
            raise SettingError(
                what=f"encoders = {self.encoders!r} are not known",
                remedy=f"give one of {', '.join(get_args(EncoderKind))}",
            )

    def reduce(self, graph: GraphBuilder, levels: Sequence[FeatureMap], features: FeatureMap) -> FeatureMap:
        """Put both levels into one map: the rows of the coarse one below those of the fine one, padded with zeros."""
        del features
        shapes = [level.shape for level in levels]
        stacked = shapes[0][0], sum(shape[1] for shape in shapes), max(shape[2] for shape in shapes)
        if shapes != [(stacked[0], *grid) for grid in level_grids(stacked)]:
            raise SettingError(
                what=f"patch_svdd cannot take the features of this backbone, {' and '.join(map(str, shapes))}",
                remedy="give it the encoders that --detector patch_svdd trains, or choose another detector",
            )
        fine, coarse = levels
        width = fine.shape[2] - coarse.shape[2]
        padded = graph.add("Pad", coarse.name, graph.ints(0, 0, 0, 0, 0, 0, 0, width))
        return FeatureMap(graph.add("Concat", fine.name, padded, axis=2), stacked)

    def memory_mib(self, reduced: tuple[int, int, int], images: int) -> float:
        """The patches drawn and what their choice computes, the banks, the distances to a part of one, and a batch."""
        channels, height, width = reduced
        total = images * height * width
        drawn = self._drawn(total)
        entries = min(self.entries or total, drawn)
        batch = 4 * batch_images(reduced, images) * channels * height * width
        choice = 0 if entries == drawn else drawn * (AHEAD + 8)
        searched = min(entries, _SEARCHED) * (3 * channels + 2 * height * width)
        numbers = 2 * total + drawn * (channels + 4) + choice + entries * 3 * channels + searched
        return 4 * (numbers + batch) / 2**20

    def within(self, limit_mib: float, reduced: tuple[int, int, int], images: int) -> PatchSvdd:
        """The same with as many patches as this memory allows, if their number was not given."""
        total = images * int(np.prod(reduced[1:]))
        numbers = range(1, total + 1)
        most = most_that_fit(numbers, limit_mib, lambda each: self._of(each).memory_mib(reduced, images))
        given = self.entries is not None and self.candidates is not None
        return self if given or most is None else self._of(most)

    def _of(self, patches: int) -> PatchSvdd:
        return replace(self, entries=self.entries or patches, candidates=self.candidates or patches)

    def _drawn(self, total: int) -> int:
        """Patches that a bank is chosen from, or is made of if it has room for all of them."""
        return min(max(self.entries or total, self.candidates or total), total)

    def fit(self, store: Features, folds: Folds, levels: Sequence[int]) -> Fit:
        """Choose both banks from all patches, and for each fold from those of the other folds."""
        del levels
        head = self._head(store, folds.images)
        held_out = (self._head(store, others) for others in folds.complements())
        patches = int(np.prod(level_grids(store.shape)[0])) * len(folds.images)
        banks = {f"bank_{field.side}": len(bank.bank) for field, bank in ((FINE, head.fine), (COARSE, head.coarse))}
        counts = {"entries": self.entries or patches, "candidates": self._drawn(patches), "patches": patches, **banks}
        return Fit(head, held_out, {**asdict(self), **counts})

    def _head(self, store: Features, images: Sequence[int]) -> PatchSvddHead:
        return PatchSvddHead(self._bank(store, images, level=0), self._bank(store, images, level=1))

    def _bank(self, store: Features, images: Sequence[int], *, level: int) -> PatchBank:
        channels = store.shape[0]
        locations = int(np.prod(level_grids(store.shape)[level]))
        batches = (split_levels(batch)[level] for batch in store.batches(images))
        shape = (len(images) * locations, channels)
        patches = sample(batches, shape, self._drawn(shape[0]), np.random.default_rng(_SEED))
        mean = patches.mean(axis=0)
        patches -= mean
        entries = self.entries or len(patches)
        return PatchBank(mean, patches if len(patches) <= entries else patches[greedy_coreset(patches, entries)])


def refuse_unfit_size(height: int, width: int) -> None:
    """Raise SettingError unless patches of both sizes fit into a network input of this size without a rest."""
    if height % COARSE.stride or width % COARSE.stride or min(height, width) < COARSE.side:
        raise SettingError(
            what=f"patch_svdd cannot take a network input of {height}x{width}",
            remedy=f"give sides of at least {COARSE.side} that are multiples of {COARSE.stride}, e.g. 224x224",
        )


def level_grids(reduced: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(h, w) of the fine and of the coarse level that ``PatchSvdd.reduce`` stacked into (..., rows, columns).

    A side of n coarse steps has n + 1 - 4 coarse patches, of 4 steps each, and 4 n + 1 - 8 fine ones, of 8.
    """
    rows, columns = reduced[-2:]
    steps = (rows + COARSE.cells + FINE.cells - 2) // (1 + _FINER), (columns + FINE.cells - 1) // _FINER
    fine_rows, fine_columns = (_FINER * each + 1 - FINE.cells for each in steps)
    coarse_rows, coarse_columns = (each + 1 - COARSE.cells for each in steps)
    return (fine_rows, fine_columns), (coarse_rows, coarse_columns)


def split_levels(reduced: NDArray[_Real]) -> tuple[NDArray[_Real], NDArray[_Real]]:
    """Split (..., rows, columns) into the fine level, (..., h, w), and the coarse one, (..., h', w')."""
    (height, width), (_, coarse_width) = level_grids(reduced.shape)
    return reduced[..., :height, :width], reduced[..., height:, :coarse_width]


def _spread(distances: Float32, cells: int) -> Float32:
    """Mean over the patches that contain each cell: (h, w) to (h + cells - 1, w + cells - 1)."""
    padded = np.pad(np.stack([distances, np.ones_like(distances)]), ((0, 0), *[(cells - 1, cells - 1)] * 2))
    total, count = sliding_window_view(padded, (cells, cells), axis=(1, 2)).sum(axis=(3, 4))
    mean: Float32 = total / count
    return mean
