"""Records that the broker has refused: they wait, are offered again, and let those of other topics pass."""

from __future__ import annotations

import time
from bisect import bisect_left, insort


class RefusedRecords:
    """Ids of refused records by topic, since most refusals mean that the client may not publish there.

    Args:
        limit: A topic with this many is closed: its further records are held until one of these is taken.
        retry_s: Waiting time after a refusal.
    """

    def __init__(self, limit: int, retry_s: float) -> None:
        self._limit = limit
        self._retry_s = retry_s
        self._retry_at_s = 0.0
        self._ids: dict[str, list[int]] = {}
        self._offered_again: dict[int, str] = {}

    def __len__(self) -> int:
        """How many records have been refused or held, and not been taken since."""
        return sum(map(len, self._ids.values()))

    def is_closed(self, topic: str) -> bool:
        """Whether new records of the topic are to be held."""
        return len(self._ids.get(topic, ())) >= self._limit

    def hold(self, record_id: int, topic: str) -> None:
        """Hold a record of a closed topic, which has not been offered."""
        insort(self._ids.setdefault(topic, []), record_id)

    def note_refusal(self, record_id: int, topic: str) -> None:
        """The broker has refused a record: nothing is offered again for a while."""
        if self._offered_again.pop(record_id, None) is None:
            self.hold(record_id, topic)
        self._retry_at_s = time.monotonic() + self._retry_s

    def forget(self, record_id: int) -> bool:
        """The broker has taken a record, or it no longer exists; returns whether it had been offered again."""
        topic = self._offered_again.pop(record_id, None)
        if topic is None:
            return False
        ids = self._ids[topic]
        del ids[bisect_left(ids, record_id)]
        if not ids:
            del self._ids[topic]
        self._retry_at_s = time.monotonic()  # the next ones need not wait
        return True

    def take_due(self, room: int) -> list[int]:
        """The oldest of each topic, ``room`` at most, to be offered again; none before the last ones are answered."""
        if not self._ids or self._offered_again or time.monotonic() < self._retry_at_s:
            return []
        oldest = sorted((one, topic) for topic, ids in self._ids.items() for one in ids[: self._limit])
        self._offered_again = dict(oldest[: max(0, room)])
        return list(self._offered_again)
