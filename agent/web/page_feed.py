"""The agent's end of the page: takes what the loop leaves behind, and hands it on from a thread of its own."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from agent.backoff import Backoff, BackoffLimits
from agent.errors import PageError
from agent.messages.records import Evaluation
from agent.web.child_handle import PageProcess
from agent.web.ipc import LONGEST_MESSAGE_BYTES, Shown, results_message, state_message

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from typing_extensions import Self

    from agent.inspection.score import PartInspection
    from agent.messages.records import Payload
    from agent.outbox.outbox import Kind
    from agent.web.ipc import PageOrder

_LOOK_UP_S = 0.1
_WAITING_AT_MOST = 4096
"""Results that the page's process has not taken: some seconds of the fastest camera."""
_LARGEST_BATCH_BYTES = LONGEST_MESSAGE_BYTES // 2
_SILENT_AFTER_S = 30.0
_REJECT_GOES_FIRST_NS = 1_000_000_000
_NOT_TAKEN = "web: page does not take results"
RETRIES = BackoffLimits(first_retry_s=1.0, longest_retry_s=30.0)

_log = logging.getLogger(__name__)


class PageFeed:
    """Keeps the page's process up from enter to exit. What the loop calls (`put`, `show`) never waits for it.

    It is a store of records, one of those that `recorder.Copies` fills: each result reaches it as it is published.

    Args:
        order: What to serve.
        listener: Where.
        pace: Of the attempts to start a process that has died again.
        silent_after_s: A process that gives no sign of life for so long is ended, and started again.

    Attributes:
        dropped: Results that the page did not take, by reason.
        pid: Of the process; None while there is none.
    """

    def __init__(
        self,
        order: PageOrder,
        listener: socket.socket,
        *,
        pace: BackoffLimits = RETRIES,
        silent_after_s: float = _SILENT_AFTER_S,
    ) -> None:
        self.dropped: Counter[str] = Counter()
        self.pid: int | None = None
        self._order = order
        self._listener = listener
        self._pace = pace
        self._silent_after_s = silent_after_s
        self._state: Callable[[], Payload] = dict
        self._lock = threading.Lock()
        self._results: deque[str] = deque()
        self._batch: bytes | None = None
        self._newest: PartInspection | None = None
        self._newest_reject: PartInspection | None = None
        self._stopping = threading.Event()
        self._is_loss_told = False
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)

    def put(self, kind: Kind, record_id: str, topic: str, payload: str, created_at_ms: int) -> bool:
        """Take a record; alerts stand in the state."""
        del record_id, topic, created_at_ms
        if kind == "result":
            with self._lock:
                if len(self._results) >= _WAITING_AT_MOST:
                    self._results.popleft()
                    self.dropped[_NOT_TAKEN] += 1
                self._results.append(payload)
        return True

    def show(self, seen: PartInspection) -> None:
        """The newest frame, whose result was put before; one with a defect is shown first, if it can be."""
        self._newest = seen
        if seen.decision.verdict.evaluation is Evaluation.NOT_OK:
            self._newest_reject = seen

    def tell_state(self, state: Callable[[], Payload]) -> None:
        """What to ask for the state of the station, once a second while somebody watches; before enter."""
        self._state = state

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop: nobody is answered any more."""
        self._stopping.set()
        self._thread.join()

    def _run(self) -> None:
        backoff = Backoff(self._pace)
        while not self._stopping.is_set():
            began_s = time.monotonic()
            try:
                with PageProcess(self._order, self._listener, self._silent_after_s) as process:
                    self.pid = process.pid
                    self._serve(process)
            except PageError as error:
                self._note_loss(error)
            self.pid = None
            backoff.note_connection(time.monotonic() - began_s)
            self._stopping.wait(backoff.next_s())

    def _serve(self, process: PageProcess) -> None:
        is_picture_wanted, shown = False, None
        while not self._stopping.is_set():
            asked = process.hear(_LOOK_UP_S)
            if asked is not None:
                self._note_life()
            if asked == "state":
                process.tell(state_message(self._state()))
            is_picture_wanted = is_picture_wanted or asked == "picture"
            seen = self._to_show()  # before the results, so that its own is among them
            has_all = self._hand_over_results(process)
            if not is_picture_wanted or not has_all or seen is None or seen is shown:
                continue
            if _show(process, seen):
                is_picture_wanted, shown, self._newest_reject = False, seen, None

    def _to_show(self) -> PartInspection | None:
        newest, reject = self._newest, self._newest_reject
        if newest is None or reject is None:
            return newest
        is_old = newest.frame.captured_ns - reject.frame.captured_ns > _REJECT_GOES_FIRST_NS
        return newest if is_old else reject

    def _hand_over_results(self, process: PageProcess) -> bool:
        """Whether it has all of them now."""
        while True:
            self._batch = self._batch or self._next_batch()
            if self._batch is None:
                return True
            if not process.tell(self._batch):
                return False
            self._batch = None

    def _next_batch(self) -> bytes | None:
        batch, size_bytes = [], 0
        with self._lock:
            while self._results and size_bytes < _LARGEST_BATCH_BYTES:
                batch.append(self._results.popleft())
                size_bytes += len(batch[-1]) + 1
        return results_message(batch) if batch else None

    def _note_loss(self, error: PageError) -> None:
        _log.log(logging.DEBUG if self._is_loss_told else logging.WARNING, "no page for now: %s", error)
        self._is_loss_told = True

    def _note_life(self) -> None:
        if self._is_loss_told:
            _log.info("the page is back")
        self._is_loss_told = False


def _show(process: PageProcess, seen: PartInspection) -> bool:
    image, recipe = seen.frame.image, seen.recipe
    score_map = None if seen.inference is None else seen.inference.map
    region = seen.region or recipe.preprocess.region
    shown = Shown(
        result_id=seen.result_id,
        captured_at_ms=seen.frame.captured_at_ms,
        rows=image.shape[0],
        columns=image.shape[1],
        map_shape=None if score_map is None else (score_map.shape[0], score_map.shape[1]),
        grid=recipe.grid,
        region=None if region is None else (region.x, region.y, region.width, region.height),
        threshold=recipe.rules.threshold,
    )
    return process.show(image, score_map, shown)
