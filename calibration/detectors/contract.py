"""Detectors: one file a method. Each reduces features and learns the head of the fused network from good images."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from numpy.typing import NDArray

    from calibration.detectors.feature_store import Features
    from calibration.detectors.head import Head, Scorer
    from calibration.onnx_graph import FeatureMap, GraphBuilder
    from calibration.statistics.threshold import ScoreSampler


@dataclass(frozen=True)
class Folds:
    """A partition of the training images; each group is held out once.

    Attributes:
        groups: Indices of the images in each fold.
        independent: Images resemble each other no more than good parts do, unlike neighbours in a video. A detector
            that can leave out one image at a time may then do so.
    """

    groups: Sequence[Sequence[int]]
    independent: bool = False

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
    """What a detector learnt.

    Attributes:
        head: From all images.
        held_out: For each fold, what scores its images as if it had not seen them; made one at a time, while the
            store is open.
        parameters: Those in force, for the manifest: what was derived from the data stands here as a number.
        statistics: Arrays with which a device can learn on; empty where the method has none that can be added to.
        one_by_one: Each image was left out alone, not with its fold.
        law: Draws scores that good images would have if features were Gaussian and their moments known; None where
            the method has no such law.
    """

    head: Head
    held_out: Iterator[Scorer]
    parameters: Mapping[str, float | str | bool]
    statistics: Mapping[str, NDArray[Any]] = field(default_factory=dict)
    leave_one_out: bool = False
    gaussian_scores: ScoreSampler | None = None


class Detector(Protocol):
    """A method.

    Order of calls: ``reduce`` while the network for calibration is built, ``fit`` once the features of all images are
    stored, ``reduce`` again while the fused network is built.

    Attributes:
        smaller: What would make ``memory_mib`` less.
    """

    name: ClassVar[str]
    memory_advice: ClassVar[str]

    def reduce(self, graph: GraphBuilder, levels: Sequence[FeatureMap], features: FeatureMap) -> FeatureMap:
        """Add the nodes from features to what the statistics are made of.

        Args:
            graph: Where to.
            levels: Outputs of the backbones, each on its own grid.
            features: All of them on the grid of the first.

        Raises:
            SettingError: The features are too small for it.
        """

    def memory_mib(self, reduced: tuple[int, int, int], images: int) -> float:
        """What ``fit`` will take, for features reduced to (d, h, w)."""

    def fit(self, store: Features, folds: Folds, levels: Sequence[int]) -> Fit:
        """Learn from the reduced features of good images.

        Args:
            store: Their features.
            folds: Which images are held out together.
            levels: Channels of each level of the backbones.

        Raises:
            DegenerateFeaturesError: The images are too few or all alike.
        """


def detector_spec(detector: Detector) -> str:
    """Its name and the parameters that are not the defaults, as ``benchmark --detector`` takes them."""
    parameters: Any = detector  # a dataclass, which a protocol cannot say
    given = {each.name: (getattr(parameters, each.name), each.default) for each in fields(parameters)}
    changed = [f"{name}={value}" for name, (value, default) in given.items() if value != default]
    return ":".join(filter(None, [detector.name, ",".join(changed)]))
