"""What workers of a cluster do: plain functions and what they give, without Dask.

Features of a part of the pictures stay where they were computed; what goes over the network is paths, moments, scores,
and of each picture what the reference needs. Each result follows from its arguments alone, so that a lost one can be
computed again, by any worker.
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
from calibration.statistics.moments import Moments, merged, refuse_not_finite

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
    """A file.

    Attributes:
        name: As the person has written it.
        path: From the root.
    """

    name: str
    path: Path


@dataclass
class ImageFacts:
    """What is known of the pictures of a part, but their features.

    Attributes:
        names: Of those that are usable.
        places: Where the region of interest was in each of these.
        seen: What the reference needs to know of each of these.
        digests: Of all their features: copies have the same.
        skipped: Why others are not usable.
    """

    names: list[str] = field(default_factory=list)
    places: list[PartLocation] = field(default_factory=list)
    seen: list[Observation] = field(default_factory=list)
    digests: set[bytes] = field(default_factory=set)
    skipped: list[str] = field(default_factory=list)


def learnt(pictures: Sequence[ImageSource], extraction: Extraction) -> tuple[Float32, ImageFacts]:
    """Features of a part of the pictures, (rows, d, h, w), copies after their picture; and all else that is to know.

    Raises:
        ClusterError: A picture is not there, on this worker.
        DatasetError: The region of interest does not fit into one.
        DegenerateFeaturesError: A feature is not finite.
    """
    engine, told, rows = _engine(extraction.network), ImageFacts(), []
    for picture in pictures:
        if not picture.path.exists():
            raise ClusterError(
                what=f"{picture.path} is not there on worker {socket.gethostname()}",
                remedy="share the folder of pictures with all workers, under the same path, and change nothing in it",
            )
        try:
            image = read_image(picture.path)
        except DatasetError as error:
            told.skipped.append(error.what.replace(str(picture.path), picture.name))
            continue
        frame, place, reduced = extraction.of(engine, picture.name, image)
        rows += reduced
        told.names.append(picture.name)
        told.places.append(place)
        seen = Observation.of(frame, extraction.preprocess.region_of_interest(image), image.shape[:2])
        told.seen.append(replace(seen, rows=None))
        told.digests |= {hashlib.sha256(each.tobytes()).digest() for each in reduced}
    features = np.stack(rows) if rows else np.empty((0, *extraction.shape), np.float32)
    refuse_not_finite(features)
    return features, told


def given(value: Value) -> Value:
    """An argument that many tasks share, as a task: unlike scattered data it can be had again."""
    return value


def features_of(learnt_part: tuple[Float32, ImageFacts]) -> Float32:
    """The first of what ``learnt`` gives."""
    return learnt_part[0]


def facts_of(learnt_part: tuple[Float32, ImageFacts]) -> ImageFacts:
    """The second of what ``learnt`` gives."""
    return learnt_part[1]


def moments_of(features: Float32, rows: Sequence[int], vectors: Callable[[Float32], Float32]) -> Moments:
    """Moments of some rows of a part."""
    with threadpool_limits(1, "blas"):
        return Moments.of(vectors(features[list(rows)]))


def sum_of(parts: Sequence[Moments]) -> Moments:
    """Moments of parts together, added in their order."""
    return merged(parts)


def scores_of(features: Float32, rows: Sequence[int], scorer: Scorer) -> Scores:
    """Scores of some rows of a part."""
    with threadpool_limits(1, "blas"):
        return scorer.scores(features[list(rows)])


def rows_of(features: Float32, rows: Sequence[int]) -> Float32:
    """Some rows of a part."""
    chosen: Float32 = features[list(rows)]
    return chosen


def software() -> dict[str, str]:
    """Versions of all that has a part in the result or in bringing it here."""
    return {
        "python": ".".join(platform.python_version_tuple()[:2]),
        "numpy": np.__version__,
        "opencv": cv2.__version__,
        "onnxruntime": ort.__version__,
        **{name: version(name) for name in ("shiftwatch", "dask", "distributed")},
    }


def unlike(sizes: dict[Path, int]) -> list[Path]:
    """Those of some files that are not there, or of another size."""
    return [path for path, size in sizes.items() if not path.is_file() or path.stat().st_size != size]


@lru_cache(maxsize=1)
def _engine(network: bytes) -> OnnxRuntimeEngine:
    """Opened once in each process, for all its threads; the next fit's takes its place."""
    return OnnxRuntimeEngine(network, 1).__enter__()
