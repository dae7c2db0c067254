"""The interface of detectors, which reduce features and fit the head of the fused network to good images."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    import numpy as np
    from numpy.typing import NDArray

    from calibration.detectors.feature_store import Features
    from calibration.detectors.head import Head, Scorer, WhiteningHead
    from calibration.onnx_graph import FeatureMap, GraphBuilder
    from calibration.statistics.moments import Moments


@dataclass(frozen=True)
class Folds:
    """A partition of the training images; each group is held out once.

    Attributes:
        groups: Indices of the images in each fold.
        independent: Images resemble each other no more than good parts do, unlike neighbours in a video. A detector
            that can leave out one image at a time may then do so.
        parts: Number of different parts that the images show; None if each is taken for another one.
    """

    groups: Sequence[Sequence[int]]
    independent: bool = False
    parts: int | None = None

    @property
    def images(self) -> list[int]:
        """Indices of all images, sorted."""
        return sorted(index for group in self.groups for index in group)

    def complements(self) -> Iterator[list[int]]:
        """For each fold, the images of all other folds."""
        for held in range(len(self.groups)):
            yield sorted(index for fold, group in enumerate(self.groups) if fold != held for index in group)


@dataclass(frozen=True)
class Fit:
    """The result of fitting a detector.

    Attributes:
        head: Fitted to all images.
        held_out: For each fold, a scorer that has not seen its images; made one at a time, while the store is open.
        parameters: Parameters in force, for the manifest.
        statistics: Arrays with which a device can update the bundle; empty if the method has none that can be added.
        leave_one_out: Each image was left out alone, not with its fold.
        gaussian_threshold: The score that a share of good images exceeds if features are Gaussian with known moments,
            or None if the share is too low to simulate; None if the method has no such law.
    """

    head: Head
    held_out: Iterator[Scorer]
    parameters: Mapping[str, float | str | bool]
    statistics: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    leave_one_out: bool = False
    gaussian_threshold: Callable[[float], float | None] | None = None


class Detector(Protocol):
    """A detection method.

    Order of calls: ``reduce`` while the network for calibration is built, ``fit`` once the features of all images are
    stored, ``reduce`` again while the fused network is built.

    Attributes:
        memory_advice: What reduces ``memory_mib``, for people.
    """

    name: ClassVar[str]
    memory_advice: ClassVar[str]

    def reduce(self, graph: GraphBuilder, levels: Sequence[FeatureMap], features: FeatureMap) -> FeatureMap:
        """Add the nodes that turn features into the vectors of the statistics.

        Args:
            graph: The graph to extend.
            levels: Outputs of the backbones, each on its own grid.
            features: All levels on the grid of the first.

        Raises:
            SettingError: The grid of the features is too small.
        """

    def memory_mib(self, reduced: tuple[int, int, int], images: int) -> float:
        """Memory that ``fit`` takes, for features reduced to (d, h, w)."""

    def fit(self, store: Features, folds: Folds, levels: Sequence[int]) -> Fit:
        """Fit to the reduced features of good images.

        Args:
            store: The features.
            folds: Images that are held out together.
            levels: Channels of each level of the backbones.

        Raises:
            DegenerateFeaturesError: There are too few images, or they are all alike.
        """


class AdditiveDetector(Detector, Protocol):
    """A detector that needs nothing but moments."""

    def vectors(self, reduced: NDArray[np.float32]) -> NDArray[np.float32]:
        """The vectors that the moments are of: (n, d, h, w) as (locations, vectors, d)."""

    def head(self, moments: Moments) -> WhiteningHead:
        """The head for these moments.

        Raises:
            DegenerateFeaturesError: Fewer than two images, or all alike.
        """

    def leave_one_out_scorer(self, moments: Moments, image: NDArray[np.float32] | None, weight: float = 1.0) -> Scorer:
        """Scores an image, (1, d, h, w), with this weight in the moments, as if the moments were without it.

        None scores any of them, almost as if: what is pooled over locations keeps a share of it.
        """

    def parameters(self, moments: Moments) -> Mapping[str, bool | int | float | str]:
        """The parameters in force, for the manifest."""


def detector_spec(detector: Detector) -> str:
    """Name and non-default parameters, as ``benchmark --detector`` takes them."""
    parameters: Any = detector  # a dataclass, which a protocol cannot express
    given = {each.name: (getattr(parameters, each.name), each.default) for each in fields(parameters)}
    changed = [f"{name}={value}" for name, (value, default) in given.items() if value != default]
    return ":".join(filter(None, [detector.name, ",".join(changed)]))
