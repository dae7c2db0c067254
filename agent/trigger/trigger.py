"""Which frames show a part: each n-th, or those after the line has said that one is there."""

from __future__ import annotations

import threading
from collections import Counter, deque
from typing import TYPE_CHECKING, Protocol

from agent.trigger.part import Part

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.camera import Frame
    from agent.trigger.plc_handshake import Handshake

_LONGEST_QUEUE = 1000


class Trigger(Protocol):
    """Asked for every frame, by the loop."""

    @property
    def dropped(self) -> Counter[str]:
        """Frames that show no part to look at, by reason."""

    def __call__(self, frame: Frame, in_hand: Part | None = None) -> Part | None:
        """The part in this frame; None when there is none to look at.

        Args:
            frame: Each one once, in order.
            in_hand: The part of the frame before, if it is to have more frames: returned as long as they show it.

        Returns:
            ``in_hand``, or another part, which the controller expects from now on.
        """

    def withdraw(self, parts: list[Part]) -> list[Part]:
        """Stop waiting for a frame of these; those of them that had none are returned. From any thread."""


class EveryFrame:
    """Nobody triggers: each n-th frame is a part, or begins one.

    Args:
        handshake: Expects each part from its first frame on.
        every: n. The camera's frames count, also those that nobody could look at.
    """

    def __init__(self, handshake: Handshake, every: int = 1) -> None:
        self.dropped: Counter[str] = Counter()
        self._handshake = handshake
        self._every = every
        self._due_seq = 0

    def withdraw(self, parts: list[Part]) -> list[Part]:  # noqa: ARG002 - as Trigger has it
        """See Trigger; no part is waited for."""
        return []

    def __call__(self, frame: Frame, in_hand: Part | None = None) -> Part | None:
        """See Trigger."""
        if in_hand is not None:
            return in_hand
        if frame.seq < self._due_seq:
            self.dropped["skipped"] += 1
            return None
        self._due_seq = frame.seq + self._every
        part = Part(None, frame.captured_at_ms, frame.captured_ns)
        self._handshake.expect(part)
        return part


class OnCommand:
    """The line names each part; its frames are those from the first captured after that on.

    The part before has no frame from then on, also where it has fewer than it should: they would show this one.

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
        """See Trigger."""
        with self._lock:
            without = [part for part in parts if part in self._waiting]
            for part in without:
                self._waiting.remove(part)
            return without

    def __call__(self, frame: Frame, in_hand: Part | None = None) -> Part | None:
        """See Trigger."""
        with self._lock:
            if self._waiting and frame.captured_ns >= self._waiting[0].asked_ns + self._delay_ns:
                return self._waiting.popleft()
        if in_hand is None:
            self.dropped["untriggered"] += 1
        return in_hand


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

    def withdraw(self, parts: list[Part]) -> list[Part]:
        """See Trigger."""
        return self._trigger.withdraw(parts)

    def __call__(self, frame: Frame, in_hand: Part | None = None) -> Part | None:
        """See Trigger."""
        if self._is_paused():
            self._passed_over += 1
            return None
        return self._trigger(frame, in_hand)
