"""Which frames show a part: each n-th frame, or the frames after a command from the line."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, Protocol

from agent.trigger.part import Part

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.camera import Frame
    from agent.trigger.plc_handshake import Handshake

_MAX_WAITING = 1000


class Trigger(Protocol):
    """Called by the loop for every frame."""

    @property
    def dropped(self) -> Counter[str]:
        """Frames that show no part, by reason."""

    def __call__(self, frame: Frame, current: Part | None = None) -> Part | None:
        """The part in this frame; None when there is none to inspect.

        Args:
            frame: Each frame once, in order.
            current: The part of the frame before, if it needs more frames.

        Returns:
            ``current`` as long as the frames show it; or another part, for which the controller now waits.
        """

    def withdraw(self, parts: list[Part]) -> list[Part]:
        """Stop waiting for frames of these parts; returns those that had none. From any thread."""


class EveryFrame:
    """Each n-th frame is a part, or starts one; the line triggers nothing.

    Args:
        handshake: Expects each part from its first frame on.
        every: n. Counts the camera's frames, also those that were dropped.
    """

    def __init__(self, handshake: Handshake, every: int = 1) -> None:
        self.dropped: Counter[str] = Counter()
        self._handshake = handshake
        self._every = every
        self._due_seq = 0

    def withdraw(self, parts: list[Part]) -> list[Part]:  # noqa: ARG002 - as Trigger has it
        """See Trigger; no part waits for a frame."""
        return []

    def __call__(self, frame: Frame, current: Part | None = None) -> Part | None:
        """See Trigger."""
        if current is not None:
            return current
        if frame.seq < self._due_seq:
            self.dropped["skipped"] += 1
            return None
        self._due_seq = frame.seq + self._every
        return self._handshake.expect(Part(None, frame.captured_at_ms, frame.captured_ns))


class OnCommand:
    """The line names each part; its frames are those captured after that, until the next part.

    Args:
        handshake: Expects the part from the moment it is named.
        delay_ms: From the trigger until the part is before the camera.
        asked: Called after each part that was named: lets a camera that waits for it take an image.
    """

    def __init__(self, handshake: Handshake, delay_ms: int, asked: Callable[[], object] = lambda: None) -> None:
        self.dropped: Counter[str] = Counter()
        self._handshake = handshake
        self._delay_ns = delay_ms * 1_000_000
        self._asked = asked
        self._lock = threading.Lock()
        self._waiting: deque[Part] = deque()

    def ask(self, part_id: str | None) -> bool:
        """Inspect the part that comes now; false when far too many are waiting. From any thread."""
        with self._lock:
            if len(self._waiting) >= _MAX_WAITING:
                return False
            self._waiting.append(self._handshake.expect(Part.asked_now(part_id)))
        self._asked()
        return True

    def withdraw(self, parts: list[Part]) -> list[Part]:
        """See Trigger."""
        with self._lock:
            without = [part for part in parts if part in self._waiting]
            for part in without:
                self._waiting.remove(part)
            return without

    def __call__(self, frame: Frame, current: Part | None = None) -> Part | None:
        """See Trigger."""
        with self._lock:
            if self._waiting and frame.captured_ns >= self._waiting[0].asked_ns + self._delay_ns:
                return self._waiting.popleft()
        if current is None:
            self.dropped["untriggered"] += 1
        return current


class BetweenParts:
    """A trigger whose frames without a part are shown to someone.

    Args:
        trigger: Decides.
        show: Takes each such frame; must not wait.
    """

    def __init__(self, trigger: Trigger, show: Callable[[Frame], object]) -> None:
        self._trigger = trigger
        self._show = show

    @property
    def dropped(self) -> Counter[str]:
        """See Trigger."""
        return self._trigger.dropped

    def withdraw(self, parts: list[Part]) -> list[Part]:
        """See Trigger."""
        return self._trigger.withdraw(parts)

    def __call__(self, frame: Frame, current: Part | None = None) -> Part | None:
        """See Trigger."""
        part = self._trigger(frame, current)
        if part is None and not frame.is_damaged:
            self._show(frame)
        return part


class UnlessPaused:
    """A trigger that finds no part while the station is paused."""

    def __init__(self, trigger: Trigger, is_paused: Callable[[], bool]) -> None:
        self._trigger = trigger
        self._is_paused = is_paused
        self._paused_frames = 0

    @property
    def dropped(self) -> Counter[str]:
        """See Trigger."""
        return self._trigger.dropped + Counter(paused=self._paused_frames)

    def withdraw(self, parts: list[Part]) -> list[Part]:
        """See Trigger."""
        return self._trigger.withdraw(parts)

    def __call__(self, frame: Frame, current: Part | None = None) -> Part | None:
        """See Trigger."""
        if self._is_paused():
            self._paused_frames += 1
            return None
        return self._trigger(frame, current)
