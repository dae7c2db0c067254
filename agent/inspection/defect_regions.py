"""Finds the defects of a score map in the frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np

from agent.messages.records import DefectRegion

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Region

_MAX_REGIONS = 8


def defect_regions(
    score_map: NDArray[np.float32], threshold: float, area: Region, frame: Region, zone: str | None = None
) -> tuple[DefectRegion, ...]:
    """Bounding boxes of the connected areas above the threshold, the worst first, at most eight.

    Args:
        score_map: (h, w).
        threshold: A score above it is a defect.
        area: What the map covers, in frame pixels; moved with a part, it may reach beyond the frame.
        frame: The whole frame, to which the boxes are clipped.
        zone: Name of the zone, for the result.
    """
    # In double precision, like the verdict: a score just above the threshold must have a region.
    above = (score_map.astype(np.float64) > threshold).astype(np.uint8)
    count, labels, boxes, _ = cv2.connectedComponentsWithStats(above, connectivity=8)
    rows, columns = score_map.shape
    found = []
    for label in range(1, count):
        left, top, width, height = (int(value) for value in boxes[label][:4])
        x, right = (area.x + round(edge * area.width / columns) for edge in (left, left + width))
        y, bottom = (area.y + round(edge * area.height / rows) for edge in (top, top + height))
        # A defect in the repeated border belongs to the border.
        x, y = min(max(x, 0), frame.width - 1), min(max(y, 0), frame.height - 1)
        right, bottom = max(min(right, frame.width), x + 1), max(min(bottom, frame.height), y + 1)
        found.append(DefectRegion(x, y, right - x, bottom - y, float(score_map[labels == label].max()), zone))
    return tuple(sorted(found, key=lambda region: -region.score)[:_MAX_REGIONS])
