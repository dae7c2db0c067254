"""The manifest of a bundle: how it was made, and the hash of each of its files."""

from __future__ import annotations

import platform
from dataclasses import asdict
from datetime import datetime
from importlib.metadata import version
from typing import TYPE_CHECKING, Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from calibration.imaging.region import Region
from calibration.plain_text import printable

if TYPE_CHECKING:
    from calibration.statistics.forecast import Forecast
    from calibration.statistics.threshold import WorkingPoint

SCHEMA_VERSION = 1
LARGEST_TOLERANCE = 0.05
_NAMED = 10
Pixels: TypeAlias = Annotated[int, Field(ge=1, le=16384)]
Count: TypeAlias = Annotated[int, Field(ge=1, le=2**31)]
Share: TypeAlias = Annotated[float, Field(ge=0, le=1)]


def _time(text: str) -> str:
    datetime.fromisoformat(text)  # a ValueError of its own
    return text


Time: TypeAlias = Annotated[str, AfterValidator(_time)]

_Name: TypeAlias = Annotated[str, BeforeValidator(lambda name: printable(name) if isinstance(name, str) else name)]
"""Name of a file or folder for people: JSON has no place for bytes that are not UTF-8."""


def software_versions() -> dict[str, str]:
    """Versions of the software that makes a bundle."""
    packages = ("shiftwatch", "numpy", "onnx", "onnxruntime")
    return {"python": platform.python_version(), **{name: version(name) for name in packages}}


class _Record(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


class AlignmentRecord(_Record):
    """How far the region follows the part, and how far good parts were displaced, in frame pixels.

    A correlation peak counts above ``least_prominence``; null if the parts share no fixed structure, and then the
    region is never moved. Median and 99th percentile are of the ``followed`` parts, each along the axis of its larger
    displacement.
    """

    limit_px: int
    least_prominence: float | None
    followed: int
    too_far: int
    not_found: int
    median_px: float | None
    p99_px: float | None


class IgnoredRecord(_Record):
    """Ignored areas: their share of the network input, and the colour (BGR) of each connected area."""

    share: float
    colours: tuple[tuple[int, int, int], ...]


class PreprocessRecord(_Record):
    """How a frame becomes network input; the division by brightness is inside the network.

    ``frame_size`` is (rows, columns), null for any; ``averages_each_side`` is false in older bundles.
    """

    height: Pixels
    width: Pixels
    region: Region | None
    divide_brightness: bool
    frame_size: tuple[int, int] | None = None
    alignment: AlignmentRecord | None = None
    ignored: IgnoredRecord | None = None
    averages_each_side: bool = False
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0


class BackboneRecord(_Record):
    """The backbone that computes the features."""

    name: str
    stages: tuple[str, ...]
    weights_sha256: tuple[str, ...]
    channels: Count
    grid: tuple[Pixels, Pixels]


class DetectorRecord(_Record):
    """Method and parameters of the detector."""

    name: str
    parameters: dict[str, bool | int | float | str]


class WorkingPointRecord(_Record):
    """The threshold and its false-reject rate.

    ``interval`` is the 95 % confidence interval of the rate; ``folds`` the number of cross-validation folds;
    ``chi_square`` the threshold if features were Gaussian, for comparison, null if the detector has no such law;
    ``parts`` the number of different parts that the images show, null if each was taken for another one.
    """

    threshold: Annotated[float, Field(gt=0)]
    false_reject_rate: Annotated[float, Field(gt=0, lt=1)]
    interval: tuple[Share, Share]
    method: str
    folds: int
    chi_square: float | None = None
    parts: Count | None = None

    @classmethod
    def of(cls, point: WorkingPoint, folds: int, chi_square: float | None) -> WorkingPointRecord:
        """From the threshold's own type."""
        fields = {name: value for name, value in asdict(point).items() if name != "images"}
        return cls(**fields, folds=folds, chi_square=chi_square)


class ForecastRecord(_Record):
    """What the threshold finds of synthetic defects in good images.

    ``found`` is the share of all ``drawn``, ``largest_found`` that of those of the largest size, ``largest_px``;
    ``smallest_px`` the side from which on nine in ten are found, null if not even the largest are. Sides are in frame
    pixels; ``mm_per_pixel`` is null if it was not given.
    """

    drawn: Count
    found: Share
    largest_found: Share
    largest_px: Pixels
    smallest_px: float | None
    mm_per_pixel: float | None = None

    @classmethod
    def of(cls, forecast: Forecast, mm_per_pixel: float | None) -> ForecastRecord:
        """From the scores."""
        return cls(
            drawn=len(forecast.scores),
            found=forecast.found(),
            largest_found=forecast.largest_found,
            largest_px=forecast.sizes[-1],
            smallest_px=forecast.smallest_px,
            mm_per_pixel=mm_per_pixel,
        )


class TrialRecord(_Record):
    """One setting that was tried, and its AUROC against synthetic defects."""

    backbone: str
    divide_brightness: bool
    detector: str
    auroc: float


class ChoiceRecord(_Record):
    """How settings were chosen from the data; ``complete`` if there was time to try all."""

    reason: str
    complete: bool
    trials: tuple[TrialRecord, ...]


class FindingRecord(_Record):
    """What a person should know about some of the image files, and which they are."""

    what: str
    images: tuple[_Name, ...]

    @property
    def on_one_line(self) -> str:
        """What it is, and the first few images."""
        more = len(self.images) - _NAMED
        return f"{self.what}: {', '.join(self.images[:_NAMED])}{f' and {more} more' if more > 0 else ''}"


class ImagesRecord(_Record):
    """The images that were used, and what was found about their files."""

    source: _Name
    count: Count
    skipped: tuple[_Name, ...]
    left_out: tuple[_Name, ...] = ()
    findings: tuple[FindingRecord, ...] = ()


class ParentRecord(_Record):
    """A bundle that was merged: its identity, where its images were, their number, and the weight of each."""

    identity: str
    sources: tuple[_Name, ...]
    images: int
    weight: float


class MergeRecord(_Record):
    """The origin of a merged bundle.

    ``effective_images`` is the number of equally weighted images that would carry as much information; ``rescored`` the
    number of scores behind the threshold that are exact, the others being estimates.
    """

    parents: tuple[ParentRecord, ...]
    effective_images: float
    rescored: int


class UpdateRecord(_Record):
    """How a device updated a bundle.

    ``parent`` is the identity of the previous bundle; ``parts`` the number of parts collected; ``old_weight`` the
    weight of an image of the parent against one of them; ``effective_images`` as in ``MergeRecord``.
    """

    mode: Literal["threshold", "mean", "full", "teach"]
    parent: str
    parts: int
    old_weight: float | None
    effective_images: float


class ManifestVersion(BaseModel):
    """What newer software keeps in its manifests, too."""

    schema_version: int = SCHEMA_VERSION


class Manifest(_Record):
    """The content of ``manifest.json``."""

    schema_version: Literal[1] = 1
    created_at: Time
    software: dict[str, str]
    images: ImagesRecord
    preprocess: PreprocessRecord
    augment: int = 0
    backbone: BackboneRecord
    detector: DetectorRecord
    working_point: WorkingPointRecord
    forecast: ForecastRecord | None = None
    choice: ChoiceRecord | None = None
    merge: MergeRecord | None = None
    relearning: UpdateRecord | None = None
    golden_tolerance: Annotated[float, Field(gt=0, le=LARGEST_TOLERANCE)]
    files: dict[str, str] = {}

    @property
    def sources(self) -> tuple[str, ...]:
        """Folders of the images."""
        if self.merge is None:
            return (self.images.source,)
        return tuple(dict.fromkeys(source for parent in self.merge.parents for source in parent.sources))

    @property
    def effective_images(self) -> float:
        """See ``MergeRecord``; without merge or update simply the number of images."""
        made = self.merge or self.relearning
        return self.images.count if made is None else made.effective_images
