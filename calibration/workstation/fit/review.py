"""The good images that a person should review: highest scores, and scores far above the rest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.detectors.suspicious import suspicious_indices
from calibration.errors import DatasetError
from calibration.imaging.preprocess import prepare_image
from calibration.workstation.settings import MINIMUM_IMAGES

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray

    from calibration.statistics.outliers import HighestScores
    from calibration.workstation.dataset import Images, NamedImage
    from calibration.workstation.fit.extraction import TrainingData
    from calibration.workstation.settings import Settings


def read_again(images: Images, names: Sequence[str]) -> Iterator[NamedImage]:
    """Read images a second time, in the order of ``images``.

    Raises:
        DatasetError: An image cannot be read any more.
    """
    missing = set(names)
    for name, image in images.again(names):
        missing.remove(name)
        yield name, image
    if missing:
        raise DatasetError(
            what=f"{images.source} has changed: {', '.join(sorted(missing))} cannot be read again",
            remedy="calibrate again, on images that nothing writes to",
        )


def suspects_among(data: TrainingData, oddness: NDArray[np.float64], settings: Settings) -> list[int]:
    """Indices of the images that a person should look at; of a few images none can be called unlike the others.

    Args:
        data: The images.
        oddness: Held-out scores, (n,).
        settings: How to calibrate.
    """
    if len(oddness) < MINIMUM_IMAGES:
        return []
    rows = [index * (1 + settings.augment) for index in range(len(oddness))]
    return suspicious_indices(oddness, data.features, rows, settings.contamination)


def review_arrays(  # noqa: PLR0913, PLR0917 - of what, and how it was scored
    images: Images,
    names: Sequence[str],
    scores: NDArray[np.float64],
    suspects: Sequence[int],
    highest: HighestScores,
    settings: Settings,
) -> dict[str, NDArray[Any]]:
    """Arrays for ``reference.npz``; the images with the highest scores are read a second time.

    ``scores``, (n,), are those of the images named, ``suspects`` the indices of suspicious ones; ``highest`` has the
    highest scores, with their score maps.

    Raises:
        DatasetError: An image cannot be read any more.
    """
    chosen = [names[index] for index in highest.indices]
    frames = {name: prepare_image(settings.preprocess, name, image)[0] for name, image in read_again(images, chosen)}
    return {
        "highest_frames": np.stack([frames[name] for name in chosen]),
        "highest_names": np.array(chosen),
        "highest_scores": scores[highest.indices],
        "highest_maps": highest.maps,
        "suspicious_names": np.array([names[index] for index in suspects], np.str_),
        "suspicious_scores": scores[suspects],
    }
