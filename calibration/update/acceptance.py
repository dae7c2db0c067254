"""Acceptance test of a refitted bundle on known and synthetic defects, before it becomes active."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.synthetic_defects import with_defect

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibration.bundle.bundle import Bundle
    from calibration.imaging.preprocess import Image
    from calibration.update.marked_defects import MarkedDefects
    from calibration.update.part_store import PartStore

_SYNTHETIC = 36  # three of each kind and size


@dataclass(frozen=True)
class AcceptanceResult:
    """Detection rates of the old and the new bundle.

    Attributes:
        false_rejects: Share of the parts that score above the new threshold, in cross-validation.
        synthetic_old: Share of synthetic defects, on the old bundle's golden frames, that the old bundle finds.
        synthetic_new: Share of synthetic defects, on collected parts, that the new bundle finds.
        defects: Number of known defects tried.
        defects_old: Number of these that the old bundle finds.
        defects_new: Number of these that the new bundle finds.
    """

    false_rejects: float
    synthetic_old: float
    synthetic_new: float
    defects: int
    defects_old: int
    defects_new: int


def check_acceptance(
    old: Bundle, new: Bundle, parts: PartStore, marked: tuple[MarkedDefects, MarkedDefects], threads: int
) -> AcceptanceResult:
    """Try both bundles on synthetic and known defects.

    Args:
        old: The active bundle.
        new: The refitted bundle.
        parts: The parts of the refit.
        marked: Parts that a person called defective, under the old and under the refitted bundle.
        threads: Threads of the networks.
    """
    left_out = set(new.manifest.images.left_out)
    kept = [index for index, name in enumerate(parts.names) if name not in left_out]
    chosen = [kept[row] for row in np.linspace(0, len(kept) - 1, _SYNTHETIC).round().astype(int)]
    golden = old.golden().frames[:-1]  # the last is damaged
    old_defects = _damaged([golden[number % len(golden)] for number in range(_SYNTHETIC)])
    new_defects = _damaged([parts.frame(index) for index in chosen])
    scores = new.reference()["good_scores"]
    return AcceptanceResult(
        false_rejects=float(np.mean(scores > new.manifest.working_point.threshold)),
        synthetic_old=_found(old, old_defects, threads) / _SYNTHETIC,
        synthetic_new=_found(new, new_defects, threads) / _SYNTHETIC,
        defects=len(marked[0].scores),
        defects_old=marked[0].found,
        defects_new=marked[1].found,
    )


def acceptance_failures(result: AcceptanceResult, min_detection: float) -> list[str]:
    """Reasons against the new bundle, for people, if it finds less than this share of what the old one finds."""
    failures = []
    if result.synthetic_new < min_detection * result.synthetic_old:
        failures.append(
            f"it finds {result.synthetic_new:.0%} of synthetic defects; the old bundle found {result.synthetic_old:.0%}"
        )
    if result.defects_new < min_detection * result.defects_old:
        failures.append(
            f"it finds {result.defects_new} of {result.defects} images marked as defects; the old bundle finds "
            f"{result.defects_old}"
        )
    return failures


def _damaged(frames: Sequence[Image]) -> list[Image]:
    random = np.random.default_rng(0)
    return [with_defect(frame, number, random) for number, frame in enumerate(frames)]


def _found(bundle: Bundle, frames: Sequence[Image], threads: int) -> int:
    """Number of frames above the threshold."""
    threshold = bundle.manifest.working_point.threshold
    with OnnxRuntimeEngine(bundle.network, threads) as engine:
        return sum(not engine(frame).score <= threshold for frame in frames)
