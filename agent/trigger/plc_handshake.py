"""The handshake with the controller of the line: every part gets one answer, in order, within the deadline.

    expect -> answered in time by the loop     -> valid, with the verdict
           -> no answer before the deadline    -> not valid, with the reason

An answer is of use only now: it goes into no outbox, and one that the broker does not take in time is thrown away.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING, NamedTuple

from agent.messages.payloads import PlcMessage
from agent.messages.records import Evaluation, ResultCode
from agent.trigger.late_answers import LateAnswers, LogEntry
from agent.trigger.part import Part

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.messages.records import Payload

log = logging.getLogger(__name__)

_MAX_ANSWERS = 1000
_NO_VIEW_EVERY_NS = 1_000_000_000


class Answer(NamedTuple):
    """The answer to one part; see `agent.messages.payloads.PlcMessage`."""

    part: Part
    seq: int | None
    evaluation: Evaluation
    code: int
    score: float

    def payload(self, now_ns: int) -> Payload:
        """Content of the topic ``plc``."""
        return PlcMessage(
            seq=self.seq,
            part_id=self.part.part_id,
            evaluation=self.evaluation,
            code=self.code,
            score=self.score,
            valid=self.evaluation in {Evaluation.OK, Evaluation.NOT_OK},
            age_ms=(now_ns - self.part.asked_ns) // 1_000_000,
            speed_px_s=self.part.speed_px_s,
        ).payload()


class Handshake:
    """Parts that the controller waits for, and the answers to it; safe from any thread.

    Args:
        deadline_ms: After a part was asked for; then the answer is that there is no verdict.
        why_none: The reason for that, as far as the station knows.
        clock_ns: Monotonic clock.
        waits: The settings that a verdict waits for, in words; for the log.

    Attributes:
        dropped: Parts without a verdict in time (``plc_too_late``), and answers that could not be delivered
            (``plc_not_connected``).
    """

    def __init__(
        self,
        deadline_ms: int,
        why_none: Callable[[], ResultCode],
        clock_ns: Callable[[], int] = time.monotonic_ns,
        waits: str = "",
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self._late = LateAnswers(deadline_ms, waits)
        self._deadline_ns = deadline_ms * 1_000_000
        self._why_none = why_none
        self._clock_ns = clock_ns
        self._lock = threading.Lock()
        self._expected: deque[Part] = deque()
        self._given_up: list[Part] = []
        self._answers: deque[Answer] = deque()
        self._no_view_at_ns = 0

    def expect(self, part: Part) -> Part:
        """Let the controller wait for this part, after those before it; returns the part."""
        with self._lock:
            self._expected.append(part)
        return part

    def is_late(self, part: Part) -> bool:
        """Whether its deadline has passed."""
        return self._clock_ns() >= part.asked_ns + self._deadline_ns

    def left_s(self, part: Part) -> float:
        """Time until its deadline; 0 when it has passed."""
        return max(0, part.asked_ns + self._deadline_ns - self._clock_ns()) / 1e9

    def answer(self, answer: Answer) -> bool:
        """Answer a part; false when it is too late, because the controller has an answer without a verdict."""
        with self._lock:
            self._give_up()  # first, so that the order is kept
            is_in_time = answer.part in self._expected
            if is_in_time:
                self._expected.remove(answer.part)
                self._keep(answer)
                self._late.kept()
            else:
                self._late.late((self._clock_ns() - answer.part.asked_ns) / 1e6)
            change = self._late.change()
        _log(change)  # a log may take its time
        return is_in_time

    def refuse(self, part: Part, code: ResultCode) -> None:
        """Answer at once that a part will not be inspected."""
        with self._lock:
            self._keep_invalid(part, code)

    def report_no_view(self, code: ResultCode, now_ms: int) -> None:
        """Answer once a second, while this is called, that no part can be seen; for lines that do not trigger."""
        now_ns = self._clock_ns()
        with self._lock:
            if now_ns >= self._no_view_at_ns:
                self._no_view_at_ns = now_ns + _NO_VIEW_EVERY_NS
                self._keep_invalid(Part(None, now_ms, now_ns), code)

    def overdue(self) -> list[Part]:
        """Answer the parts whose deadline has passed, without a verdict; returns each of them once."""
        with self._lock:
            self._give_up()
            given_up, self._given_up = self._given_up, []
            change = self._late.change()
        _log(change)
        return given_up

    def give_up_all(self) -> None:
        """Answer all parts that wait, without a verdict: time has passed that the monotonic clock does not know."""
        with self._lock:
            while self._expected:
                self._give_up_first()

    def take(self) -> list[Payload]:
        """The answers to send now, in order."""
        with self._lock:
            answers, self._answers = self._answers, deque()
        now_ns = self._clock_ns()
        return [answer.payload(now_ns) for answer in answers]

    def discard(self) -> None:
        """Throw away answers that were not sent: they are too old to act on."""
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
            if self._give_up_first() is ResultCode.TOO_LATE:
                self._late.missed()

    def _give_up_first(self) -> ResultCode:
        part, code = self._expected.popleft(), self._why_none()
        self._given_up.append(part)
        self.dropped["plc_too_late"] += 1
        self._keep_invalid(part, code)
        return code

    def _keep_invalid(self, part: Part, code: ResultCode) -> None:
        self._keep(Answer(part, None, Evaluation.NOT_DECIDABLE, code, float("nan")))

    def _keep(self, answer: Answer) -> None:
        self._answers.append(answer)
        if len(self._answers) > _MAX_ANSWERS:
            self._answers.popleft()
            self.dropped["plc_not_connected"] += 1


def _log(entry: LogEntry | None) -> None:
    if entry is not None:
        log.log(*entry)
