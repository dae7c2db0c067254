"""A bundle that learns on from parts that a device has seen: a changed lamp, another steel, a new product.

``threshold``  the network stays; the threshold follows from the parts' scores
``mean``       the means of all places are the parts', their covariances stay
``full``       the old statistics are seen through the new lens (``transport``), then the parts are added to them
``teach``      everything is the parts': another product; on another backbone where asked for (``basis``)

The parts came by unseen. So those that look suspicious are left out, and an old image, which a person called good,
counts more than a new part. The scores that the threshold is made of are those of parts that the statistics have not
seen: each fifth of them under the statistics of the old images and the other parts.
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
from calibration.statistics.moments import Moments
from calibration.statistics.outliers import outlier_indices
from calibration.statistics.scores import Scores, chi_square_scores
from calibration.statistics.threshold import (
    chi_square_threshold,
    refuse_invalid_rate,
    refuse_unsupported_rate,
    working_point,
)
from calibration.update.additive import additive_detector
from calibration.update.base_network import base_network_of, refuse_large_base_network
from calibration.update.refit_reference import frame_reference, golden_frames, score_arrays
from calibration.update.refit_statistics import Refit

if TYPE_CHECKING:
    from pathlib import Path

    from calibration.bundle.bundle import Bundle
    from calibration.detectors.head import WhiteningHead
    from calibration.progress import Progress
    from calibration.update.base_network import OtherBackbone
    from calibration.update.part_store import PartStore


Mode: TypeAlias = Literal["threshold", "mean", "full", "teach"]

MINIMUM_PARTS = 2 * FOLDS
_STRANGER = 8.0


@dataclass(frozen=True)
class RefitPlan:
    """How to learn on.

    Attributes:
        mode: See the top of this file.
        old_weight: What an image of the old bundle counts against a new part in ``full``; 0 forgets the old ones.
        false_reject_rate: None keeps that of the old bundle.
        sequential: Neighbouring parts resemble each other, as frames of a video do.
        backbone: For ``teach``: other than the bundle's. None keeps it.
        memory_limit_mib: What the statistics on another backbone may take.
    """

    mode: Mode = "full"
    old_weight: float = 2.0
    false_reject_rate: float | None = None
    sequential: bool = True
    backbone: OtherBackbone | None = None
    memory_limit_mib: float = 4096.0


@dataclass(frozen=True)
class RefitResult:
    """What became of it.

    Attributes:
        bundle: Written, not served yet.
        left_out: Names of suspicious parts, the worst first; not learnt, to be looked at by a person.
    """

    bundle: Bundle
    left_out: tuple[str, ...]


def refuse_invalid_plan(bundle: Bundle, plan: RefitPlan, parts: int) -> None:
    """Refuse what so many parts cannot do.

    Raises:
        SettingError: They are too few, the detector has no moments, or the backbone is not for this mode or bundle.
        ModelTooLargeError: The statistics on another backbone would not fit.
    """
    if parts < MINIMUM_PARTS:
        raise SettingError(
            what=f"{parts} parts are too few to learn from", remedy=f"give {MINIMUM_PARTS} or more; better 100"
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
            what=f"the mode {plan.mode} keeps the backbone of the bundle, and cannot be given {plan.backbone}",
            remedy="leave the backbone out; only the mode teach, which forgets the old product, takes another",
        )
    if plan.mode != "threshold":
        additive_detector(bundle.manifest.detector)
    refuse_large_base_network(bundle, plan.backbone, parts, plan.memory_limit_mib)


def refit_bundle(bundle: Bundle, collection: PartStore, plan: RefitPlan, path: Path, progress: Progress) -> RefitResult:
    """Write a new bundle; the old one stays as it is.

    Args:
        bundle: That judged the parts.
        collection: Its parts, by the network of ``basis_of``.
        plan: How.
        path: Folder of the new bundle; must not exist.
        progress: Told step, done, total.

    Raises:
        SettingError, ModelTooLargeError: See ``refuse_unteachable``.
        DatasetError: The parts show another product, all have the same defect, or hardly differ (the line stands
            still).
        DegenerateFeaturesError: All alike.
        ScoreMismatchError: The new network does not score as its statistics say.
        StorageError: No room; nothing half-written is left.
    """
    refuse_existing(path)
    refuse_invalid_plan(bundle, plan, len(collection))
    with threadpool_limits(1, "blas"):
        learn = _threshold if plan.mode == "threshold" else _statistics
        manifest, files, suspects = learn(bundle, collection, plan, progress)
    return RefitResult(write_bundle(path, manifest, files), tuple(collection.names[index] for index in suspects))


def _threshold(
    bundle: Bundle, collection: PartStore, plan: RefitPlan, progress: Progress
) -> tuple[Manifest, dict[str, bytes], list[int]]:
    """Network and statistics stay."""
    scores = _scored(bundle, collection, progress)
    _refuse_strangers(float(np.median(scores.score)) / bundle.manifest.working_point.threshold)
    suspects = outlier_indices(scores.score.astype(np.float64))
    kept = [index for index in range(len(collection)) if index not in suspects]
    good = Scores(scores.score[kept], scores.map[kept])
    before, rate = bundle.manifest.working_point, _rate(bundle, plan)
    chi_square = before.chi_square if rate == before.false_reject_rate else None
    point = _working_point(good, rate, len(kept), chi_square)
    manifest = _manifest(bundle, collection, plan, suspects, bundle.manifest.effective_images)
    before_it = bundle.reference()
    looks = frame_reference(before_it, collection, kept, sequential=plan.sequential, forget=False)
    reference = {**before_it, **looks, **score_arrays(collection, kept, good)}
    files = {name: (bundle.path / name).read_bytes() for name in (NETWORK, MOMENTS)}
    return manifest.model_copy(update={"working_point": point}), {**files, REFERENCE: npz_bytes(reference)}, suspects


def _statistics(
    bundle: Bundle, collection: PartStore, plan: RefitPlan, progress: Progress
) -> tuple[Manifest, dict[str, bytes], list[int]]:
    """The network gets another head."""
    assert plan.mode != "threshold"  # noqa: S101 - for the type checker
    forget = plan.mode == "teach"
    method = additive_detector(bundle.manifest.detector)
    old = None if forget else Moments.unpacked(bundle.moments())
    vectors_an_image = None if old is None else old.effective_count / bundle.manifest.effective_images
    lesson = Refit(collection, method, plan.mode, old, plan.old_weight)
    del old  # there is little memory
    suspects = lesson.suspects(bundle.manifest.working_point.threshold)
    kept = [index for index in range(len(collection)) if index not in suspects]
    scores = lesson.held_out(kept, sequential=plan.sequential, progress=progress)
    total = lesson.statistics(kept)
    head = method.head(total)
    point = _working_point(scores, _rate(bundle, plan), FOLDS, _chi_square(bundle, plan, collection, head))
    golden = golden_frames(collection, kept, head)
    effective_images = len(kept) if vectors_an_image is None else total.effective_count / vectors_an_image
    manifest = _manifest(bundle, collection, plan, suspects, effective_images)
    moments = npz_bytes(total.packed())
    del lesson, total
    basis = base_network_of(bundle, plan.backbone)
    network, backbone = replace_head(basis.network, head), basis.backbone
    del basis, head
    with OnnxRuntimeEngine(network, 1) as engine:
        checks = golden_checks(golden, point.threshold, engine)
    refuse_mismatch(checks, bundle.manifest.golden_tolerance, "the relearnt network")
    progress("learning", FOLDS + 1, FOLDS + 1)
    reference = {
        **preprocess_to_arrays(bundle.preprocess),
        **frame_reference(bundle.reference(), collection, kept, sequential=plan.sequential, forget=forget),
        "golden_frames": golden.frames,
        "golden_scores": golden.scores,
        **score_arrays(collection, kept, scores),
    }
    files = {NETWORK: network, MOMENTS: moments, REFERENCE: npz_bytes(reference)}
    update = {"backbone": backbone, "working_point": point}
    return manifest.model_copy(update=update), files, suspects


def _refuse_strangers(times: float) -> None:
    """Raise DatasetError where half of the parts are far beyond any defect: so many times the threshold."""
    if not times <= _STRANGER:
        raise DatasetError(
            what=f"these parts are not what the bundle knows: half of them score over {times:.0f} times its threshold",
            remedy="look at the camera; after a change of lamp or lens recalibrate with the mode full, for another "
            "product with teach",
        )


def _scored(bundle: Bundle, collection: PartStore, progress: Progress) -> Scores:
    """By the bundle's own network, which may be of any detector."""
    found = []
    with OnnxRuntimeEngine(bundle.network, 1) as engine:
        for index in range(len(collection)):
            found.append(engine(collection.frame(index)))
            progress("scoring", len(found), len(collection))
    return Scores(np.array([each.score for each in found], np.float32), np.stack([each.map for each in found]))


def _rate(bundle: Bundle, plan: RefitPlan) -> float:
    return plan.false_reject_rate or bundle.manifest.working_point.false_reject_rate


def _chi_square(bundle: Bundle, plan: RefitPlan, collection: PartStore, head: WhiteningHead) -> float | None:
    return chi_square_threshold(chi_square_scores(collection.features.shape, head.order), _rate(bundle, plan))


def _working_point(scores: Scores, rate: float, folds: int, chi_square: float | None) -> WorkingPointRecord:
    return WorkingPointRecord.of(working_point(scores.score.astype(np.float64), rate), folds, chi_square)


def _manifest(
    bundle: Bundle, collection: PartStore, plan: RefitPlan, suspects: list[int], effective_images: float
) -> Manifest:
    return bundle.manifest.model_copy(
        update={
            "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "software": software_versions(),
            "images": ImagesRecord(
                source=f"parts seen by the device, mode {plan.mode}",
                count=len(collection) - len(suspects),
                skipped=(),
                left_out=tuple(collection.names[index] for index in suspects),
            ),
            "augment": 0 if plan.mode == "teach" else bundle.manifest.augment,  # of parts nothing is varied
            "choice": None,
            "merge": None,
            "relearning": UpdateRecord(
                mode=plan.mode,
                parent=bundle.identity,
                parts=len(collection),
                old_weight=plan.old_weight if plan.mode == "full" else None,
                effective_images=effective_images,
            ),
        }
    )
