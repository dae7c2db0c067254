"""What the workers of a Dask cluster compute: plain functions and their results, without Dask.

Features stay where they were computed; over the network go paths, moments, scores, and for each image what the
reference needs. Each result depends on its arguments alone, so that any worker can compute a lost one again.
"""

from __future__ import annotations

import hashlib
import platform
import socket
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.metadata import version
from typing import TYPE_CHECKING, TypeVar

import cv2
import numpy as np
import onnxruntime as ort
from threadpoolctl import threadpool_limits

from calibration.camera_checks.reference import Observation
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import ClusterError, DatasetError
from calibration.imaging.image_files import read_image
from calibration.imaging.image_form import ImageForm, image_form
from calibration.statistics.moments import Moments, refuse_not_finite
from calibration.workstation.fit.near_copies import fingerprint

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.detectors.head import Scorer
    from calibration.imaging.preprocess import PartLocation
    from calibration.statistics.scores import Scores
    from calibration.workstation.fit.extraction import Extraction

    Float32 = NDArray[np.float32]

Value = TypeVar("Value")


@dataclass(frozen=True)
class ImageSource:
    """An image file: its name as the user wrote it, and its absolute path."""

    name: str
    path: Path


@dataclass
class ImageFacts:
    """All that is known about one share of the images, except their features.

    Attributes:
        names: Usable images.
        locations: Where the part was found in each.
        fingerprints: Of each, to find near copies.
        observations: What the reference needs to know about each.
        digests: Digests of all features: copies have the same.
        skipped: Why other images are not usable.
        forms: The form of each usable image.
    """

    names: list[str] = field(default_factory=list)
    locations: list[PartLocation] = field(default_factory=list)
    fingerprints: list[Float32] = field(default_factory=list)
    observations: list[Observation] = field(default_factory=list)
    digests: set[bytes] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)
    forms: dict[str, ImageForm] = field(default_factory=dict)


def extract(sources: Sequence[ImageSource], extraction: Extraction) -> tuple[Float32, ImageFacts]:
    """Features of one share of the images, (rows, d, h, w), copies after their image; and the facts about them.

    Raises:
        ClusterError: This worker does not see an image.
        DatasetError: The region of interest does not fit into one.
        DegenerateFeaturesError: A feature is not finite.
    """
    engine, facts, rows = _engine(extraction.network), ImageFacts(), []
    for source in sources:
        if not source.path.exists():
            raise ClusterError(
                what=f"{source.path} is not there on worker {socket.gethostname()}",
                remedy="share the folder of images with all workers, under the same path, and change nothing in it",
            )
        try:
            image = read_image(source.path)
        except DatasetError as error:
            facts.skipped.append(error.what.replace(str(source.path), source.name))
            continue
        frame, location, reduced = extraction.features_of(engine, source.name, image)
        rows += reduced
        facts.names.append(source.name)
        facts.forms[source.name] = image_form(source.path, image)
        facts.locations.append(location)
        facts.fingerprints.append(fingerprint(frame))
        observation = Observation.of(frame, extraction.preprocess.region_of_interest(image), image.shape[:2])
        facts.observations.append(replace(observation, rows=None))
        facts.digests |= {hashlib.sha256(each.tobytes()).digest() for each in reduced}
    features = np.stack(rows) if rows else np.empty((0, *extraction.shape), np.float32)
    refuse_not_finite(features)
    return features, facts


def passed_on(value: Value) -> Value:
    """An argument that many tasks share, as a task: unlike scattered data, it can be computed again."""
    return value


def features_of(extracted: tuple[Float32, ImageFacts]) -> Float32:
    """The first result of ``extract``."""
    return extracted[0]


def facts_of(extracted: tuple[Float32, ImageFacts]) -> ImageFacts:
    """The second result of ``extract``."""
    return extracted[1]


def moments_of(features: Float32, rows: Sequence[int], vectors: Callable[[Float32], Float32]) -> Moments:
    """Moments of some rows of a share."""
    with threadpool_limits(1, "blas"):
        return Moments.of(vectors(features[list(rows)]))


def scores_of(features: Float32, rows: Sequence[int], scorer: Scorer) -> Scores:
    """Scores of some rows of a share."""
    with threadpool_limits(1, "blas"):
        return scorer.scores(features[list(rows)])


def rows_of(features: Float32, rows: Sequence[int]) -> Float32:
    """Some rows of a share."""
    chosen: Float32 = features[list(rows)]
    return chosen


def software() -> dict[str, str]:
    """Versions of all software that affects the result or carries it here."""
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "onnxruntime": ort.__version__,
        **{name: version(name) for name in ("shiftwatch", "dask", "distributed")},
    }


def changed_files(sizes: dict[Path, int]) -> list[Path]:
    """Which of these files are missing here, or have another size."""
    return [path for path, size in sizes.items() if not path.is_file() or path.stat().st_size != size]


@lru_cache(maxsize=1)
def _engine(network: bytes) -> OnnxRuntimeEngine:
    """Opened once in each process, for all its threads; the next fit replaces it."""
    return OnnxRuntimeEngine(network, 1).__enter__()
