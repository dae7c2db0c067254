"""What images that look like copies of others would do to the promise, were each held out alone."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

from calibration.bundle.manifest import FindingRecord
from calibration.detectors.cross_validation import augmented_folds, make_folds, out_of_fold_scores
from calibration.detectors.damaged_images import DamagedImages
from calibration.plain_text import rounded
from calibration.statistics.moments import Moments
from calibration.statistics.threshold import CHI_SQUARE, working_point

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.backbones.backbone import Backbone
    from calibration.detectors.contract import AdditiveDetector, Fit
    from calibration.detectors.feature_store import FeatureStore
    from calibration.progress import Progress
    from calibration.statistics.threshold import WorkingPoint
    from calibration.workstation.fit.extraction import TrainingData
    from calibration.workstation.fit.near_copies import Alike
    from calibration.workstation.settings import Settings


def findings_of_alike(  # noqa: PLR0913, PLR0917 - what was found, in what, and how that was scored
    alike: Alike,
    data: TrainingData,
    scores: NDArray[np.float64],
    point: WorkingPoint,
    fit: Fit,
    backbone: Backbone,
    settings: Settings,
    store: FeatureStore,
    progress: Progress,
) -> tuple[tuple[FindingRecord, ...], NDArray[np.float64]]:
    """One finding if there are near copies or a sequence, with the threshold that they would have made.

    Args:
        alike: What was found.
        data: The images.
        scores: Held-out scores, alike images together, (n,).
        point: The threshold that follows.
        fit: Of all images.
        backbone: Where features come from.
        settings: How to calibrate.
        store: For no features.
        progress: Receives the progress of scoring each alone.

    Returns:
        The finding, and by which scores images are suspicious, (n,): those of each held out alone. An image that not
        even copies of its part vouch for is odd, one that only differs from other parts is not.
    """
    count, pairs = len(data.names), alike.copies
    if alike.in_sequence:
        pairs = [(index, index - 1) for index in range(1, count)]
        what = "images in a sequence, like frames of a video: neighbours were held out together"
    elif pairs:
        what = f"near copies of another image: {count} images show about {count - len(pairs)} parts, and all of a part "
        what += "were held out together"
    else:
        return (), scores
    each = _scores_alone(data, fit, backbone, settings, store, progress)
    if point.method != CHI_SQUARE:
        alone = working_point(each, point.false_reject_rate)
        what += (
            ". Each held out alone (--same-part none), the threshold would be about "
            f"{rounded(alone.threshold, 3)} instead of {rounded(point.threshold, 4)}, and promise "
            f"{point.false_reject_rate:.2%} false rejects where {(scores > alone.threshold).mean():.0%} are expected"
        )
    images = tuple(f"{data.names[index]} is like {data.names[other]}" for index, other in pairs)
    return (FindingRecord(what=what, images=images),), each


def _scores_alone(  # noqa: PLR0913, PLR0917 - as above
    data: TrainingData, fit: Fit, backbone: Backbone, settings: Settings, store: FeatureStore, progress: Progress
) -> NDArray[np.float64]:
    """Scores of images held out alone, (n,): from the moments if the method has them, or else by another fit."""
    count = len(data.names)
    if fit.statistics and not settings.augment:
        detector = cast("AdditiveDetector", settings.detector)
        scorer = detector.leave_one_out_scorer(Moments.unpacked(fit.statistics), None)
        return np.concatenate([each.score for each in data.features.scores(range(count), scorer)]).astype(np.float64)
    folds = make_folds(count, sequential=False)
    again = settings.detector.fit(data.features, augmented_folds(folds, settings.augment), backbone.level_channels)
    each, _ = out_of_fold_scores(data.features, folds, 1 + settings.augment, again, DamagedImages(store), progress)
    return each
