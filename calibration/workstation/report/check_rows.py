"""The camera checks of a bundle in words: which are on, and where their limits lie."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from calibration.camera_checks.frame_statistics import mean_grey_level
from calibration.camera_checks.limits import limits_from_arrays

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

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


def check_rows(reference: Mapping[str, NDArray[Any]], network_pixel: tuple[float, float]) -> list[tuple[str, str]]:
    """Name and state of each check, as text; none for a bundle that was made before there were checks.

    Args:
        reference: Arrays of ``reference.npz``.
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
        return _seen_from(reference["moved_seen_from"].tolist(), network_pixel)
    size = " x ".join(str(side) for side in reference["frame_size"][::-1])
    return {
        "resolution": f"not {size} pixels",
        "frozen": f"a change of at most {limit:.2g} grey levels from frame to frame",
        "dark": f"mean brightness below {mean_grey_level(limit):.0f} of 255",
        "over_exposed": f"mean brightness above {mean_grey_level(limit):.0f} of 255",
        "blurred_detail": f"variance of the Laplacian below {math.expm1(limit):.3g}",
        "blurred_edges": f"fine to coarse gradients below {math.exp(limit):.2g}",
        "blocked": f"more than {limit:.0%} of the picture unlike any good frame",
    }[name]


def _seen_from(pixels: list[float], network_pixel: tuple[float, float]) -> str:
    ways = ("to the side", "up or down")
    return ", ".join(
        f"unseen {way}" if math.isnan(count) else f"from {count * scale:.0f} pixels {way}"
        for way, count, scale in zip(ways, pixels, network_pixel, strict=True)
    )
