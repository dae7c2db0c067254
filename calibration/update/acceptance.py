"""Whether a bundle that learnt on is fit to judge: what it would have done, before it does."""

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
    from calibration.update.part_store import PartStore

SYNTHETIC = 36
"""Three of each kind and size."""


@dataclass(frozen=True)
class AcceptanceResult:
    """What was found.

    Attributes:
        false_rejects: Share of the learnt parts that score above the new threshold, under statistics without them.
        synthetic_old: Share of synthetic defects on the old bundle's golden frames that it finds.
        synthetic_new: The same of the new bundle, on collected parts.
        defects: Known defects that were tried.
        defects_old: Of these the old bundle finds so many.
        defects_new: And the new one.
    """

    false_rejects: float
    synthetic_old: float
    synthetic_new: float
    defects: int
    defects_old: int
    defects_new: int


def check_acceptance(
    old: Bundle, new: Bundle, collection: PartStore, known_defects: Sequence[Image], threads: int
) -> AcceptanceResult:
    """Try both on defects.

    Args:
        old: That judges now.
        new: That may judge next.
        collection: What it learnt from.
        known_defects: Network inputs of parts that a person called defective.
        threads: Of the networks.
    """
    left_out = set(new.manifest.images.left_out)
    kept = [index for index, name in enumerate(collection.names) if name not in left_out]
    chosen = [kept[row] for row in np.linspace(0, len(kept) - 1, SYNTHETIC).round().astype(int)]
    good = old.golden().frames[:-1]  # the last is damaged
    before = _damaged([good[number % len(good)] for number in range(SYNTHETIC)])
    now = _damaged([collection.frame(index) for index in chosen])
    scores = new.reference()["good_scores"]
    return AcceptanceResult(
        false_rejects=float(np.mean(scores > new.manifest.working_point.threshold)),
        synthetic_old=_found(old, before, threads) / SYNTHETIC,
        synthetic_new=_found(new, now, threads) / SYNTHETIC,
        defects=len(known_defects),
        defects_old=_found(old, known_defects, threads),
        defects_new=_found(new, known_defects, threads),
    )


def acceptance_failures(proof: AcceptanceResult, min_detection: float) -> list[str]:
    """Why it must not judge, for people; empty where nothing speaks against it.

    Args:
        proof: What was found.
        min_detection: So large a share of the defects that the old bundle finds must be found by the new one.
    """
    found = []
    if proof.synthetic_new < min_detection * proof.synthetic_old:
        found.append(
            f"of synthetic defects it finds {proof.synthetic_new:.0%}, where the old bundle found "
            f"{proof.synthetic_old:.0%} when it was made"
        )
    if proof.defects_new < min_detection * proof.defects_old:
        found.append(
            f"of {proof.defects} pictures marked as defects it finds {proof.defects_new}, the old bundle "
            f"{proof.defects_old}"
        )
    return found


def _damaged(frames: Sequence[Image]) -> list[Image]:
    random = np.random.default_rng(0)
    return [with_defect(frame, number, random) for number, frame in enumerate(frames)]


def _found(bundle: Bundle, frames: Sequence[Image], threads: int) -> int:
    """How many are above the threshold."""
    if not frames:
        return 0
    threshold = bundle.manifest.working_point.threshold
    with OnnxRuntimeEngine(bundle.network, threads) as engine:
        return sum(not engine(frame).score <= threshold for frame in frames)
