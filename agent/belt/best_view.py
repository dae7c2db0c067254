"""The best of the frames that show a part."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2

from agent.belt.track import BestView

if TYPE_CHECKING:
    from agent.belt.outlines import Outline
    from agent.camera import Frame

_AS_SHARP = 0.7
_LONGEST_SIDE_PX = 512


def better(best: BestView | None, frame: Frame, outline: Outline, distance: float, scale: float) -> BestView:
    """The better of two views: the nearer one to the middle of the picture, unless it is clearly less sharp.

    Args:
        best: The best one so far.
        frame: Shows the part wholly.
        outline: Its, in the small picture.
        distance: From the middle of the picture, along the belt.
        scale: Frame pixels in one of the small picture.
    """
    sharpness = _sharpness(frame, outline, scale)
    view = BestView(frame, outline, sharpness, distance)
    if best is None:
        return view
    if distance < best.distance:
        return view if sharpness >= _AS_SHARP * best.sharpness else best
    return view if best.sharpness < _AS_SHARP * sharpness else best


def _sharpness(frame: Frame, outline: Outline, scale: float) -> float:
    """Standard deviation of the Laplacian over the part's rectangle."""
    left, top, right, bottom = (round(side * scale) for side in outline.sides)
    step = max(1, (max(right - left, bottom - top) - 1) // _LONGEST_SIDE_PX + 1)
    shown = frame.image[top:bottom, left:right]
    if step > 1:  # a window in its middle: leaving out pixels would look sharp
        rows, columns = (min(side, _LONGEST_SIDE_PX) for side in shown.shape[:2])
        y, x = (shown.shape[0] - rows) // 2, (shown.shape[1] - columns) // 2
        shown = shown[y : y + rows, x : x + columns]
    if not shown.size:
        return 0.0
    change = cv2.Laplacian(cv2.cvtColor(shown, cv2.COLOR_BGR2GRAY), cv2.CV_16S)
    return float(cv2.meanStdDev(change)[1].item())
