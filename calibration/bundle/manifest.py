"""The manifest of a bundle: what it is, how it was made, and the hash of each of its files."""

from __future__ import annotations

import platform
from importlib.metadata import version
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel, ConfigDict

if TYPE_CHECKING:
    from calibration.statistics.threshold import WorkingPoint

SCHEMA_VERSION = 1


def software_versions() -> dict[str, str]:
    """Versions of what makes a bundle."""
    packages = ("shiftwatch", "numpy", "onnx", "onnxruntime")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class RegionRecord(_Record):
    """Region of interest, in frame pixels."""

    x: int
    y: int
    width: int
    height: int


class AlignmentRecord(_Record):
    """How far the region follows the part, and how far good parts were displaced, in frame pixels.

    ``least_prominence`` is that of a peak that is believed, null where nothing stands still and no region is moved.
    Median and 99th percentile are of the ``followed`` parts, along the side of the frame where each was farther off.
    """

    limit_px: int
    least_prominence: float | None
    followed: int
    too_far: int
    not_found: int
    median_px: float | None
    p99_px: float | None


class IgnoredRecord(_Record):
    """What is painted over: its share of the network input, and the colour (BGR) of each connected area."""

    share: float
    colours: tuple[tuple[int, int, int], ...]


class PreprocessRecord(_Record):
    """How a frame becomes network input; the division by brightness is inside the network.

    ``frame_size`` is (rows, columns), null where any will do.
    """

    height: int
    width: int
    region: RegionRecord | None
    divide_brightness: bool
    frame_size: tuple[int, int] | None = None
    alignment: AlignmentRecord | None = None
    ignored: IgnoredRecord | None = None


class BackboneRecord(_Record):
    """Where the features come from."""

    name: str
    stages: tuple[str, ...]
    weights_sha256: tuple[str, ...]
    channels: int
    grid: tuple[int, int]


class DetectorRecord(_Record):
    """Method and parameters."""

    name: str
    parameters: dict[str, bool | int | float | str]


class WorkingPointRecord(_Record):
    """Threshold and promise.

    ``interval`` is the 95 % interval of the false-reject rate; ``folds`` how often a part of the images was held out;
    ``chi_square`` the threshold if features were Gaussian, for comparison, null where the detector has no such law.
    """

    threshold: float
    false_reject_rate: float
    interval: tuple[float, float]
    method: str
    folds: int
    chi_square: float | None = None

    @classmethod
    def of(cls, point: WorkingPoint, folds: int, chi_square: float | None) -> WorkingPointRecord:
        """As it was found."""
        return cls(
            threshold=point.threshold,
            false_reject_rate=point.false_reject_rate,
            interval=point.interval,
            method=point.method,
            folds=folds,
            chi_square=chi_square,
        )


class TrialRecord(_Record):
    """One setting that was tried, and its AUROC against synthetic defects."""

    backbone: str
    divide_brightness: bool
    detector: str
    auroc: float


class ChoiceRecord(_Record):
    """How settings were chosen from the data; ``complete`` if the time was enough for all."""

    reason: str
    complete: bool
    trials: tuple[TrialRecord, ...]


class ImagesRecord(_Record):
    """What was learnt from."""

    source: str
    count: int
    skipped: tuple[str, ...]
    left_out: tuple[str, ...] = ()


class ParentRecord(_Record):
    """A bundle that went into a merged one: its identity, where its images lay, how many, and what each weighs."""

    identity: str
    sources: tuple[str, ...]
    images: int
    weight: float


class MergeRecord(_Record):
    """What a merged bundle was made of.

    ``effective_images``: so many images of equal weight say as much; ``rescored``: of the scores that the threshold is
    made of so many are exact, the others are estimates.
    """

    parents: tuple[ParentRecord, ...]
    effective_images: float
    rescored: int


class UpdateRecord(_Record):
    """How a device learnt on.

    ``parent``: identity of the bundle that it began with; ``parts``: that it collected; ``old_weight``: what an image
    of the parent counted against one of them; ``effective_images``: so many of equal weight say as much.
    """

    mode: Literal["threshold", "mean", "full", "teach"]
    parent: str
    parts: int
    old_weight: float | None
    effective_images: float


class Manifest(_Record):
    """What a bundle is."""

    schema_version: Literal[1] = 1
    created_at: str
    software: dict[str, str]
    images: ImagesRecord
    preprocess: PreprocessRecord
    augment: int = 0
    backbone: BackboneRecord
    detector: DetectorRecord
    working_point: WorkingPointRecord
    choice: ChoiceRecord | None = None
    merge: MergeRecord | None = None
    relearning: UpdateRecord | None = None
    golden_tolerance: float
    files: dict[str, str] = {}

    @property
    def sources(self) -> tuple[str, ...]:
        """Where the images lay."""
        if self.merge is None:
            return (self.images.source,)
        return tuple(dict.fromkeys(source for parent in self.merge.parents for source in parent.sources))

    @property
    def effective_images(self) -> float:
        """So many images of equal weight say as much as those learnt from."""
        made = self.merge or self.relearning
        return self.images.count if made is None else made.effective_images
