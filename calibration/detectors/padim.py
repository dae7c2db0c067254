"""PaDiM (Defard et al. 2021): a Gaussian at every location, over a random choice of channels."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from itertools import repeat
from math import inf
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from calibration.detectors import fold_moments
from calibration.detectors.embedding import join_levels
from calibration.detectors.feature_store import batch_images
from calibration.detectors.head import WhiteningHead
from calibration.errors import SettingError
from calibration.onnx_graph import FeatureMap
from calibration.statistics.covariance import whitening
from calibration.statistics.leave_one_out import LeaveOneOut
from calibration.statistics.smoothing import Smoothing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from calibration.detectors.contract import Fit, Folds
    from calibration.detectors.feature_store import Features
    from calibration.detectors.head import Scorer
    from calibration.onnx_graph import GraphBuilder
    from calibration.statistics.moments import Moments

_REGULARISER = 0.01  # section III-B of the paper
_SEED = 0


@dataclass(frozen=True, slots=True)
class Padim:
    """The detector and its parameters.

    Attributes:
        dimensions: Channels to keep, chosen at random (section III-C of the paper: 100 of ResNet18's 448); None keeps
            all.
        smoothing: Sigma, in pixels of the network input, of the Gaussian that blurs the map (section IV-B: 4), enlarged
            to the input's size first; the score is then the largest of the blurred distances. None: the map has the
            features' grid and holds their squares.
    """

    name: ClassVar[str] = "padim"
    memory_advice: ClassVar[str] = "fewer dimensions (--detector padim:dimensions=50)"

    dimensions: int | None = 100
    smoothing: int | None = None

    def __post_init__(self) -> None:
        """Refuse values outside their range."""
        if self.dimensions is not None and self.dimensions < 1:
            raise SettingError(what=f"dimensions = {self.dimensions} is too small", remedy="give 1 or more")
        if self.smoothing is not None and self.smoothing < 1:
            raise SettingError(what=f"smoothing = {self.smoothing} is too small", remedy="give 1 pixel or more, e.g. 4")

    def on_image(self, size: tuple[int, int]) -> Padim:
        """The detector for a network input of this size, (height, width)."""
        return PadimOnImage(self.dimensions, self.smoothing, *size) if self.smoothing else self

    def reduce(self, graph: GraphBuilder, levels: Sequence[FeatureMap], features: FeatureMap) -> FeatureMap:
        """Keep the chosen channels; a cell of a coarser level is copied to all that it covers (section III-A)."""
        joined = features
        if len({level.shape[1:] for level in levels}) > 1:
            joined = join_levels(graph, levels, copied=True)
        channels, *grid = joined.shape
        if self.dimensions is None or self.dimensions >= channels:
            return joined
        chosen = np.sort(np.random.default_rng(_SEED).choice(channels, self.dimensions, replace=False))
        name = graph.add("Gather", joined.name, graph.ints(*chosen.tolist()), axis=1)
        return FeatureMap(name, (self.dimensions, grid[0], grid[1]))

    def memory_mib(self, reduced: tuple[int, int, int], images: int) -> float:
        """Mostly covariances; and the smoothed maps of a batch, some of them twice."""
        size = (0, 0) if self._smoothing is None else self._smoothing.size
        smoothed = 3 * batch_images(reduced, images) * size[0] * size[1] * 4 / 2**20
        return fold_moments.memory_mib(reduced, images, reduced[1] * reduced[2]) + smoothed

    @property
    def _smoothing(self) -> Smoothing | None:
        assert self.smoothing is None  # noqa: S101 - see ``on_image``
        return None

    def fit(self, store: Features, folds: Folds, levels: Sequence[int]) -> Fit:
        """Fit from the moments of all images; see ``head``."""
        del levels
        held_out: Iterator[Scorer]
        if folds.independent:
            total = store.moments(folds.images, self.vectors)
            held_out = repeat(self.leave_one_out_scorer(total, None), len(folds.groups))
        else:
            total, held_out = fold_moments.moments_and_fold_heads(self, store, folds)
        return fold_moments.moment_fit(self, store, total, held_out, leave_one_out=folds.independent)

    def vectors(self, reduced: NDArray[np.float32]) -> NDArray[np.float32]:
        """(n, d, h, w) as vectors of each location: (locations, n, d)."""
        return fold_moments.by_location(reduced)

    def head(self, moments: Moments) -> WhiteningHead:
        """The head for these moments: Sigma_l = C_l + 0.01 I."""
        matrices = whitening(moments.covariance(), _regularised, np.float32)
        return WhiteningHead(moments.mean.astype(np.float32), matrices, smoothing=self._smoothing)

    def leave_one_out_scorer(
        self, moments: Moments, image: NDArray[np.float32] | None, weight: float = 1.0
    ) -> LeaveOneOut:
        """Scores images of these moments, each with this weight in them, as if the moments were without them."""
        del image
        return LeaveOneOut(
            moments, _regularised, own_weight=1.0, order=inf, image_weight=weight, smoothing=self._smoothing
        )

    def parameters(self, moments: Moments) -> dict[str, float | str | bool]:
        """The parameters in force, for the manifest."""
        given = {name: value for name, value in asdict(self).items() if value is not None}
        return {**given, "dimensions": moments.mean.shape[1]}


@dataclass(frozen=True, slots=True)
class PadimOnImage(Padim):
    """The detector with smoothed maps of this size, which is that of the network input."""

    map_height: int = 0
    map_width: int = 0

    @property
    def _smoothing(self) -> Smoothing | None:
        assert self.smoothing is not None  # noqa: S101 - see ``on_image``
        return Smoothing((self.map_height, self.map_width), self.smoothing)


def _regularised(covariances: NDArray[np.float64]) -> NDArray[np.float64]:
    regularised: NDArray[np.float64] = covariances + _REGULARISER * np.eye(covariances.shape[-1])
    return regularised
