"""The handshake with the controller of the line: every part is answered once, in order, within the deadline.

    expect -> told in time by the loop         -> valid, with the verdict
           -> nothing until the deadline       -> not valid, with the reason

What is said here is for now. It goes into no outbox, and what the broker did not hear in time is thrown away.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

from agent.messages.payloads import PlcMessage
from agent.messages.records import Evaluation, ResultCode
from agent.trigger.part import Part

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.messages.records import Payload

_KEPT = 1000
_BLIND_EVERY_NS = 1_000_000_000


class Answer(NamedTuple):
    """What is known of a part; see `agent.messages.payloads.PlcMessage`."""

    part: Part
    seq: int | None
    evaluation: Evaluation
    code: int
    score: float

    def payload(self, now_ns: int) -> Payload:
        """Content of the topic ``plc``."""
        valid = self.evaluation in {Evaluation.OK, Evaluation.NOT_OK}
        return PlcMessage(
            seq=self.seq,
            part_id=self.part.part_id,
            evaluation=self.evaluation,
            code=self.code,
            score=self.score,
            valid=valid,
            age_ms=(now_ns - self.part.asked_ns) // 1_000_000,
        ).payload()


class Handshake:
    """Parts that the controller waits for, and what it is to be told; safe from any thread.

    Args:
        deadline_ms: After a part was asked for; then the controller hears that there is no verdict.
        why_none: The reason for it, as far as the station knows.
        clock_ns: Monotonic clock.

    Attributes:
        dropped: Parts without a verdict in time (``plc_too_late``), and answers that had nobody to hear them
            (``plc_not_connected``).
    """

    def __init__(
        self, deadline_ms: int, why_none: Callable[[], ResultCode], clock_ns: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self._deadline_ns = deadline_ms * 1_000_000
        self._why_none = why_none
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._expected: deque[Part] = deque()
        self._given_up: list[Part] = []
        self._answers: deque[Answer] = deque()
        self._blind_at_ns = 0

    def expect(self, part: Part) -> None:
        """The controller waits for this part, behind those before it."""
        with self._lock:
            self._expected.append(part)

    def is_late(self, part: Part) -> bool:
        """Whether its deadline has passed."""
        return self._clock_ns() >= part.asked_ns + self._deadline_ns

    def tell(self, answer: Answer) -> bool:
        """What the loop found; false when it comes too late: the controller hears only that."""
        with self._lock:
            self._give_up()  # first, so that the order is kept
            if answer.part not in self._expected:
                return False
            self._expected.remove(answer.part)
            self._keep(answer)
            return True

    def refuse(self, part: Part, code: ResultCode) -> None:
        """A part that nobody will look at: not valid, at once."""
        with self._lock:
            self._keep(Answer(part, None, Evaluation.NOT_DECIDABLE, code, float("nan")))

    def tell_blind(self, code: ResultCode, now_ms: int) -> None:
        """No part can be seen: not valid, once a second as long as this is called; for lines that do not trigger."""
        now_ns = self._clock_ns()
        with self._lock:
            if now_ns >= self._blind_at_ns:
                self._blind_at_ns = now_ns + _BLIND_EVERY_NS
                unseen = Part(None, now_ms, now_ns)
                self._keep(Answer(unseen, None, Evaluation.NOT_DECIDABLE, code, float("nan")))

    def overdue(self) -> list[Part]:
        """Give up the parts whose deadline has passed, and tell the controller so; each is returned once."""
        with self._lock:
            self._give_up()
            given_up, self._given_up = self._given_up, []
        return given_up

    def take(self) -> list[Payload]:
        """What the controller is to be told now, in order."""
        with self._lock:
            answers, self._answers = self._answers, deque()
        now_ns = self._clock_ns()
        return [answer.payload(now_ns) for answer in answers]

    def discard(self) -> None:
        """Throw away what was not said: it is too old to be acted upon."""
        with self._lock:
            self.dropped["plc_not_connected"] += len(self._answers)
            self._answers.clear()

    @property
    def due_at_s(self) -> float:
        """When the next part is overdue, on the monotonic clock; infinite without one."""
        with self._lock:
            return (self._expected[0].asked_ns + self._deadline_ns) / 1e9 if self._expected else float("inf")

    def _give_up(self) -> None:
        while self._expected and self.is_late(self._expected[0]):
            part = self._expected.popleft()
            self._given_up.append(part)
            self.dropped["plc_too_late"] += 1
            self._keep(Answer(part, None, Evaluation.NOT_DECIDABLE, self._why_none(), float("nan")))

    def _keep(self, answer: Answer) -> None:
        self._answers.append(answer)
        if len(self._answers) > _KEPT:
            self._answers.popleft()
            self.dropped["plc_not_connected"] += 1
