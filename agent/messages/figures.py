"""The figures of a recalibration, for people: in the terminal and on the page."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calibration.plain_text import rounded

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.messages.records import Payload

_LABELS = {
    "collected": "parts collected",
    "notCollected": "not collected",
    "leftOut": "left out as suspicious",
    "leftOutResults": "these results",
    "markedGood": "images labelled good, added",
    "markedGoodLeftOut": "of these left out as suspicious",
    "thresholdBefore": "threshold before",
    "threshold": "threshold",
    "falseRejects": "false rejects among the parts",
    "syntheticFoundBefore": "synthetic defects found before",
    "syntheticFound": "synthetic defects found",
    "largestSyntheticFound": "of the largest found",
    "largestSyntheticPx": "their side in frame pixels",
    "smallestFoundPx": "side from which 9 in 10 are found",
    "markedDefects": "images labelled as defects",
    "markedDefectsFoundBefore": "of these found before",
    "markedDefectsFound": "of these found",
    "markedDefectResults": "their scores",
    "objections": "objections",
    "shadowParts": "parts scored by both bundles",
    "agreement": "of these with the same verdict",
    "notOkBefore": "of these NotOK before",
    "notOk": "of these NotOK",
    "bundle": "bundle",
}
_SHARES = {
    "falseRejects",
    "syntheticFoundBefore",
    "syntheticFound",
    "largestSyntheticFound",
    "agreement",
    "notOkBefore",
    "notOk",
}


def figure_rows(figures: Payload) -> Iterator[tuple[str, str]]:
    """Name and value of each figure that there is."""
    for name, label in _LABELS.items():
        if figures.get(name) not in (None, [], {}):
            yield label, _value(name, figures[name])


def _value(name: str, value: object) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{count} {cause}" for cause, count in value.items())
    if name == "markedDefectResults" and isinstance(value, list):
        return "; ".join(map(_marked, value))
    if isinstance(value, list):
        return "; ".join(map(str, value))
    if isinstance(value, float):
        return f"{value:.1%}" if name in _SHARES else f"{value:g}"
    return str(value)


def _marked(result: Payload) -> str:
    """One marked defect under the old and the new bundle."""
    before, now = ("found" if result[key] else "missed" for key in ("foundBefore", "found"))
    scores = rounded(result["scoreBefore"], 4), rounded(result["score"], 4)
    return f"{result['resultId'][:12]} {scores[0]} ({before}) -> {scores[1]} ({now})"
