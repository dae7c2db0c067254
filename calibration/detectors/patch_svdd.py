"""Patch SVDD (Yi and Yoon 2020): distance to the nearest good patch, for patches of two sizes, multiplied.

The encoders that make patches comparable are trained on the same good images (`torch_models.patch_svdd`), all of them:
what is held out for the threshold is held out of the memory banks only.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from calibration.detectors.contract import Fit
from calibration.detectors.feature_store import batch_images
from calibration.detectors.memory_bank import attach_comparison, greedy_coreset, sample, squared_lengths
from calibration.errors import SettingError
from calibration.onnx_graph import FeatureMap
from calibration.statistics.scores import Scores

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from calibration.detectors.contract import Folds
    from calibration.detectors.feature_store import Features
    from calibration.onnx_graph import GraphBuilder

    Float32 = NDArray[np.float32]

_SEED = 0


@dataclass(frozen=True, slots=True)
class PatchSize:
    """Patches of one size.

    Attributes:
        side: Of a patch, in pixels.
        stride: From one patch to the next, in pixels.
    """

    side: int
    stride: int

    @property
    def cells(self) -> int:
        """Side of a patch in steps."""
        return self.side // self.stride

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Patches of a frame whose sides, in pixels, are whole numbers of steps."""
        return height // self.stride + 1 - self.cells, width // self.stride + 1 - self.cells


FINE, COARSE = PatchSize(32, 4), PatchSize(64, 16)
_FINER = COARSE.stride // FINE.stride


@dataclass(frozen=True)
class PatchBank:
    """Good patches of one size.

    Features and bank are centred first: distances between far-away vectors would lose their digits in float32.

    Attributes:
        mean: (d,), float32, subtracted from the features.
        bank: (m, d), float32, centred.
    """

    mean: Float32
    bank: Float32

    def distances(self, features: Float32) -> Float32:
        """To the nearest entry, of each place of (d, h, w): (h, w)."""
        channels, height, width = features.shape
        patches = features.reshape(channels, -1).T - self.mean
        to_bank = patches @ (-2 * self.bank.T)
        to_bank += squared_lengths(self.bank)
        # A difference has more digits than that of two squares: a patch that is remembered has no distance at all.
        nearest: Float32 = np.linalg.norm(self.bank[to_bank.argmin(axis=1)] - patches, axis=1)
        return nearest.reshape(height, width)

    def attach(self, graph: GraphBuilder, features: FeatureMap, suffix: str) -> str:
        """The same as nodes: name of the distances, (1, 1, h, w)."""
        channels, height, width = features.shape
        places = height * width
        mean = graph.constant(f"head.mean{suffix}", self.mean[None, :, None, None])
        planes = graph.add("Reshape", graph.add("Sub", features.name, mean), graph.ints(channels, places))
        patches = graph.add("Transpose", planes, perm=[1, 0])
        to_bank = attach_comparison(graph, patches, places, self.bank, suffix)
        entry = graph.add("ArgMin", to_bank, axis=1, keepdims=0)
        nearest = graph.add("Gather", f"head.bank{suffix}", entry, axis=0)
        distances = graph.add("ReduceL2", graph.add("Sub", nearest, patches), axes=[1], keepdims=0)
        return graph.add("Reshape", distances, graph.ints(1, 1, height, width))


@dataclass(frozen=True)
class PatchSvddHead:
    """The product of both maps, in cells of ``FINE.stride`` pixels; the score is its largest value.

    A cell of a map has the mean distance of the patches that it lies in (section 3.4 of the paper).
    """

    fine: PatchBank
    coarse: PatchBank

    def scores(self, reduced: Float32) -> Scores:
        """In NumPy."""
        maps = np.stack([self._map(*split_levels(each)) for each in reduced])
        return Scores(maps.max(axis=(1, 2)), maps)

    def _map(self, fine: Float32, coarse: Float32) -> Float32:
        large = _spread(self.coarse.distances(coarse), COARSE.cells).repeat(_FINER, axis=0).repeat(_FINER, axis=1)
        product: Float32 = _spread(self.fine.distances(fine), FINE.cells) * large
        return product

    def attach(self, graph: GraphBuilder, reduced: FeatureMap) -> tuple[int, int]:
        """Both searches, both maps on the grid of the finer one, and their product."""
        fine, coarse = level_grids(reduced.shape)
        channels = reduced.shape[0]
        starts_ends = ((0, 0), fine), ((fine[0], 0), (fine[0] + coarse[0], coarse[1]))
        spread = []
        for bank, field, (start, end) in zip((self.fine, self.coarse), (FINE, COARSE), starts_ends, strict=True):
            axes = graph.ints(2, 3)
            part = graph.add("Slice", reduced.name, graph.ints(*start), graph.ints(*end), axes)
            shape = (channels, end[0] - start[0], end[1] - start[1])
            distances = bank.attach(graph, FeatureMap(part, shape), f".{field.side}")
            spread.append(_attach_spread(graph, distances, field.cells))
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
    """Parameters of the detector.

    Attributes:
        epochs: Of training, 1024 pairs of patches of each kind and size long; the authors' code takes 300 of a hundred
            pairs an image.
        svdd_weight: lambda of eq. 5, weight of the SVDD' loss against that of the position prediction. The authors'
            code has 1, and they advise 0.001 where that makes all features the same, as it does in short training.
        entries: Of each memory bank.
        candidates: Patches that a bank is chosen from, at random where there are more.
    """

    name: ClassVar[str] = "patch_svdd"
    memory_advice: ClassVar[str] = "fewer --frames"

    epochs: int = 20
    svdd_weight: float = 0.001
    entries: int = 2000
    candidates: int = 20_000

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.epochs < 1:
            raise SettingError(what=f"epochs = {self.epochs} is too few", remedy="give 1 or more")
        if not 0.0 <= self.svdd_weight < np.inf:
            raise SettingError(what=f"svdd_weight = {self.svdd_weight} is negative", remedy="give 0 or more, e.g. 1")

    def reduce(self, graph: GraphBuilder, levels: Sequence[FeatureMap], features: FeatureMap) -> FeatureMap:
        """Both levels in one picture: the rows of the coarse one below those of the fine one, filled up with zeros."""
        del features
        shapes = [level.shape for level in levels]
        together = _together(shapes)
        if shapes != [(together[0], *grid) for grid in level_grids(together)]:
            raise SettingError(
                what=f"patch_svdd cannot take the features of this backbone, {' and '.join(map(str, shapes))}",
                remedy="give it the encoders that --detector patch_svdd trains, or choose another detector",
            )
        fine, coarse = levels
        width = fine.shape[2] - coarse.shape[2]
        padded = graph.add("Pad", coarse.name, graph.ints(0, 0, 0, 0, 0, 0, 0, width))
        return FeatureMap(graph.add("Concat", fine.name, padded, axis=2), together)

    def memory_mib(self, reduced: tuple[int, int, int], images: int) -> float:
        """The numbers of the candidates and the candidates, the distances of a picture to a bank, and a batch."""
        channels, height, width = reduced
        total = images * height * width
        candidates = min(self.candidates, total)
        entries = min(self.entries, candidates)
        batch = 4 * batch_images(reduced, images) * channels * height * width
        numbers = 2 * total + candidates * (2 * channels + 4) + entries * (5 * channels + 2 * height * width)
        return 4 * (numbers + batch) / 2**20

    def fit(self, store: Features, folds: Folds, levels: Sequence[int]) -> Fit:
        """Both banks from all patches, and for each fold from those of the others; the encoders have seen all."""
        del levels
        held_out = (self._head(store, others) for others in folds.complements())
        return Fit(self._head(store, folds.images), held_out, asdict(self))

    def _head(self, store: Features, images: Sequence[int]) -> PatchSvddHead:
        return PatchSvddHead(self._bank(store, images, part=0), self._bank(store, images, part=1))

    def _bank(self, store: Features, images: Sequence[int], *, part: int) -> PatchBank:
        channels = store.shape[0]
        places = int(np.prod(level_grids(store.shape)[part]))
        batches = (split_levels(batch)[part] for batch in store.batches(images))
        shape = (len(images) * places, channels)
        patches = sample(batches, shape, self.candidates, np.random.default_rng(_SEED))
        mean = patches.mean(axis=0)
        patches -= mean
        return PatchBank(mean, patches[greedy_coreset(patches, min(self.entries, len(patches)))])


def level_grids(reduced: tuple[int, ...]) -> tuple[tuple[int, int], tuple[int, int]]:
    """(h, w) of the fine and of the coarse level that were put together into (..., rows, columns).

    A side of n coarse steps has n + 1 - 4 coarse patches, of 4 steps each, and 4 n + 1 - 8 fine ones, of 8.
    """
    rows, columns = reduced[-2:]
    steps = (rows + COARSE.cells + FINE.cells - 2) // (1 + _FINER), (columns + FINE.cells - 1) // _FINER
    fine_rows, fine_columns = (_FINER * each + 1 - FINE.cells for each in steps)
    coarse_rows, coarse_columns = (each + 1 - COARSE.cells for each in steps)
    return (fine_rows, fine_columns), (coarse_rows, coarse_columns)


def split_levels(reduced: Float32) -> tuple[Float32, Float32]:
    """(..., rows, columns) as the fine level, (..., h, w), and the coarse one, (..., h', w')."""
    (height, width), (_, coarse_width) = level_grids(reduced.shape)
    return reduced[..., :height, :width], reduced[..., height:, :coarse_width]


def _together(shapes: Sequence[tuple[int, int, int]]) -> tuple[int, int, int]:
    """The smallest that has room for the levels below each other."""
    return shapes[0][0], sum(shape[1] for shape in shapes), max(shape[2] for shape in shapes)


def _spread(distances: Float32, cells: int) -> Float32:
    """Mean over the patches that each cell lies in: (h, w) to (h + cells - 1, w + cells - 1)."""
    padded = np.pad(np.stack([distances, np.ones_like(distances)]), ((0, 0), *[(cells - 1, cells - 1)] * 2))
    total, count = sliding_window_view(padded, (cells, cells), axis=(1, 2)).sum(axis=(3, 4))
    mean: Float32 = total / count
    return mean


def _attach_spread(graph: GraphBuilder, distances: str, cells: int) -> str:
    border = [cells - 1] * 4
    return graph.add(
        "AveragePool", distances, kernel_shape=[cells, cells], strides=[1, 1], pads=border, count_include_pad=0
    )
