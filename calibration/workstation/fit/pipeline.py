"""The whole method on one page: good images in, one bundle out."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from calibration.bundle.bundle import (
    MOMENTS,
    NETWORK,
    REFERENCE,
    Bundle,
    GoldenFrames,
    golden_checks,
    npz_bytes,
    refuse_existing,
    refuse_mismatch,
    write_bundle,
)
from calibration.bundle.manifest import (
    DetectorRecord,
    ImagesRecord,
    Manifest,
    WorkingPointRecord,
    software_versions,
)
from calibration.bundle.preprocess_record import preprocess_to_arrays, preprocess_to_record
from calibration.detectors.cross_validation import FOLDS, augmented_folds, make_folds, out_of_fold_scores
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import DatasetError
from calibration.imaging.preprocess import prepare_image
from calibration.network.fusion import backbone_record, feature_network, fused_network, reduced_shape
from calibration.statistics.outliers import HighestScores, outlier_indices
from calibration.statistics.threshold import (
    WorkingPoint,
    chi_square_threshold,
    refuse_invalid_rate,
    refuse_unsupported_rate,
    working_point,
)
from calibration.workstation.fit.extraction import Extraction, gathered_here
from calibration.workstation.fit.part_groups import parts_shown
from calibration.workstation.settings import MINIMUM_IMAGES, Settings, refuse_too_few, refuse_too_large

if TYPE_CHECKING:
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.backbones.backbone import Backbone
    from calibration.detectors.contract import Fit
    from calibration.progress import Progress
    from calibration.workstation.dataset import Images
    from calibration.workstation.fit.extraction import Gather, Gathered


GOLDEN_TOLERANCE = 1e-3


def calibrate(  # noqa: PLR0913, PLR0917 - what, from what, how, where to and where
    images: Images,
    backbone: Backbone,
    settings: Settings,
    path: Path,
    progress: Progress,
    gather: Gather = gathered_here,
) -> Bundle:
    """Learn what good looks like and write the bundle.

    Args:
        images: Of good parts.
        backbone: Where features come from.
        settings: How.
        path: Folder of the bundle; must not exist.
        progress: Told about every image.
        gather: Where features are computed and kept.

    Raises:
        SettingError: The false-reject rate makes no sense, or is too low for so few images.
        DatasetError: Too few readable images.
        DegenerateFeaturesError: All images alike.
        ModelTooLargeError: The statistics would not fit.
        BundleError: The folder exists.
        StorageError: No room; nothing half-written is left.
    """
    refuse_existing(path)
    refuse_invalid_rate(settings.false_reject_rate)
    refuse_unsupported_rate(settings.false_reject_rate, max(len(images), MINIMUM_IMAGES))
    detector, divide = settings.detector, settings.divide_brightness
    extractor = feature_network(backbone, detector, divide_brightness=divide)
    shape = reduced_shape(extractor)
    refuse_too_large(shape, len(images) * (1 + settings.augment), settings)
    # BLAS threads cost these small matrices more than they give, and much more beside a running agent.
    extraction = Extraction(extractor.SerializeToString(), shape, settings.preprocess, settings.augment)
    looked_at = gather(images, extraction, path.parent, settings.threads, progress)
    with threadpool_limits(1, "blas"), looked_at as gathered:
        store, count = gathered.features, len(gathered.names)
        refuse_too_few(count, images)
        refuse_unsupported_rate(settings.false_reject_rate, count)
        store.refuse_copies()
        parts = None
        if settings.part_of is not None:
            parts = parts_shown(gathered.names, settings.part_of, MINIMUM_IMAGES)
            refuse_unsupported_rate(settings.false_reject_rate, len(set(parts)))
        folds = make_folds(count, sequential=images.sequential, parts=parts)
        fit = detector.fit(store, augmented_folds(folds, settings.augment), backbone.level_channels)
        scores, highest = out_of_fold_scores(store, folds, 1 + settings.augment, fit, progress)
    point = working_point(scores, settings.false_reject_rate)
    golden = gathered.golden
    golden_scores = [float(fit.head.scores(reduced[None]).score[0]) for reduced in golden.reduced]
    network = fused_network(backbone, detector, fit.head, divide_brightness=divide).SerializeToString()
    known = GoldenFrames(np.stack(golden.frames), np.array(golden_scores))
    with OnnxRuntimeEngine(network, settings.threads) as engine:
        refuse_mismatch(golden_checks(known, point.threshold, engine), GOLDEN_TOLERANCE, "the exported network")
    reference: dict[str, NDArray[Any]] = {
        **gathered.reference.arrays(sequential=images.sequential),
        "golden_frames": known.frames,
        "golden_scores": known.scores,
        "good_scores": scores,
        **preprocess_to_arrays(settings.preprocess),
        **_doubtful(images, gathered.names, scores, highest, settings),
    }
    files = {NETWORK: network, MOMENTS: npz_bytes(fit.statistics), REFERENCE: npz_bytes(reference)}
    manifest = _manifest(images, backbone, settings, gathered, fit, point)
    return write_bundle(path, manifest, files)


def _doubtful(
    images: Images, names: list[str], scores: NDArray[np.float64], highest: HighestScores, settings: Settings
) -> dict[str, NDArray[Any]]:
    """Arrays for the bundle: the good images a person should look at, read a second time."""
    chosen = [names[index] for index in highest.indices]
    frames = {name: prepare_image(settings.preprocess, name, image)[0] for name, image in images.again(chosen)}
    if len(frames) < len(chosen):
        raise DatasetError(
            what=f"{images.source} has changed: {', '.join(sorted(set(chosen) - set(frames)))} cannot be read again",
            remedy="calibrate again, on images that nobody writes to",
        )
    suspects = outlier_indices(scores, settings.contamination)
    return {
        "highest_frames": np.stack([frames[name] for name in chosen]),
        "highest_names": np.array(chosen),
        "highest_scores": scores[highest.indices],
        "highest_maps": highest.maps,
        "suspicious_names": np.array([names[index] for index in suspects], np.str_),
        "suspicious_scores": scores[suspects],
    }


def _manifest(  # noqa: PLR0913, PLR0917 - all that made the bundle
    images: Images, backbone: Backbone, settings: Settings, gathered: Gathered, fit: Fit, point: WorkingPoint
) -> Manifest:
    count = len(gathered.names)
    return Manifest(
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        software=software_versions(),
        images=ImagesRecord(source=images.source, count=count, skipped=tuple(images.skipped), left_out=images.left_out),
        preprocess=preprocess_to_record(
            settings.preprocess, gathered.places, divide_brightness=settings.divide_brightness
        ),
        augment=settings.augment,
        backbone=backbone_record(backbone),
        detector=DetectorRecord(name=settings.detector.name, parameters=dict(fit.parameters)),
        working_point=WorkingPointRecord.of(
            point,
            count if fit.leave_one_out else FOLDS,
            chi_square_threshold(fit.gaussian_scores, point.false_reject_rate),
        ),
        choice=settings.choice,
        golden_tolerance=GOLDEN_TOLERANCE,
    )
