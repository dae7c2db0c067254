"""What the page shows of the last minutes: the same for all who look at it, and bounded whatever the line does."""

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
"""Five minutes of the fastest line; a slow one has its parts one by one for longer."""
_WORST_OF_S = 1.0
_UNKNOWN: Payload = {"evaluation": None, "verdict": None, "part": None, "seq": None, "regions": []}
_RANK = {Evaluation.OK: 0, Evaluation.UNDEFINED: 1, Evaluation.NOT_DECIDABLE: 1, Evaluation.NOT_OK: 2}


class Dashboard:
    """Results and state as the agent tells them, for one thread.

    The chart is made of bins of a quarter of a second, of which each keeps its worst score, so that it costs the same
    at one part a minute and at two hundred a second, and no reject is thinned out. Scores of several zones are
    told by their thresholds there, because nothing else compares them.

    Args:
        clock_s: Monotonic.
        clock_ms: Wall clock.

    Attributes:
        state: What the station says of itself; None before it has.
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
        """What was published as ``result``, in order."""
        now_s = self._clock_s()
        for result in results:
            entry = _entry(result)
            self._last.append(entry)
            if entry["evaluation"] != Evaluation.OK:
                self._rejects.append(entry)
            self._recent.append((now_s, entry))
            self._note_about(result, entry)
            self._note_bin(entry)

    def take_state(self, state: Payload) -> None:
        """What the station says of itself."""
        self.state = state

    def about(self, result_id: str) -> Payload:
        """What stands beside the picture of one of the last results; nulls where it is none of them."""
        return self._known.get(result_id, _UNKNOWN)

    def update(self, since: int) -> tuple[int, Payload]:
        """What a viewer is to be told.

        Args:
            since: What this returned the last time as its first; 0 for a new viewer.

        Returns:
            How far the chart has come, and everything, of the chart only what has changed.
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
        """The worst result of the last second, which one can read; else the last one."""
        since_s = self._clock_s() - _WORST_OF_S
        recent = [entry for at_s, entry in self._recent if at_s >= since_s]
        if not recent:
            return {**self._last[-1], "of": 1} if self._last else None
        worst = max(reversed(recent), key=lambda entry: _RANK[Evaluation(entry["evaluation"])])
        return {**worst, "of": len(recent)}

    def _note_about(self, result: Payload, entry: Payload) -> None:
        self._known[entry["id"]] = {name: entry[name] for name in _UNKNOWN if name in entry} | {
            "regions": result["regions"]
        }
        if len(self._known) > _REMEMBERED:
            del self._known[next(iter(self._known))]

    def _note_bin(self, entry: Payload) -> None:
        self._count += 1
        began_ms = entry["at"] // BIN_MS * BIN_MS
        score, threshold, evaluation = *_charted(entry), entry["evaluation"]
        if self._bins and self._bins[-1][0] == began_ms:
            newest = self._bins[-1]
            newest[1] = max((each for each in (newest[1], score) if each is not None), default=None)
            newest[2] = threshold
            newest[3] = max(newest[3], evaluation, key=lambda each: _RANK[Evaluation(each)])
            newest[4:] = [newest[4] + 1, self._count]
        else:
            self._bins.append([began_ms, score, threshold, evaluation, 1, self._count])


def _charted(entry: Payload) -> tuple[float | None, float | None]:
    """Score and threshold."""
    score, threshold = entry["score"], entry["threshold"]
    if entry["zone"] is None or not threshold:
        return score, threshold
    return None if score is None else score / threshold, 1.0


def _entry(result: Payload) -> Payload:
    code = result["resultCode"]
    return {
        "id": result["resultId"],
        "seq": result["seq"],
        "part": result["partId"],
        "at": result["creationTime"],
        "evaluation": result["resultEvaluation"],
        "verdict": VERDICTS[Evaluation(result["resultEvaluation"])],
        "code": code,
        "why": CODES[ResultCode(code)],
        "score": result["score"],
        "threshold": result["threshold"],
        "zone": result["zone"],
    }
