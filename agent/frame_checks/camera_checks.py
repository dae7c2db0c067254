"""Whether a frame can be trusted: held against what calibration saw, it may be dark, blocked, frozen, moved, ...

A part seen on such a frame is not decidable, whatever its score.
"""

from __future__ import annotations

import math
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Any, NamedTuple

from agent.messages.records import ResultCode
from calibration.camera_checks import frame_statistics
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
}


def alert_cause(code: ResultCode) -> str | None:
    """Cause of the alert about frames with this code; None for what is no fault of the camera."""
    return _CAUSES.get(code)


def _limits_in(reference: Mapping[str, NDArray[Any]]) -> tuple[dict[str, float], dict[str, str]]:
    """Limits (NaN: off) and notes by check."""
    limits = dict.fromkeys(_NAMES, math.nan)
    notes = dict.fromkeys(_NAMES, "the bundle was made before there was this check")
    limits["frozen"] = 0.0  # identical frames need no calibration
    if "check_names" in reference:
        names = reference["check_names"].tolist()
        limits.update(zip(names, reference["check_limits"].tolist(), strict=True))
        notes.update(zip(names, reference["check_notes"].tolist(), strict=True))
    return limits, notes


class FrameFault(NamedTuple):
    """Why a frame cannot be trusted."""

    code: ResultCode
    fault: str


def _moved(right: int, down: int) -> FrameFault:
    return FrameFault(
        ResultCode.MOVED, f"the camera has moved: the picture is off by {right:+d}, {down:+d} pixels (right, down)"
    )


class FrameChecks:
    """Checks of one camera against one bundle; remembers the frame before.

    For each frame either ``of_frame`` and then, unless that found something, ``of_input``; or ``pass_over``.

    Args:
        reference: Arrays of ``reference.npz``. Checks whose arrays an older bundle lacks are off.
        preprocess: Of the bundle.
        frozen_after: So many frames in a row that do not differ from the one before mean that the camera is frozen, or
            more where good frames stood still for long; None for files, which may repeat themselves.

        unhurried_ms: What happens to a mount and a lens takes its time: place and sharpness are looked at no more
            often, and what was found holds until then.
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
        unhurried_ms: int = 0,
        clock_ns: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        limits, notes = _limits_in(reference)
        self.off = {name: notes[name] for name, limit in limits.items() if math.isnan(limit)}
        # A limit that nothing exceeds, so that no check has to ask whether it is on.
        never = {name: -math.inf if name in _LOWER else math.inf for name in self.off}
        self._limits = {**limits, **never}
        self._preprocess = preprocess
        still_at_most = 2 * int(reference.get("still_at_most", 0))
        self._frozen_after = math.inf if frozen_after is None else max(frozen_after, still_at_most)
        self._size = None if "resolution" in self.off else tuple(reference["frame_size"].tolist())
        self._known = None if "blocked" in self.off else (reference["blocks_least"], reference["blocks_most"])
        self._structure = None if "moved" in self.off else Structure(reference["structure"])
        self._recognised = math.inf if self._structure is None else float(reference["moved_recognised"])
        self._at_place, self._sharp = (_NowAndThen(unhurried_ms, clock_ns) for _ in range(2))
        self._rows_before: Image | None = None
        self._unchanged = 0

    @property
    def is_frozen(self) -> bool:
        """Whether so many frames in a row, the last one among them, did not differ."""
        return self._unchanged >= self._frozen_after

    def of_frame(self, image: Image) -> FrameFault | None:
        """Whether it has the size that calibration saw.

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
        """A frame that shows no part: only whether the camera is frozen is learnt from it."""
        with suppress(DatasetError):  # nothing is learnt from one of another size
            self._compare(image)

    def of_input(self, prepared: Image, place: PartLocation) -> FrameFault | None:
        """What else is wrong, the first of light, frozen, place, what is in the way, sharpness.

        Args:
            prepared: Network input.
            place: Where in the frame it was taken.
        """
        grey = to_grey(prepared)
        return (
            self._light(grey)
            or self._stillness()
            or self._at_place(lambda: self._place(grey, place))
            or self._view(prepared)
            or self._sharp(lambda: self._sharpness(grey))
        )

    def _compare(self, image: Image) -> None:
        if math.isinf(self._frozen_after):
            return
        rows = frame_statistics.sample_rows(self._preprocess.region_of_interest(image))
        before, self._rows_before = self._rows_before, rows
        same = before is not None and frame_statistics.is_frozen(before, rows, self._limits["frozen"])
        self._unchanged = self._unchanged + 1 if same else 0

    def _stillness(self) -> FrameFault | None:
        if not self.is_frozen:
            return None
        return FrameFault(
            ResultCode.FROZEN, f"the camera is frozen: {self._unchanged + 1} frames in a row are the same"
        )

    def _light(self, grey: Image) -> FrameFault | None:
        light = frame_statistics.brightness(grey)
        mean = f"mean brightness {frame_statistics.mean_grey_level(light):.0f} of 255"
        if light < self._limits["dark"]:
            return FrameFault(ResultCode.DARK, f"the frame is dark: {mean}; light or exposure have changed")
        if light > self._limits["over_exposed"]:
            return FrameFault(ResultCode.OVER_EXPOSED, f"the frame is over-exposed: {mean}")
        return None

    def _place(self, grey: Image, place: PartLocation) -> FrameFault | None:
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

    def _view(self, prepared: Image) -> FrameFault | None:
        if self._known is None:
            return None
        share = frame_statistics.unknown_colour_share(frame_statistics.blocks(prepared), *self._known)
        if share <= self._limits["blocked"]:
            return None
        return FrameFault(
            ResultCode.BLOCKED,
            f"the view is blocked: {share:.0%} of the picture is unlike anything calibration saw there",
        )

    def _sharpness(self, grey: Image) -> FrameFault | None:
        if frame_statistics.detail(grey) < self._limits["blurred_detail"]:
            return FrameFault(ResultCode.BLURRED, "the frame is blurred: it has less detail than any good one")
        if frame_statistics.edges(grey) < self._limits["blurred_edges"]:
            return FrameFault(
                ResultCode.BLURRED, "the frame is blurred: its edges are softer than those of any good one"
            )
        return None


class _NowAndThen:
    """Makes a check when its time has come; what it found holds until the next time."""

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
