"""A trigger for parts that pass on a belt, which the camera hands out one by one."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from agent.belt.part_camera import PartFrame
from agent.trigger.part import Part

if TYPE_CHECKING:
    from agent.camera import Frame
    from agent.trigger.plc_handshake import Handshake


class OnPassing:
    """Each frame is a part; see `agent.belt.part_camera.PartCamera`.

    Args:
        handshake: Expects each part from its best place on.
    """

    def __init__(self, handshake: Handshake) -> None:
        self.dropped: Counter[str] = Counter()
        self._handshake = handshake

    def withdraw(self, parts: list[Part]) -> list[Part]:  # noqa: ARG002 - as Trigger has it
        """See Trigger; no part waits for a frame."""
        return []

    def __call__(self, frame: Frame, current: Part | None = None) -> Part | None:
        """See Trigger."""
        speed_px_s = frame.speed_px_s if isinstance(frame, PartFrame) else None
        return current or self._handshake.expect(Part(None, frame.captured_at_ms, frame.captured_ns, speed_px_s))
