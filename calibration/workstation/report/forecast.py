"""The section of the report on what will be found."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, Any

import numpy as np

from calibration.statistics.forecast import LEAST_DETECTION
from calibration.workstation.report.curve import detection_curve
from calibration.workstation.report.forecast_words import (
    WHAT_THEY_ARE,
    blind_warning,
    side,
    smallest_found,
)
from calibration.workstation.report.html import img, one_in, percent, section, table

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.bundle.bundle import Bundle
    from calibration.bundle.manifest import ForecastRecord
    from calibration.statistics.forecast import Forecast


def forecast_of(bundle: Bundle, reference: dict[str, NDArray[Any]]) -> str:
    """What the bundle will find; ``reference`` has the arrays in its ``reference.npz``."""
    forecast, record = bundle.forecast, bundle.manifest.forecast
    title = "What it will find"
    if forecast is None or record is None:
        return section(title, "<p>Not measured: the bundle was merged, or made by older software.</p>")
    sentence = smallest_found(forecast, record)
    warning = blind_warning(forecast, record, LEAST_DETECTION)
    rates = [
        (f"{one_in(point.false_reject_rate)} rejected", _found_at(point.found, is_own=is_own))
        for point in forecast.curve(forecast.usual_rates())
        for is_own in (point.false_reject_rate == forecast.own_rate,)
    ]
    return section(
        title,
        f'<p class="promise">{escape(sentence[0].upper() + sentence[1:])}.</p>',
        f'<div class="note"><p><b>Nearly blind</b>: {escape(warning)}.</p></div>' if warning else "",
        f"<p>{record.drawn} defects were drawn into some of the good images, with sizes in frame pixels and "
        "the contrast that these images show themselves. Each was scored by statistics that had not seen "
        f"its image; {percent(record.found)} are found. {escape(WHAT_THEY_ARE)}</p>",
        _matrix(forecast, record, reference["defect_pictures"]),
        '<p class="small">One of each, and how many of its kind and size are found. A red frame: the one shown is '
        "missed.</p>",
        "<h3>If more or fewer good parts may be rejected</h3>",
        detection_curve(forecast),
        '<p class="axis-title">good parts rejected (logarithmic), per cent of the synthetic defects found</p>',
        table(rates),
    )


def _found_at(found: float, *, is_own: bool) -> str:
    text = f"{percent(found)} found"
    return f"<b>{text}</b>, at the threshold" if is_own else text


def _matrix(forecast: Forecast, record: ForecastRecord, pictures: NDArray[np.uint8]) -> str:
    """A row for each size, a column for each kind: a picture, and how many are found."""
    kinds = list(dict.fromkeys(forecast.kinds.tolist()))
    head = "".join(f'<th scope="col">{escape(title)}</th>' for title in ("Side in the frame", *kinds, "all"))
    rows = "".join(
        f'<tr><th scope="row">{escape(side(pixels, record))}</th>'
        + "".join(f"<td>{_cell(forecast, pixels, kind, pictures)}</td>" for kind in kinds)
        + f"<td>{percent(forecast.found(sizes=[pixels]))}</td></tr>"
        for pixels in forecast.sizes
    )
    return f'<table class="matrix"><thead><tr>{head}</tr></thead><tbody>{rows}</tbody></table>'


def _cell(forecast: Forecast, pixels: int, kind: str, pictures: NDArray[np.uint8]) -> str:
    (chosen,) = np.nonzero((forecast.kinds == kind) & (forecast.sides_px == pixels))
    found = forecast.scores[chosen] > forecast.point.threshold
    shown = ""
    if len(chosen) and chosen[0] < len(pictures):
        verdict = "found" if found[0] else "missed"
        shown = f'<figure class="{verdict}">{img(pictures[chosen[0]], f"{kind}, {pixels} pixels, {verdict}")}</figure>'
    return f"{shown}{int(found.sum())} of {len(found)}"
