"""What a bundle has learned about frames, in words: the preprocessing, and the limits of the camera checks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from calibration.camera_checks.frame_statistics import mean_grey_level
from calibration.camera_checks.limits import limits_from_arrays
from calibration.plain_text import rounded

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

    from calibration.bundle.manifest import AlignmentRecord, PreprocessRecord

_NAMES = {
    "resolution": "Another resolution",
    "frozen": "Frozen",
    "dark": "Dark",
    "over_exposed": "Over-exposed",
    "blurred_detail": "Blurred, by detail",
    "blurred_edges": "Blurred, by edges",
    "blocked": "Blocked",
    "moved": "Moved",
}


def network_pixel(record: PreprocessRecord, reference: Mapping[str, NDArray[Any]]) -> tuple[float, float]:
    """Width and height of what a pixel of the network input covers, in frame pixels; of 1 if frames differ in size.

    ``reference`` has the arrays in ``reference.npz``.
    """
    size, region = [int(side) for side in reference.get("frame_size", ())], record.region
    rows, columns = size or (record.height, record.width)
    if region is not None:
        rows, columns = region.height, region.width
    return record.crop * columns / record.width, record.crop * rows / record.height


def preprocess_rows(record: PreprocessRecord, reference: Mapping[str, NDArray[Any]]) -> list[tuple[str, str]]:
    """Name and text of how a frame becomes network input, and of what that has learned."""
    width, height = network_pixel(record, reference)
    covers = f"; a network pixel covers {rounded(width, 2)} x {rounded(height, 2)} frame pixels"
    known = record.region is not None or len(reference.get("frame_size", ()))
    rows = [("Network input", f"{record.width} x {record.height} pixels{covers if known else ''}")]
    if record.crop < 1:
        rows.append(("Crop", f"the middle {record.crop:.1%} of each side of the region"))
    if record.alignment is not None:
        rows.append(("Alignment", _alignment(record.alignment)))
    if record.ignored is not None:
        rows.append(("Ignored", f"{record.ignored.share:.2%} of the region, painted over and never inspected"))
    return rows


def _alignment(record: AlignmentRecord) -> str:
    if record.least_prominence is None:
        return "off: nothing on these parts stands still; the region stays where it is"
    followed = f"the region follows the part by up to {record.limit_px} pixels"
    if record.median_px is not None:
        followed += f"; good parts were off by {record.median_px:.0f} (median), {record.p99_px:.0f} (99th percentile)"
    count = record.followed + record.too_far + record.not_found
    return f"{followed}; of {count:,} good images {record.not_found:,} not found, {record.too_far:,} farther off"


def check_rows(reference: Mapping[str, NDArray[Any]], network_pixel: tuple[float, float]) -> list[tuple[str, str]]:
    """Name and state of each check, as text; no rows for a bundle from before there were checks.

    Args:
        reference: Arrays in ``reference.npz``.
        network_pixel: Width and height of a pixel of the network input, in pixels of the frame.
    """
    return [
        (_NAMES[name], _state(name, limit.value, reference, network_pixel) + (f" ({limit.note})" if limit.note else ""))
        for name, limit in limits_from_arrays(reference).items()
    ]


def _state(name: str, limit: float, reference: Mapping[str, NDArray[Any]], network_pixel: tuple[float, float]) -> str:
    if math.isnan(limit):
        return "off"
    if name == "moved":
        return _visible_from(reference["moved_seen_from"].tolist(), network_pixel)
    size = " x ".join(str(side) for side in reference["frame_size"][::-1])
    return {
        "resolution": f"not {size} pixels",
        "frozen": f"a change of at most {rounded(limit, 2)} grey levels from frame to frame",
        "dark": f"mean brightness below {mean_grey_level(limit):.0f} of 255",
        "over_exposed": f"mean brightness above {mean_grey_level(limit):.0f} of 255",
        "blurred_detail": f"variance of the Laplacian below {rounded(math.expm1(limit), 3)}",
        "blurred_edges": f"fine to coarse gradients below {rounded(math.exp(limit), 2)}",
        "blocked": f"more than {limit:.0%} of the image unlike any good frame",
    }[name]


def _visible_from(pixels: list[float], network_pixel: tuple[float, float]) -> str:
    ways = ("to the side", "up or down")
    return ", ".join(
        f"unseen {way}" if math.isnan(count) else f"from {count * scale:.0f} pixels {way}"
        for way, count, scale in zip(ways, pixels, network_pixel, strict=True)
    )
