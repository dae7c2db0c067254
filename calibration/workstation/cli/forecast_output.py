"""What ``fit`` prints about what a bundle will find."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.table import Table

from calibration.terminal import console, say
from calibration.workstation.report.forecast_words import (
    WHAT_THEY_ARE,
    blind_warning,
    one_good_part_in,
    side,
    smallest_found,
)

if TYPE_CHECKING:
    from calibration.bundle.bundle import Bundle
    from calibration.bundle.manifest import ForecastRecord
    from calibration.statistics.forecast import Forecast


def print_forecast(bundle: Bundle, least_detection: float) -> None:
    """Print the smallest defect found, shares by size and kind, and what other thresholds would find."""
    forecast, record = bundle.forecast, bundle.manifest.forecast
    if forecast is None or record is None:
        return
    warning = blind_warning(forecast, record, least_detection)
    if warning:
        say(
            f"[bold red]perhaps nearly blind:[/] {warning}; try it on images of real defects if you have any "
            "(shiftwatch-calibrate evaluate); another --backbone, more images, a higher --false-reject-rate or "
            "--max-ms may help"
        )
    console.print(_table(forecast, record))
    say(f"[bold]{smallest_found(forecast, record)}[/]")
    for point in forecast.curve(forecast.usual_rates()):
        mark = "  <- the threshold" if point.false_reject_rate == forecast.own_rate else ""
        say(f"  {one_good_part_in(point.false_reject_rate)} rejected: {point.found:.0%} found{mark}")
    say(WHAT_THEY_ARE)


def _table(forecast: Forecast, record: ForecastRecord) -> Table:
    kinds = list(dict.fromkeys(forecast.kinds.tolist()))
    table = Table("side", title=f"of {record.drawn} synthetic defects in held-out good images, found")
    for title in (*kinds, "all"):
        table.add_column(title, justify="right")
    for pixels in forecast.sizes:
        shares = [forecast.found(sizes=[pixels], kind=kind) for kind in (*kinds, None)]
        table.add_row(side(pixels, record), *(f"{share:.0%}" for share in shares))
    return table
