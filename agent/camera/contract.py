"""A camera as the loop sees it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Self

    from calibration.imaging.preprocess import Image

CameraState: TypeAlias = Literal["closed", "running", "lost"]

BEING_OPENED = "is being opened"
"""How the reason of a camera ends that is not lost, but has not given its first frame yet."""


class Stamp(NamedTuple):
    """What the camera itself says of a frame.

    Attributes:
        number: Its number; cameras count from 0 or 1, and some from 1 again after 65535.
        time_ns: By the camera's own clock.
    """

    number: int
    time_ns: int


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture from the camera.

    Attributes:
        seq: Number of the frame in this session, from 0. Every captured frame has one: a gap is a dropped frame.
        image: (rows, columns, 3), uint8, BGR; nothing writes into it later.
        captured_at_ms: Wall clock, ms since 1970, UTC.
        captured_ns: Monotonic clock, for ages and durations; the same in all processes of a machine.
        is_damaged: It could not be decoded; its image is black.
        stamp: What the camera says of it; None where it says nothing.
    """

    seq: int
    image: Image
    captured_at_ms: int
    captured_ns: int
    is_damaged: bool = False
    stamp: Stamp | None = None


class Camera(Protocol):
    """A source of frames.

    Order of calls: enter, iterate once, exit. ``stop`` may be called at any time and from any thread.

    ``captured`` = frames handed out + frames waiting (none after exit) + the sum of ``dropped``.
    """

    @property
    def captured(self) -> int:
        """Frames taken from the source so far; frames of a capture process count from its report on."""

    @property
    def dropped(self) -> dict[str, int]:
        """Frames not handed out, by reason: ``superseded``, ``unreadable``, ``wrong_size``, ``stopped``. A copy.

        Frames that a running live source sends damaged are handed out.
        """

    @property
    def state(self) -> CameraState:
        """``lost`` while a live source gives no frames: at first, and while it is being opened again."""

    @property
    def reason(self) -> str:
        """Why it is lost, without passwords; empty while it runs."""

    @property
    def refused_settings(self) -> Sequence[str]:
        """Settings that the device did not take, as text."""

    def __enter__(self) -> Self:
        """Open the source, or raise CameraError. An absent live source is not an error, but ``lost``."""

    def __iter__(self) -> Iterator[Frame | None]:
        """Frames until the file ends or ``stop``; None after each half second without one."""

    def stop(self) -> None:
        """End the iteration at once, even while it waits."""

    def __exit__(self, *exception: object) -> None:
        """Close the source."""


class StationCamera(Camera, Protocol):
    """A camera that can be made to take an image."""

    def trigger(self) -> None:
        """Let a camera that waits for this take an image now; any other one does nothing. From any thread."""


class Capture(StationCamera, Protocol):
    """A camera for one thread: it gives every frame, and never None."""

    name: str

    def __iter__(self) -> Iterator[Frame]:
        """Frames until the file ends or ``stop``; ends within a second of it unless a driver hangs."""
