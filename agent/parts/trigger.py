"""Which frames show a part: all of them, or the first after the line has said that one is there."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, Protocol

from agent.parts import Part

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.camera import Frame
    from agent.parts.handshake import Handshake

_LONGEST_QUEUE = 1000


class Trigger(Protocol):
    """Asked for every frame, by the loop."""

    @property
    def dropped(self) -> Counter[str]:
        """Frames that show no part to look at, by reason."""

    def __call__(self, frame: Frame) -> Part | None:
        """The part in this frame, which the controller expects from now on; None when there is none to look at."""


class EveryFrame:
    """Nobody triggers: each frame is a part."""

    def __init__(self, handshake: Handshake) -> None:
        self.dropped: Counter[str] = Counter()
        self._handshake = handshake

    def __call__(self, frame: Frame) -> Part:
        """See Trigger."""
        part = Part(None, frame.captured_at_ms, frame.captured_ns)
        self._handshake.expect(part)
        return part


class OnCommand:
    """The line names each part; its frame is the first that was captured after that.

    Args:
        handshake: Expects the part from the moment it is named.
        delay_ms: From the trigger until the part is before the camera.
    """

    def __init__(self, handshake: Handshake, delay_ms: int) -> None:
        self.dropped: Counter[str] = Counter()
        self._handshake = handshake
        self._delay_ns = delay_ms * 1_000_000
        self._lock = threading.Lock()
        self._waiting: deque[Part] = deque()

    def ask(self, part_id: str | None) -> bool:
        """A part is there; false when far more are waiting than any camera can see. From any thread."""
        with self._lock:
            if len(self._waiting) >= _LONGEST_QUEUE:
                return False
            part = Part.asked_now(part_id)
            self._handshake.expect(part)
            self._waiting.append(part)
            return True

    def withdraw(self, parts: list[Part]) -> list[Part]:
        """Stop waiting for a frame of these; those of them that had none are returned."""
        with self._lock:
            without = [part for part in parts if part in self._waiting]
            for part in without:
                self._waiting.remove(part)
            return without

    def __call__(self, frame: Frame) -> Part | None:
        """See Trigger."""
        with self._lock:
            if self._waiting and frame.captured_ns >= self._waiting[0].asked_ns + self._delay_ns:
                return self._waiting.popleft()
        self.dropped["untriggered"] += 1
        return None


class UnlessPaused:
    """A trigger that looks at nothing while a person has paused the station."""

    def __init__(self, trigger: Trigger, is_paused: Callable[[], bool]) -> None:
        self._trigger = trigger
        self._is_paused = is_paused
        self._passed_over = 0

    @property
    def dropped(self) -> Counter[str]:
        """See Trigger."""
        return self._trigger.dropped + Counter(paused=self._passed_over)

    def __call__(self, frame: Frame) -> Part | None:
        """See Trigger."""
        if self._is_paused():
            self._passed_over += 1
            return None
        return self._trigger(frame)
