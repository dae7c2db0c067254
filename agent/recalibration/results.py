"""What a recalibration has found, as `cmd/ack` and the audit log tell it."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from agent.messages.records import Payload, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.recalibration.ipc import Told


def refit_results(told: Told, threshold_before: float) -> Payload:
    """What the learning process told when it had learnt."""
    proof = told["proof"]
    return {
        "bundle": told["identity"],
        "parts": told["parts"],
        "leftOut": told["leftOut"],
        "leftOutResults": told["leftOutNames"],
        "markedGood": told["marked"],
        "markedGoodLeftOut": told["markedLeftOut"],
        "thresholdBefore": threshold_before,
        "threshold": told["threshold"],
        "falseRejects": proof["false_rejects"],
        "syntheticFoundBefore": proof["synthetic_old"],
        "syntheticFound": proof["synthetic_new"],
        "markedDefects": proof["defects"],
        "markedDefectsFoundBefore": proof["defects_old"],
        "markedDefectsFound": proof["defects_new"],
        "objections": told["objections"],
        "peakMemoryMib": round(told["peakMib"], 1),
    }


def shadow_results(told: Told) -> Payload:
    """What it told when both bundles had judged the same parts."""
    parts = told["parts"]
    return {
        "shadowParts": parts,
        "agreement": told["agreed"] / parts,
        "notOkBefore": told["badBefore"] / parts,
        "notOk": told["bad"] / parts,
        "peakMemoryMib": round(told["peakMib"], 1),
    }


def digest(figures: Mapping[str, object]) -> str:
    """SHA-256 of the figures as JSON with sorted keys, which the log holds."""
    return sha256(text(figures).encode()).hexdigest()


def text(figures: Mapping[str, object]) -> str:
    """As JSON, keys sorted."""
    return to_json(dict(sorted(figures.items())))
