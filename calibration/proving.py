"""Whether a bundle that learnt on is fit to judge: what it would have done, before it does."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibration.bundle import Bundle
    from calibration.collection import Collection
    from calibration.preprocess import Image


@dataclass(frozen=True)
class Proof:
    """What was found.

    Attributes:
        false_rejects: Share of the collected parts (without those left out) that score above the new threshold, out of fold.
        synthetic_old: Share of synthetic defects on the old bundle's own good frames that it found.
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


def prove(old: Bundle, new: Bundle, collection: Collection, known_defects: Sequence[Image], threads: int) -> Proof:
    """Try both on defects.

    Args:
        old: That judges now.
        new: That may judge next.
        collection: What it learnt from.
        known_defects: Network inputs of parts that a person called defective.
        threads: Of the networks.
    """
    raise NotImplementedError


def objections(proof: Proof, min_detection: float) -> list[str]:
    """Why it must not judge, for people; empty where nothing speaks against it.

    Args:
        proof: What was found.
        min_detection: So large a share of the defects that the old bundle finds must be found by the new one.
    """
    raise NotImplementedError
