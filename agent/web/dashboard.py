"""What the page shows of the last minutes: the same for all viewers, and bounded whatever the line does."""

from __future__ import annotations

import time
from collections import deque
from typing import TYPE_CHECKING, Any

from agent.clock import now_ms
from agent.messages.records import Evaluation, ResultCode
from agent.web.labels import CODES, VERDICTS

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from agent.messages.records import Payload

_LISTED = 10
_REMEMBERED = 512
BIN_MS = 250
BINS = 5 * 60 * 1000 // BIN_MS
"""Five minutes of the fastest line; more of a slow one, with a bin for each part."""
_WORST_OF_S = 1.0
_UNKNOWN: Payload = {"evaluation": None, "verdict": None, "part": None, "seq": None, "regions": []}
_RANK = {Evaluation.OK: 0, Evaluation.UNDEFINED: 1, Evaluation.NOT_DECIDABLE: 1, Evaluation.NOT_OK: 2}


class Dashboard:
    """Results and state that the agent has sent, for one thread.

    The chart consists of bins of a quarter of a second. Each keeps its worst score, so that the chart costs the same at
    one part a minute and at two hundred a second, and shows every reject. Scores are multiples of their thresholds,
    which makes zones and bundles comparable.

    Args:
        clock_s: Monotonic.
        clock_ms: Wall clock.

    Attributes:
        state: State of the station; None before the agent has sent one.
    """

    def __init__(self, clock_s: Callable[[], float] = time.monotonic, clock_ms: Callable[[], int] = now_ms) -> None:
        self.state: Payload | None = None
        self._clock_s = clock_s
        self._clock_ms = clock_ms
        self._count = 0
        self._last: deque[Payload] = deque(maxlen=_LISTED)
        self._rejects: deque[Payload] = deque(maxlen=_LISTED)
        self._recent: deque[tuple[float, Payload]] = deque(maxlen=_REMEMBERED)
        self._known: dict[str, Payload] = {}
        self._bins: deque[list[Any]] = deque(maxlen=BINS)

    def take_results(self, results: Sequence[Payload]) -> None:
        """Add results, as they were published, in order."""
        now_s = self._clock_s()
        for result in results:
            entry = _entry(result)
            self._last.append(entry)
            if entry["evaluation"] != Evaluation.OK:
                self._rejects.append(entry)
            self._recent.append((now_s, entry))
            self._known[entry["id"]] = {**entry, "regions": result["regions"]}
            if len(self._known) > _REMEMBERED:
                del self._known[next(iter(self._known))]
            self._add_to_bin(entry)

    def take_state(self, state: Payload) -> None:
        """Replace the state."""
        self.state = state

    def about(self, result_id: str) -> Payload:
        """What the page shows with the frame of one of the last results; nulls if it is not one of them."""
        known = self._known.get(result_id, _UNKNOWN)
        return {name: known[name] for name in _UNKNOWN}

    def update(self, since: int) -> tuple[int, Payload]:
        """The update for a viewer.

        Args:
            since: The first value that this returned last time; 0 for a new viewer.

        Returns:
            Number of results so far, and the update: everything, but only the bins of the chart that have changed.
        """
        return self._count, {
            "now": self._clock_ms(),
            "state": self.state,
            "shown": self._shown(),
            "last": list(reversed(self._last)),
            "rejects": list(reversed(self._rejects)),
            "isWhole": since == 0,
            "bins": [each[:-1] for each in self._bins if each[-1] > since],
        }

    def _shown(self) -> Payload | None:
        """The worst result of the last second, so that it stays readable; else the last one."""
        since_s = self._clock_s() - _WORST_OF_S
        recent = [entry for at_s, entry in self._recent if at_s >= since_s]
        if not recent:
            return {**self._last[-1], "of": 1} if self._last else None
        worst = max(reversed(recent), key=lambda entry: _RANK[Evaluation(entry["evaluation"])])
        return {**worst, "of": len(recent)}

    def _add_to_bin(self, entry: Payload) -> None:
        self._count += 1
        start_ms = entry["at"] // BIN_MS * BIN_MS
        ratio, evaluation = entry["ratio"], entry["evaluation"]
        if self._bins and self._bins[-1][0] == start_ms:
            newest = self._bins[-1]
            newest[1] = max((each for each in (newest[1], ratio) if each is not None), default=None)
            newest[2] = max(newest[2], evaluation, key=lambda each: _RANK[Evaluation(each)])
            newest[3:] = [newest[3] + 1, self._count]
        else:
            self._bins.append([start_ms, ratio, evaluation, 1, self._count])


def _entry(result: Payload) -> Payload:
    """A result as the page shows it: with the verdict that the line was given."""
    code, evaluation = ResultCode(result["resultCode"]), Evaluation(result["resultEvaluation"])
    given, why = evaluation, CODES[code]
    if code is ResultCode.TOO_LATE and evaluation is not Evaluation.NOT_DECIDABLE:
        given, why = Evaluation.NOT_DECIDABLE, f"too late: the line was told NOT DECIDABLE ({VERDICTS[evaluation]})"
    score, threshold = result["score"], result["threshold"]
    return {
        "id": result["resultId"],
        "seq": result["seq"],
        "part": result["partId"],
        "at": result["creationTime"],
        "evaluation": given,
        "verdict": VERDICTS[given],
        "code": code,
        "why": why,
        "score": score,
        "threshold": threshold,
        "ratio": score / threshold if score is not None and threshold else None,
        "zone": result["zone"],
    }
