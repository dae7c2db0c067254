"""Merges bundles into one network for all their images, without the images and without torch.

Mean, covariance, whitening, network and the scores of golden frames are exact, as from one fit to all images. The
threshold is an estimate, see ``rescoring``. Each camera check gets the most lenient limit, see ``camera_checks.merge``.
"""

from __future__ import annotations

from dataclasses import dataclass
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
from calibration.bundle.golden_frames import GOOD_FRAMES, GoldenFrames
from calibration.bundle.manifest import (
    ImagesRecord,
    Manifest,
    MergeRecord,
    ParentRecord,
    WorkingPointRecord,
    software_versions,
)
from calibration.bundle.preprocess_record import preprocess_to_arrays
from calibration.camera_checks.merge import merged_reference
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import BundleError
from calibration.network.fusion import replace_head, without_head
from calibration.statistics.chi_square import simulated_threshold
from calibration.statistics.moments import Moments, merged
from calibration.statistics.scores import chi_square_scores
from calibration.statistics.threshold import CHI_SQUARE, working_point
from calibration.update.additive import additive_detector
from calibration.update.merge_checks import refuse_different_features, refuse_different_settings, refuse_invalid_inputs
from calibration.update.rescoring import KeptFrames, concatenate_scores, rescale_scores

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.bundle.bundle import Bundle
    from calibration.detectors.contract import AdditiveDetector
    from calibration.detectors.head import WhiteningHead


def merge(bundles: Sequence[Bundle], weights: Sequence[float], path: Path, threads: int = 0) -> Bundle:
    """Write the bundle of all images of the given bundles.

    Args:
        bundles: Two or more, of the same network, preprocessing and detector.
        weights: Weight of an image of each bundle in the statistics, in (0, 1]; see ``Moments.weighted``.
        path: Folder of the new bundle; must not exist.
        threads: Threads of the network; 0 takes one for each core.

    Raises:
        SettingError: The bundles cannot be added, with every reason; or a weight is out of range.
        BundleError: The folder exists, or a bundle was made by older software.
        ScoreMismatchError: The network does not reproduce the scores of its statistics.
        StorageError: The disk is full; nothing half-written is left.
    """
    refuse_existing(path)
    refuse_invalid_inputs(bundles, weights)
    refuse_different_settings(bundles)
    detector = additive_detector(bundles[0].manifest.detector)
    refuse_different_features(bundles, threads)
    network = bundles[0].network.read_bytes()
    with threadpool_limits(1, "blas"), OnnxRuntimeEngine(without_head(network), threads) as engine:
        parents = [_Parent.of(bundle, weight, engine) for bundle, weight in zip(bundles, weights, strict=True)]
        total = merged([parent.moments.weighted(parent.weight) for parent in parents])
        head = detector.head(total)
        good = concatenate_scores([parent.rescaled_scores(detector, total) for parent in parents])
        golden = _golden(parents)
        scores = head.scores(np.stack([engine.reduced(frame) for frame in golden["golden_frames"]]))
    golden_frames = GoldenFrames(golden["golden_frames"], scores.score.astype(np.float64))
    point = _working_point(parents, good["good_scores"], head)
    manifest = _manifest(parents, total, point)
    merged_network = replace_head(network, head)
    with OnnxRuntimeEngine(merged_network, threads) as engine:
        checks = golden_checks(golden_frames, point.threshold, engine)
    refuse_mismatch(checks, manifest.golden_tolerance, "the merged network")
    frames = [frame for parent in parents for frame in parent.kept.frames]
    reference = {
        **preprocess_to_arrays(bundles[0].preprocess),
        **merged_reference([parent.reference for parent in parents], frames),
        **golden,
        "golden_scores": golden_frames.scores,
        **good,
    }
    return write_bundle(
        path, manifest, {NETWORK: merged_network, MOMENTS: npz_bytes(total.packed()), REFERENCE: npz_bytes(reference)}
    )


@dataclass(frozen=True)
class _Parent:
    """One of the bundles, with the contents of its files."""

    manifest: Manifest
    identity: str
    weight: float
    moments: Moments
    reference: dict[str, NDArray[Any]]
    kept: KeptFrames

    @classmethod
    def of(cls, bundle: Bundle, weight: float, engine: OnnxRuntimeEngine) -> _Parent:
        reference = bundle.reference()
        if "highest_frames" not in reference:
            raise BundleError(
                what=f"{bundle.path} was made by older software and lacks the frames for estimating a threshold",
                remedy="calibrate again",
            )
        kept = KeptFrames.of(reference, engine.reduced)
        return cls(bundle.manifest, bundle.identity, weight, Moments.unpacked(bundle.moments()), reference, kept)

    def rescaled_scores(self, detector: AdditiveDetector, total: Moments) -> dict[str, NDArray[Any]]:
        kept = self.kept.scaled(self.weight)
        old = self.kept.held_out_scores(detector, self.moments)
        if self.manifest.working_point.folds == self.manifest.images.count:  # leave-one-out, as here
            old.score[kept.golden :] = self.reference["highest_scores"]
        return rescale_scores(self.reference, kept, old, kept.held_out_scores(detector, total))


def _golden(parents: Sequence[_Parent]) -> dict[str, NDArray[Any]]:
    """Golden frames of each bundle in turn, up to the number of a fit, and the damaged one of the first bundle."""
    candidates = [
        (parent.reference["golden_frames"][turn], parent.weight * float(parent.kept.weights[turn]))
        for turn in range(GOOD_FRAMES)
        for parent in parents
        if turn < parent.kept.golden
    ]
    frames, weights = zip(*candidates[:GOOD_FRAMES], strict=True)
    damaged = parents[0].reference["golden_frames"][-1]
    return {"golden_frames": np.stack([*frames, damaged]), "golden_weights": np.array(weights)}


def _working_point(parents: Sequence[_Parent], scores: NDArray[np.float64], head: WhiteningHead) -> WorkingPointRecord:
    """The working point at the lowest false-reject rate of the bundles."""
    rate = min(parent.manifest.working_point.false_reject_rate for parent in parents)
    law = chi_square_scores(parents[0].kept.reduced.shape[1:], head.order, head.smoothing)
    chi_square = simulated_threshold(law, rate)
    by_law = parents[0].manifest.working_point.method == CHI_SQUARE
    point = working_point(scores, rate, chi_square=chi_square if by_law else None)
    folds = sum(parent.manifest.working_point.folds for parent in parents)
    return WorkingPointRecord.of(point, folds, chi_square)


def _manifest(
    parents: Sequence[_Parent],
    total: Moments,
    point: WorkingPointRecord,
) -> Manifest:
    first = parents[0].manifest
    images = [parent.manifest.images for parent in parents]
    vectors_per_image = parents[0].moments.effective_count / first.effective_images
    record = MergeRecord(
        parents=tuple(
            ParentRecord(
                identity=parent.identity,
                sources=parent.manifest.sources,
                images=parent.manifest.images.count,
                weight=parent.weight,
            )
            for parent in parents
        ),
        effective_images=total.effective_count / vectors_per_image,
        rescored=sum(len(parent.reference["highest_scores"]) for parent in parents),
    )
    return first.model_copy(
        update={
            "created_at": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "software": software_versions(),
            "images": ImagesRecord(
                source=" + ".join(dict.fromkeys(source for parent in parents for source in parent.manifest.sources)),
                count=sum(each.count for each in images),
                skipped=tuple(name for each in images for name in each.skipped),
                left_out=tuple(name for each in images for name in each.left_out),
                findings=tuple(finding for each in images for finding in each.findings),
            ),
            "working_point": point,
            "forecast": None,  # it would need the images
            "choice": None,
            "merge": record,
            "golden_tolerance": max(parent.manifest.golden_tolerance for parent in parents),
        }
    )
