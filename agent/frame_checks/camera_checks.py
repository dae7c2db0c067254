"""Checks whether a frame can be trusted: compared with calibration it may be dark, blocked, frozen, moved and so on.

A part on a frame that cannot be trusted is NotDecidable, whatever its score.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.messages.records import ResultCode
from calibration.camera_checks import frame_statistics
from calibration.camera_checks.limits import Limit, limits_from_arrays
from calibration.errors import DatasetError
from calibration.imaging.orientation import Structure, edge_directions
from calibration.imaging.region import to_grey

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from numpy.typing import NDArray

    from calibration.imaging.preprocess import Image, PartLocation, Preprocess

_NAMES = ("resolution", "dark", "over_exposed", "moved", "blocked", "blurred_detail", "blurred_edges")
_LOWER = {"dark", "blurred_detail", "blurred_edges"}
_CAUSES = {
    ResultCode.FRAME_UNUSABLE: "camera resolution",
    ResultCode.DARK: "camera dark",
    ResultCode.OVER_EXPOSED: "camera over-exposed",
    ResultCode.BLOCKED: "camera blocked",
    ResultCode.BLURRED: "camera blurred",
    ResultCode.FROZEN: "camera frozen",
    ResultCode.MOVED: "camera moved",
    ResultCode.DAMAGED: "camera damaged frames",
}
_MEASURED = frozenset(_CAUSES) - {ResultCode.FRAME_UNUSABLE}


def alert_cause(code: ResultCode) -> str | None:
    """Cause of the camera alert for this code; None if it is not a camera fault."""
    return _CAUSES.get(code)


class FrameFault(NamedTuple):
    """Why a frame cannot be trusted; of a camera fault, what was measured in this frame follows a colon."""

    code: ResultCode
    fault: str


def without_measurement(code: ResultCode, fault: str) -> str:
    """The text of a fault that stays the same from frame to frame."""
    return fault.partition(": ")[0] if code in _MEASURED else fault


def _moved(right: int, down: int) -> FrameFault:
    return FrameFault(
        ResultCode.MOVED, f"the camera has moved: the image is off by {right:+d}, {down:+d} pixels (right, down)"
    )


class FrameChecks:
    """Checks the frames of one camera against one bundle; remembers the frame before.

    Call ``of_frame`` for each frame and then, unless it found a fault, ``of_input``; or ``pass_over`` alone.

    Args:
        reference: Arrays of ``reference.npz``. Checks whose arrays an older bundle lacks are off.
        preprocess: The preprocessing of the bundle.
        frozen_after: Number of frames in a row without a difference after which the camera is frozen; more where good
            frames stood still for long. None for files, which may repeat themselves.
        recheck_ms: Interval of the checks of position and sharpness: mounts and lenses change slowly. A fault that
            they found holds until the next check.
        clock_ns: Monotonic clock.

    Attributes:
        off: Checks that cannot be made, with the reason.
    """

    def __init__(
        self,
        reference: Mapping[str, NDArray[Any]],
        preprocess: Preprocess,
        *,
        frozen_after: int | None,
        recheck_ms: int = 0,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        missing = Limit(math.nan, "the bundle was made before this check existed")
        limits = dict.fromkeys(_NAMES, missing)
        limits["frozen"] = Limit(0.0)  # identical frames need no calibration
        limits.update(limits_from_arrays(reference))
        self.off = {name: limit.note for name, limit in limits.items() if not limit.is_on}
        # A limit that nothing exceeds switches a check off.
        never = {name: -math.inf if name in _LOWER else math.inf for name in self.off}
        self._limits = {name: limit.value for name, limit in limits.items()} | never
        self._preprocess = preprocess
        still_at_most = 2 * int(reference.get("still_at_most", 0))
        self._frozen_after = math.inf if frozen_after is None else max(frozen_after, still_at_most)
        self._size = None if "resolution" in self.off else tuple(reference["frame_size"].tolist())
        self._known = None if "blocked" in self.off else (reference["blocks_least"], reference["blocks_most"])
        self._structure = None if "moved" in self.off else Structure(reference["structure"])
        self._recognised = math.inf if self._structure is None else float(reference["moved_recognised"])
        self._position_check, self._sharpness_check = (_Periodic(recheck_ms, clock_ns) for _ in range(2))
        self._rows_before: Image | None = None
        self._unchanged = 0

    @property
    def is_frozen(self) -> bool:
        """Whether the camera is frozen, by the last frames."""
        return self._unchanged >= self._frozen_after

    def of_frame(self, image: Image) -> FrameFault | None:
        """A fault of the frame as a whole: its size.

        Raises:
            DatasetError: The region of interest does not fit into it.
        """
        if self._size is not None and image.shape[:2] != self._size:
            (rows, columns), (known_rows, known_columns) = image.shape[:2], self._size
            return FrameFault(
                ResultCode.FRAME_UNUSABLE,
                f"the frame has {columns}x{rows} pixels; calibration saw {known_columns}x{known_rows}: "
                "set the camera to that resolution, or calibrate again",
            )
        self._compare(image)
        return None

    def pass_over(self, image: Image) -> None:
        """Note a frame that shows no part: it still shows whether the camera is frozen."""
        with suppress(DatasetError):  # a frame of another size cannot be compared
            self._compare(image)

    def of_input(self, prepared: Image, place: PartLocation) -> FrameFault | None:
        """The first other fault: brightness, frozen camera, position, blocked view, sharpness.

        Args:
            prepared: Network input.
            place: Its location in the frame.
        """
        grey = to_grey(prepared)
        return (
            self._brightness(grey)
            or self._frozen()
            or self._position_check(lambda: self._position(grey, place))
            or self._blocked(prepared)
            or self._sharpness_check(lambda: self._sharpness(grey))
        )

    def _compare(self, image: Image) -> None:
        if math.isinf(self._frozen_after):
            return
        rows = frame_statistics.sample_rows(self._preprocess.region_of_interest(image))
        before, self._rows_before = self._rows_before, rows
        same = before is not None and frame_statistics.is_frozen(before, rows, self._limits["frozen"])
        self._unchanged = self._unchanged + 1 if same else 0

    def _frozen(self) -> FrameFault | None:
        if not self.is_frozen:
            return None
        return FrameFault(
            ResultCode.FROZEN, f"the camera is frozen: {self._unchanged + 1} frames in a row are the same"
        )

    def _brightness(self, grey: Image) -> FrameFault | None:
        light = frame_statistics.brightness(grey)
        mean = f"mean brightness {frame_statistics.mean_grey_level(light):.0f} of 255"
        if light < self._limits["dark"]:
            return FrameFault(ResultCode.DARK, f"the frame is dark: {mean}; light or exposure have changed")
        if light > self._limits["over_exposed"]:
            return FrameFault(ResultCode.OVER_EXPOSED, f"the frame is over-exposed: {mean}")
        return None

    def _position(self, grey: Image, place: PartLocation) -> FrameFault | None:
        if place.too_far and place.displacement is not None:
            return _moved(*place.displacement)
        if self._structure is None:
            return None
        found = self._structure.displacement(edge_directions(frame_statistics.thumbnail(grey)))
        if found.elsewhere - found.at_zero <= self._limits["moved"] or found.elsewhere < self._recognised:
            return None
        cell = frame_statistics.pixels_in_cell(*grey.shape)
        rows, columns = grey.shape
        right = round(found.cells[0] * cell * place.region.width / columns)
        down = round(found.cells[1] * cell * place.region.height / rows)
        return _moved(right, down)

    def _blocked(self, prepared: Image) -> FrameFault | None:
        if self._known is None:
            return None
        share = frame_statistics.unknown_colour_share(frame_statistics.blocks(prepared), *self._known)
        if share <= self._limits["blocked"]:
            return None
        return FrameFault(
            ResultCode.BLOCKED,
            f"the view is blocked: {share:.0%} of the image is unlike anything that calibration saw there",
        )

    def _sharpness(self, grey: Image) -> FrameFault | None:
        if frame_statistics.detail(grey) < self._limits["blurred_detail"]:
            return FrameFault(ResultCode.BLURRED, "the frame is blurred: it has less detail than any good one")
        if frame_statistics.edges(grey) < self._limits["blurred_edges"]:
            return FrameFault(
                ResultCode.BLURRED, "the frame is blurred: its edges are softer than those of any good one"
            )
        return None


class _Periodic:
    """Makes a check at an interval; its result holds until the next time."""

    def __init__(self, every_ms: int, clock_ns: Callable[[], int]) -> None:
        self._every_ns = every_ms * 1_000_000
        self._clock_ns = clock_ns
        self._due_ns = 0
        self._found: FrameFault | None = None

    def __call__(self, check: Callable[[], FrameFault | None]) -> FrameFault | None:
        now_ns = self._clock_ns()
        if now_ns >= self._due_ns:
            self._found, self._due_ns = check(), now_ns + self._every_ns
        return self._found
