"""The whole method on one page: good images in, one bundle out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Any

import numpy as np
from threadpoolctl import threadpool_limits

from calibration.bundle.bundle import (
    MOMENTS,
    NETWORK,
    REFERENCE,
    golden_checks,
    npz_bytes,
    refuse_existing,
    refuse_mismatch,
    write_bundle,
)
from calibration.bundle.golden_frames import GoldenFrames
from calibration.bundle.manifest import (
    DetectorRecord,
    ForecastRecord,
    ImagesRecord,
    Manifest,
    WorkingPointRecord,
    software_versions,
)
from calibration.bundle.preprocess_record import preprocess_to_arrays, preprocess_to_record
from calibration.detectors.cross_validation import augmented_folds, out_of_fold_scores
from calibration.detectors.damaged_images import DamagedImages
from calibration.detectors.feature_store import FeatureStore
from calibration.detectors.patch_svdd import PatchSvdd
from calibration.engine.cpu_cores import usable_cores
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.network.fusion import backbone_record, fused_network
from calibration.statistics.chi_square import refuse_without_law
from calibration.statistics.forecast import Forecast
from calibration.statistics.location_threads import location_threads
from calibration.statistics.threshold import (
    CHI_SQUARE,
    highest_of_few,
    refuse_invalid_rate,
    refuse_unsupported_rate,
    working_point,
)
from calibration.workstation.dataset import good_images
from calibration.workstation.fit.backbone_choice import (
    FILTERBANK,
    BackboneChoice,
    build_backbone,
    checkpoint_of,
    on_grid,
)
from calibration.workstation.fit.copies_finding import findings_of_alike
from calibration.workstation.fit.defects import draw_defects
from calibration.workstation.fit.extraction import Extraction, extract_here
from calibration.workstation.fit.folds import alike_images, held_out_folds
from calibration.workstation.fit.learn_preprocess import learn_preprocess
from calibration.workstation.fit.network_size import network_sizes
from calibration.workstation.fit.one_image import VariedCopies
from calibration.workstation.fit.review import review_arrays, suspects_among
from calibration.workstation.image_findings import image_findings
from calibration.workstation.settings import MINIMUM_IMAGES, least_images, refuse_too_large, within_memory

if TYPE_CHECKING:
    from collections.abc import Collection
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.backbones.backbone import Backbone
    from calibration.bundle.bundle import Bundle
    from calibration.progress import Progress
    from calibration.workstation.dataset import Images
    from calibration.workstation.fit.extraction import Extractor
    from calibration.workstation.settings import Settings

GOLDEN_TOLERANCE = 1e-3


@dataclass(frozen=True)
class FitOptions:
    """All that ``fit`` does, as its options say: what it reads, how it calibrates and what it writes.

    Attributes:
        source: Folder of images of good parts, or a video.
        out: Folder of the bundle; must not exist.
        settings: How to calibrate.
        backbone: Where features come from.
        frames: Range of the video, or of the sorted images.
        left_out: Names of images not to learn from, with or without their folder.
    """

    source: Path
    out: Path
    settings: Settings
    backbone: BackboneChoice = FILTERBANK
    frames: slice = field(default_factory=lambda: slice(None))
    left_out: Collection[str] = ()


def calibrate_folder(options: FitOptions, progress: Progress, extract: Extractor = extract_here) -> Bundle:
    """Read the images and calibrate; raises what ``good_images`` and ``calibrate`` raise."""
    images = good_images(options.source, options.frames, options.left_out)
    return calibrate(images, options.backbone, options.settings, options.out, progress, extract)


def calibrate(  # noqa: PLR0913, PLR0917 - from what, how, where to and where
    images: Images,
    backbone: BackboneChoice | Backbone,
    settings: Settings,
    path: Path,
    progress: Progress,
    extract: Extractor = extract_here,
) -> Bundle:
    """Learn what good parts look like and write the bundle.

    Args:
        images: Images of good parts.
        backbone: Where features come from: built already, or named.
        settings: How to calibrate.
        path: Folder of the bundle; must not exist.
        progress: Receives the progress of each step.
        extract: Computes and keeps the features.

    Raises:
        SettingError: A setting makes no sense, or the false-reject rate is too low for this few images.
        DatasetError: Too few readable images.
        BackboneError: The backbone cannot be loaded.
        DegenerateFeaturesError: All images are alike.
        ModelTooLargeError: The statistics would not fit into memory.
        BundleError: The folder exists.
        StorageError: No room; nothing half-written is left.
    """
    given = images
    if len(images) == 1 and least_images(settings.detector) == 1:
        images = VariedCopies(images)
    refuse_existing(path)
    refuse_invalid_rate(settings.false_reject_rate)
    refuse_unsupported_rate(settings.false_reject_rate, max(len(images), MINIMUM_IMAGES))

    sizes = network_sizes(images, backbone, settings)
    sized = settings.preprocess.of_size(*sizes[0])
    settings = replace(settings, preprocess=learn_preprocess(images, sized, settings.learn, progress))
    backbone, settings = build_backbone(backbone, sizes, images, settings, path, progress)
    settings = replace(settings, detector=on_grid(settings.detector, backbone))
    preprocess = settings.preprocess

    extraction = Extraction.of(backbone, settings)
    rows = len(images) * (1 + settings.augment)
    settings = within_memory(settings, extraction.shape, rows)
    refuse_too_large(extraction.shape, rows, settings)
    detector, divide = settings.detector, settings.divide_brightness
    extracted = extract(images, extraction, path.parent, settings.threads, progress)
    # BLAS threads cost these small matrices more than they give, and much more next to a running agent.
    with (
        threadpool_limits(1, "blas"),
        location_threads(settings.threads or usable_cores()),
        extracted as data,
        FeatureStore(path.parent, extraction.shape) as store,
    ):
        alike = alike_images(data, images, settings)
        folds = held_out_folds(data, images, settings, alike)
        fit = detector.fit(data.features, augmented_folds(folds, settings.augment), backbone.level_channels)
        chi_square = fit.gaussian_threshold(settings.false_reject_rate) if fit.gaussian_threshold else None
        by_law = settings.threshold_rule == CHI_SQUARE
        if by_law:
            refuse_without_law(fit.gaussian_threshold, chi_square, settings.false_reject_rate)
        damaged = DamagedImages(store)
        region_px = draw_defects(images, data.names, extraction, damaged, settings.threads, progress)
        scores, highest = out_of_fold_scores(data.features, folds, 1 + settings.augment, fit, damaged, progress)
        if len(scores) < MINIMUM_IMAGES:
            point = highest_of_few(scores, min(len(scores), len(given)))
        else:
            point = working_point(scores, settings.false_reject_rate, folds.parts, chi_square if by_law else None)
        copies, oddness = findings_of_alike(alike, data, scores, point, fit, backbone, settings, store, progress)
        suspects = suspects_among(data, oddness, settings)

    defects = damaged.arrays(region_px)
    forecast = Forecast.of({**defects, "good_scores": scores}, point)

    network = fused_network(backbone, detector, fit.head, divide_brightness=divide).SerializeToString()
    golden_scores = [float(fit.head.scores(reduced[None]).score[0]) for reduced in data.golden.reduced]
    golden = GoldenFrames(np.stack(data.golden.frames), np.array(golden_scores))
    with OnnxRuntimeEngine(network, settings.threads) as engine:
        refuse_mismatch(golden_checks(golden, point.threshold, engine), GOLDEN_TOLERANCE, "the exported network")

    count = min(len(data.names), len(given))
    manifest = Manifest(
        created_at=datetime.now(timezone.utc).isoformat(timespec="seconds"),
        software=software_versions(),
        images=ImagesRecord(
            source=images.source,
            count=count,
            skipped=tuple(images.skipped),
            left_out=images.left_out,
            findings=(*copies, *image_findings(given)),
        ),
        preprocess=preprocess_to_record(preprocess, data.locations, divide_brightness=divide),
        augment=settings.augment,
        backbone=backbone_record(backbone),
        detector=DetectorRecord(name=detector.name, parameters=dict(fit.parameters)),
        working_point=WorkingPointRecord.of(point, count if fit.leave_one_out else len(folds.groups), chi_square),
        forecast=ForecastRecord.of(forecast, settings.mm_per_pixel),
        choice=settings.choice,
        golden_tolerance=GOLDEN_TOLERANCE,
    )
    reference: dict[str, NDArray[Any]] = {
        **data.reference.arrays(sequential=images.sequential),
        "golden_frames": golden.frames,
        "golden_scores": golden.scores,
        "good_scores": scores,
        **defects,
        **preprocess_to_arrays(preprocess),
        **review_arrays(images, data.names, scores, suspects, highest, settings),
    }
    files = {NETWORK: network, MOMENTS: npz_bytes(fit.statistics), REFERENCE: npz_bytes(reference)}
    bundle = write_bundle(path, manifest, files)
    if isinstance(detector, PatchSvdd):
        checkpoint_of(path).unlink(missing_ok=True)
    return bundle
