"""A camera and an engine that do nothing, for tests that need only one side of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Self

    from agent.camera import CameraState, Frame
    from calibration.engine.contract import Inference
    from calibration.imaging.preprocess import Image


class FakeCamera:
    """Runs and drops nothing; a subclass gives the frames."""

    captured = 0
    state: CameraState = "running"
    reason = ""
    refused_settings: Sequence[str] = ()

    @property
    def dropped(self) -> dict[str, int]:
        return {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __iter__(self) -> Iterator[Frame | None]:
        raise NotImplementedError

    def stop(self) -> None:
        pass


class FakeEngine:
    """Loads nothing; a subclass scores."""

    backend = "fake"
    tolerance = 0.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def __call__(self, frame: Image) -> Inference:
        raise NotImplementedError


class FakeClock:
    """A monotonic clock in seconds that a test moves."""

    def __init__(self, now_s: float = 100.0) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s
