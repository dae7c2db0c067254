"""Refit a bundle on parts that a device has seen: after a change of lamp or material, or for a new product.

``threshold``  the network stays; the threshold follows from the parts' scores
``mean``       every location's mean is that of the parts; the covariances stay
``full``       the old statistics are transported to the new conditions, then the parts are added
``teach``      everything comes from the parts: another product, on another backbone if asked for

The parts are unlabelled. So outliers are left out, and an old image, which a person called good, counts more than a new
part. The threshold is made of cross-validated scores: each fifth of the parts is scored under the statistics of the old
images and the other parts.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timezone
from typing import TYPE_CHECKING, Literal, TypeAlias

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
from calibration.bundle.manifest import ImagesRecord, Manifest, UpdateRecord, WorkingPointRecord, software_versions
from calibration.bundle.preprocess_record import preprocess_to_arrays
from calibration.detectors.cross_validation import FOLDS
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import DatasetError, SettingError
from calibration.network.fusion import replace_head
from calibration.statistics.chi_square import refuse_without_law, simulated_threshold
from calibration.statistics.moments import Moments
from calibration.statistics.outliers import outlier_indices
from calibration.statistics.scores import Scores, chi_square_scores
from calibration.statistics.threshold import (
    CHI_SQUARE,
    HIGHEST,
    refuse_invalid_rate,
    refuse_unsupported_rate,
    working_point,
)
from calibration.update.additive import additive_detector
from calibration.update.base_network import base_network_of, refuse_large_base_network
from calibration.update.refit_forecast import damaged_for_network, damaged_for_statistics, forecast_record
from calibration.update.refit_reference import frame_reference, golden_frames, score_arrays
from calibration.update.refit_statistics import Refit

if TYPE_CHECKING:
    from pathlib import Path

    from calibration.bundle.bundle import Bundle
    from calibration.progress import Progress
    from calibration.update.base_network import OtherBackbone
    from calibration.update.part_store import PartStore


Mode: TypeAlias = Literal["threshold", "mean", "full", "teach"]

MINIMUM_PARTS = 2 * FOLDS
_MEDIAN_LIMIT = 8.0  # median score of the parts, in thresholds, above which they are another product
_USUAL_RATE = 0.01


@dataclass(frozen=True)
class RefitPlan:
    """How to refit.

    Attributes:
        mode: See the module's docstring.
        old_weight: Weight of an image of the old bundle against a new part in ``full``; 0 forgets the old images.
        false_reject_rate: None keeps that of the old bundle.
        sequential: Neighbouring parts resemble each other, as frames of a video do.
        backbone: Another backbone, for ``teach``; None keeps the bundle's.
        memory_limit_mib: Memory for the statistics on another backbone.
    """

    mode: Mode = "full"
    old_weight: float = 2.0
    false_reject_rate: float | None = None
    sequential: bool = True
    backbone: OtherBackbone | None = None
    memory_limit_mib: float = 4096.0


@dataclass(frozen=True)
class RefitResult:
    """The outcome of a refit.

    Attributes:
        bundle: Written, not yet active.
        left_out: Names of the parts left out as outliers, highest score first, for a person to check.
    """

    bundle: Bundle
    left_out: tuple[str, ...]


def refuse_invalid_plan(bundle: Bundle, plan: RefitPlan, parts: int) -> None:
    """Raise an error if the bundle cannot be refitted as planned from this number of parts.

    Raises:
        SettingError: There are too few parts, the detector has no moments, or the backbone does not fit the mode or
            the bundle.
        ModelTooLargeError: The statistics on another backbone would not fit into memory.
    """
    if parts < MINIMUM_PARTS:
        raise SettingError(
            what=f"too few parts to refit a bundle: {parts}",
            remedy=f"give {MINIMUM_PARTS} or more; better 100",
        )
    rate = _rate(bundle, plan)
    refuse_invalid_rate(rate)
    refuse_unsupported_rate(rate, parts)
    if not 0.0 <= plan.old_weight < np.inf:
        raise SettingError(
            what=f"an old image cannot count {plan.old_weight:g} times", remedy="give 0 or more; 2 is usual"
        )
    if plan.backbone is not None and plan.mode != "teach":
        raise SettingError(
            what=f"the mode {plan.mode} keeps the backbone of the bundle; {plan.backbone} cannot be used",
            remedy="leave out the backbone; only the mode teach, which forgets the old product, accepts another",
        )
    if plan.mode == "threshold" and bundle.manifest.working_point.method == CHI_SQUARE:
        raise SettingError(
            what="the threshold of this bundle follows from chi-square, which no parts change",
            remedy="calibrate without --threshold-rule chi-square, or give another mode",
        )
    if plan.mode != "threshold":
        additive_detector(bundle.manifest.detector)
    refuse_large_base_network(bundle, plan.backbone, parts, plan.memory_limit_mib)


def refit_bundle(bundle: Bundle, parts: PartStore, plan: RefitPlan, path: Path, progress: Progress) -> RefitResult:
    """Write a new bundle; the old one stays as it is.

    Args:
        bundle: The bundle that inspected the parts.
        parts: Collected parts, with features of the network of ``base_network_of``.
        plan: How to refit.
        path: Folder of the new bundle; must not exist.
        progress: Called with step, done, total.

    Raises:
        SettingError, ModelTooLargeError: See ``refuse_invalid_plan``.
        DatasetError: The parts show another product, all have the same defect, or hardly differ (the production line
            stands still).
        DegenerateFeaturesError: The parts are all alike.
        ScoreMismatchError: The new network does not reproduce the scores of its statistics.
        StorageError: The disk is full; nothing half-written is left.
    """
    refuse_existing(path)
    refuse_invalid_plan(bundle, plan, len(parts))
    refit = _refit_threshold if plan.mode == "threshold" else _refit_statistics
    with threadpool_limits(1, "blas"):
        manifest, files, outliers = refit(bundle, parts, plan, progress)
    return RefitResult(write_bundle(path, manifest, files), tuple(parts.names[index] for index in outliers))


def _refit_threshold(
    bundle: Bundle, parts: PartStore, plan: RefitPlan, progress: Progress
) -> tuple[Manifest, dict[str, bytes], list[int]]:
    """Keep network and statistics."""
    scores = _network_scores(bundle, parts, progress)
    _refuse_high_median(float(np.median(scores.score)) / bundle.manifest.working_point.threshold)
    outliers = outlier_indices(scores.score.astype(np.float64))
    kept = [index for index in range(len(parts)) if index not in outliers]
    good = Scores(scores.score[kept], scores.map[kept])
    old_point, rate = bundle.manifest.working_point, _rate(bundle, plan)
    chi_square = old_point.chi_square if rate == old_point.false_reject_rate else None
    point = working_point(good.score.astype(np.float64), rate)
    damaged = damaged_for_network(bundle, parts, kept, progress)
    forecast, defects = forecast_record(bundle, damaged, good, point)
    manifest = _manifest(bundle, parts, plan, outliers, bundle.manifest.effective_images)
    old_reference = bundle.reference()
    frames = frame_reference(old_reference, parts, kept, sequential=plan.sequential, forget=False)
    reference = {**old_reference, **frames, **score_arrays(parts, kept, good), **defects}
    files = {name: (bundle.path / name).read_bytes() for name in (NETWORK, MOMENTS)}
    update = {"working_point": WorkingPointRecord.of(point, len(kept), chi_square), "forecast": forecast}
    return manifest.model_copy(update=update), {**files, REFERENCE: npz_bytes(reference)}, outliers


def _refit_statistics(
    bundle: Bundle, parts: PartStore, plan: RefitPlan, progress: Progress
) -> tuple[Manifest, dict[str, bytes], list[int]]:
    """Replace the head of the network."""
    assert plan.mode != "threshold"  # noqa: S101 - for the type checker
    forget = plan.mode == "teach"
    detector = additive_detector(bundle.manifest.detector)
    old = None if forget else Moments.unpacked(bundle.moments())
    vectors_per_image = None if old is None else old.effective_count / bundle.manifest.effective_images
    refit = Refit(parts, detector, plan.mode, old, plan.old_weight)
    del old  # memory is scarce on a device
    outliers = refit.outliers(bundle.manifest.working_point.threshold)
    kept = [index for index in range(len(parts)) if index not in outliers]
    damaged = damaged_for_statistics(bundle, parts, kept, progress)
    scores = refit.cross_validated_scores(kept, sequential=plan.sequential, progress=progress, damaged=damaged)
    total = refit.moments(kept)
    head = detector.head(total)
    rate = _rate(bundle, plan)
    law = chi_square_scores(parts.features.shape, head.order, head.smoothing)
    chi_square = simulated_threshold(law, rate)
    by_law = bundle.manifest.working_point.method == CHI_SQUARE
    if by_law:
        refuse_without_law(law, chi_square, rate)
    point = working_point(scores.score.astype(np.float64), rate, chi_square=chi_square if by_law else None)
    forecast, defects = forecast_record(bundle, damaged, scores, point)
    golden = golden_frames(parts, kept, head)
    effective_images = len(kept) if vectors_per_image is None else total.effective_count / vectors_per_image
    manifest = _manifest(bundle, parts, plan, outliers, effective_images)
    detector_record = manifest.detector.model_copy(update={"parameters": dict(detector.parameters(total))})
    moments = npz_bytes(total.packed())
    del refit, total
    base = base_network_of(bundle, plan.backbone)
    network, backbone = replace_head(base.network, head), base.backbone
    del base, head
    with OnnxRuntimeEngine(network, 1) as engine:
        checks = golden_checks(golden, point.threshold, engine)
    refuse_mismatch(checks, bundle.manifest.golden_tolerance, "the refitted network")
    progress("learning", FOLDS + 1, FOLDS + 1)
    reference = {
        **preprocess_to_arrays(bundle.preprocess),
        **frame_reference(bundle.reference(), parts, kept, sequential=plan.sequential, forget=forget),
        "golden_frames": golden.frames,
        "golden_scores": golden.scores,
        **score_arrays(parts, kept, scores),
        **defects,
    }
    files = {NETWORK: network, MOMENTS: moments, REFERENCE: npz_bytes(reference)}
    working_point_record = WorkingPointRecord.of(point, FOLDS, chi_square)
    update = {
        "backbone": backbone,
        "detector": detector_record,
        "working_point": working_point_record,
        "forecast": forecast,
    }
    return manifest.model_copy(update=update), files, outliers


def _refuse_high_median(thresholds: float) -> None:
    """Raise DatasetError if the median score, in thresholds, is far beyond that of any defect."""
    if not thresholds <= _MEDIAN_LIMIT:
        raise DatasetError(
            what="the bundle was not made for these parts: half of them score over "
            f"{thresholds:.0f} times its threshold",
            remedy="check the camera; after a change of lamp or lens recalibrate with the mode full, for another "
            "product with teach",
        )


def _network_scores(bundle: Bundle, parts: PartStore, progress: Progress) -> Scores:
    """Scores by the bundle's own network, whatever its detector."""
    results = []
    with OnnxRuntimeEngine(bundle.network, 1) as engine:
        for index in range(len(parts)):
            results.append(engine(parts.frame(index)))
            progress("scoring", len(results), len(parts))
    return Scores(np.array([each.score for each in results], np.float32), np.stack([each.map for each in results]))


def _rate(bundle: Bundle, plan: RefitPlan) -> float:
    """What is requested, else the rate of the bundle, unless that is none that was promised."""
    point = bundle.manifest.working_point
    return plan.false_reject_rate or (_USUAL_RATE if point.method == HIGHEST else point.false_reject_rate)


def _manifest(
    bundle: Bundle, parts: PartStore, plan: RefitPlan, outliers: list[int], effective_images: float
) -> Manifest:
    return bundle.manifest.model_copy(
        update={
            "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "software": software_versions(),
            "images": ImagesRecord(
                source=f"parts seen by the device, mode {plan.mode}",
                count=len(parts) - len(outliers),
                skipped=(),
                left_out=tuple(parts.names[index] for index in outliers),
            ),
            "augment": 0 if plan.mode == "teach" else bundle.manifest.augment,  # parts are not augmented
            "choice": None,
            "merge": None,
            "relearning": UpdateRecord(
                mode=plan.mode,
                parent=bundle.identity,
                parts=len(parts),
                old_weight=plan.old_weight if plan.mode == "full" else None,
                effective_images=effective_images,
            ),
        }
    )
