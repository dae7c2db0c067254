"""The program of the process that teaches: calibrates each zone, and writes down what its bundle will find.

It does what `shiftwatch-calibrate fit` does with the same region, ignored areas and false-reject rate.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from calibration.atomic_file import replace_file
from calibration.errors import ShiftwatchError
from calibration.imaging.preprocess import Preprocess
from calibration.imaging.region import Region
from calibration.statistics.forecast import LEAST_DETECTION
from calibration.workstation.fit.pipeline import FitOptions, calibrate_folder
from calibration.workstation.report.forecast_words import blind_warning, one_good_part_in, side, smallest_found
from calibration.workstation.settings import USUAL_SIDE, PreprocessRequest, Settings

if TYPE_CHECKING:
    import socket
    from collections.abc import Mapping

    from calibration.bundle.bundle import Bundle


def main(order: dict[str, Any], to_parent: socket.socket) -> None:
    """See `Teaching`."""

    def report(kind: str, **more: object) -> None:
        to_parent.sendall(json.dumps({"kind": kind, **more}).encode())

    try:
        report("done", zones=_teach(order, report))
    except ShiftwatchError as error:
        report("failed", what=error.what, remedy=error.remedy)


def _teach(order: dict[str, Any], report: Any) -> int:  # noqa: ANN401 - the function above
    out, facts = Path(order["out"]), []
    for zone in order["zones"]:
        name = zone["name"] or ""

        def progress(step: str, done: int, total: int, zone: str = name) -> None:
            report("progress", zone=zone, step=step, done=done, total=total)

        settings = Settings(
            Preprocess(USUAL_SIDE, USUAL_SIDE, None if zone["region"] is None else Region(*zone["region"])),
            learn=PreprocessRequest(ignored=[Region(*sides) for sides in zone["ignored"]], choose_size=True),
            false_reject_rate=order["falseRejectRate"],
            threads=order["threads"],
        )
        path = out / (name or "bundle")
        options = FitOptions(Path(order["images"]), path, settings, left_out=frozenset(order["leftOut"]))
        taught = facts_of(calibrate_folder(options, progress))
        facts.append({"zone": name, "region": zone["region"], "ignored": zone["ignored"], **taught})
    replace_file(Path(order["facts"]), json.dumps(facts).encode())
    return len(facts)


def facts_of(bundle: Bundle) -> dict[str, Any]:
    """What the page shows of a bundle."""
    manifest, forecast, reference = bundle.manifest, bundle.forecast, bundle.reference()
    record, point = manifest.forecast, manifest.working_point
    facts: dict[str, Any] = {
        "images": manifest.images.count,
        "skipped": list(manifest.images.skipped),
        "findings": [{"what": each.what, "images": list(each.images)} for each in manifest.images.findings],
        "threshold": point.threshold,
        "falseRejectRate": point.false_reject_rate,
        "method": point.method,
        **{each: _scored(reference, each, point.threshold) for each in ("suspicious", "highest")},
    }
    if forecast is not None and record is not None:
        facts["forecast"] = {
            "smallest": smallest_found(forecast, record),
            "warning": blind_warning(forecast, record, LEAST_DETECTION),
            "found": forecast.found(),
            "sizes": [
                {"side": side(pixels, record), "found": forecast.found(sizes=[pixels])} for pixels in forecast.sizes
            ],
            "curve": [
                {"rejected": one_good_part_in(each.false_reject_rate), "found": each.found}
                for each in forecast.curve(forecast.usual_rates())
            ],
        }
    return facts


def _scored(reference: Mapping[str, Any], kind: str, threshold: float) -> list[dict[str, Any]]:
    """Images of a kind with their held-out scores."""
    named = zip(reference[f"{kind}_names"], reference[f"{kind}_scores"].tolist(), strict=True)
    return [{"name": Path(str(name)).name, "score": score, "ratio": score / threshold} for name, score in named]
