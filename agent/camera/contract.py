"""What the loop sees of a camera."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Iterator

    from typing_extensions import Self

    from calibration.imaging.preprocess import Image

CameraState: TypeAlias = Literal["closed", "running", "lost"]


@dataclass(frozen=True, slots=True)
class Frame:
    """One picture of the camera.

    Attributes:
        seq: Number of the frame in this session, from 0. Every captured frame has one, so a gap is a dropped frame.
        image: (rows, columns, 3), uint8, BGR; the frame's own, nobody writes into it later.
        captured_at_ms: Wall clock, ms since 1970, UTC.
        captured_ns: Monotonic clock, for ages and durations on this machine; the same in all its processes.
    """

    seq: int
    image: Image
    captured_at_ms: int
    captured_ns: int


class Camera(Protocol):
    """A source of frames.

    Order of calls: enter, iterate once, exit. ``stop`` may be called at any time and from any thread.

    ``captured`` = frames handed out + frames waiting (none after exit) + the sum of ``dropped``.
    """

    @property
    def captured(self) -> int:
        """Frames taken from the source so far; those of a capture process from the moment it has told of them."""

    @property
    def dropped(self) -> dict[str, int]:
        """Frames not handed out, by reason: ``superseded``, ``unreadable``, ``wrong_size``, ``stopped``. A copy."""

    @property
    def state(self) -> CameraState:
        """``lost`` while a live source gives no frames: at first, and while it is away and is being retried."""

    @property
    def reason(self) -> str:
        """Why it is lost, for people and without passwords; empty while it runs."""

    def __enter__(self) -> Self:
        """Open the source; CameraError says what to check. A live source that is absent is no error, but lost."""

    def __iter__(self) -> Iterator[Frame | None]:
        """Frames until the file ends or ``stop``; None every half second in which there was none."""

    def stop(self) -> None:
        """End the iteration at once, even while it waits."""

    def __exit__(self, *exception: object) -> None:
        """Let go of the source."""


class Capture(Camera, Protocol):
    """A camera for one thread: it gives every frame, and nothing in between; see Camera for all else."""

    name: str

    def __iter__(self) -> Iterator[Frame]:
        """Frames until the file ends or ``stop``; ends within a second of it unless a driver hangs."""
