"""What a bundle will find, in words for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from calibration.plain_text import rounded
from calibration.statistics.forecast import RELIABLY

if TYPE_CHECKING:
    from calibration.bundle.manifest import ForecastRecord
    from calibration.statistics.forecast import Forecast

WHAT_THEY_ARE = (
    "These defects are drawn, not real: what is missed here is too small or too faint for this bundle; "
    "what is found here is no promise for defects that look different."
)


def smallest_found(forecast: Forecast, record: ForecastRecord) -> str:
    """The one sentence."""
    if record.smallest_px is None:
        return (
            f"none of these synthetic defects is found {RELIABLY * 10:.0f} times in 10; of the largest, "
            f"{side(record.largest_px, record)}, {_counted(forecast)} are"
        )
    return f"smallest of these synthetic defects that is found {RELIABLY * 10:.0f} times in 10: " + side(
        record.smallest_px, record
    )


def side(pixels: float, record: ForecastRecord) -> str:
    """A length in the frame."""
    millimetres = "" if record.mm_per_pixel is None else f" ({rounded(pixels * record.mm_per_pixel, 2)} mm)"
    return f"{pixels:.0f} pixels{millimetres}"


def one_good_part_in(rate: float) -> str:
    """A false-reject rate in terms of the line, with two digits."""
    return f"1 good part in {rounded(1 / rate, 2)}"


def blind_warning(forecast: Forecast, record: ForecastRecord, least_detection: float) -> str | None:
    """What to say where less than this share of the largest defects is found."""
    if record.largest_found >= least_detection:
        return None
    return (
        f"only {_counted(forecast)} of the largest synthetic defects, {side(record.largest_px, record)}, are found; "
        f"{least_detection:.0%} is the least to be asked for (--least-detection)"
    )


def _counted(forecast: Forecast) -> str:
    """How many of the largest are found."""
    largest = int((forecast.sides_px == forecast.sizes[-1]).sum())
    return f"{forecast.largest_found * largest:.0f} of {largest}"
