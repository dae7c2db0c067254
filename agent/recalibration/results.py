"""The figures of a recalibration, as `cmd/ack` and the audit log show them."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from agent.messages.records import Payload, to_json

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.recalibration.ipc import WorkerReport


def refit_results(report: WorkerReport, threshold_before: float) -> Payload:
    """Figures of a ``fitted`` report."""
    acceptance = report["acceptance"]
    return {
        "bundle": report["identity"],
        "parts": report["parts"],
        "leftOut": report["leftOut"],
        "leftOutResults": report["leftOutNames"],
        "markedGood": report["labelledGood"],
        "markedGoodLeftOut": report["labelledGoodLeftOut"],
        "thresholdBefore": threshold_before,
        "threshold": report["threshold"],
        "falseRejects": acceptance["false_rejects"],
        "syntheticFoundBefore": acceptance["synthetic_old"],
        "syntheticFound": acceptance["synthetic_new"],
        "markedDefects": acceptance["defects"],
        "markedDefectsFoundBefore": acceptance["defects_old"],
        "markedDefectsFound": acceptance["defects_new"],
        "objections": report["objections"],
        "peakMemoryMib": round(report["peakMib"], 1),
    }


def shadow_results(report: WorkerReport) -> Payload:
    """Figures of a ``shadowed`` report."""
    parts = report["parts"]
    return {
        "shadowParts": parts,
        "agreement": report["agreed"] / parts,
        "notOkBefore": report["badBefore"] / parts,
        "notOk": report["bad"] / parts,
        "peakMemoryMib": round(report["peakMib"], 1),
    }


def digest(figures: Mapping[str, object]) -> str:
    """SHA-256 of the figures as JSON with sorted keys, as the log has them."""
    return sha256(text(figures).encode()).hexdigest()


def text(figures: Mapping[str, object]) -> str:
    """As JSON, keys sorted."""
    return to_json(dict(sorted(figures.items())))
