"""The agent's end of the live page: takes results and frames from the loop, and sends them on from its own thread."""

from __future__ import annotations

import logging
import threading
import time
from collections import Counter, deque
from typing import TYPE_CHECKING

from agent.backoff import Backoff, BackoffLimits
from agent.camera import Frame
from agent.errors import PageError
from agent.messages.records import Evaluation
from agent.web.child_handle import PageProcess
from agent.web.ipc import PageReport, ShownFrame
from calibration.imaging.score_map import map_threshold

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable

    from typing_extensions import Self

    from agent.inspection.score import PartInspection
    from agent.messages.records import Payload
    from agent.outbox.outbox import Kind
    from agent.web.ipc import PageOrder

_STOPS_WITHIN_S = 0.1
_MOST_WAITING = 4096
"""Results that the page's process has not taken: some seconds of the fastest camera."""
_LARGEST_BATCH_BYTES = 32 * 1024
_SILENT_AFTER_S = 30.0
_REJECT_FIRST_NS = 1_000_000_000
_BETWEEN_AFTER_NS = 2_000_000_000
"""How long a part stays on the page when no other part comes."""
_NOT_TAKEN = "web: page does not take results"
RETRIES = BackoffLimits(first_retry_s=1.0, longest_retry_s=30.0)

_log = logging.getLogger(__name__)


class PageFeed:
    """Keeps the page's process running from enter to exit. What the loop calls (`put`, `show`) never waits for it.

    It is one of the stores of records that `recorder.FanOut` fills: each result reaches it as it is published.

    Args:
        order: What to serve.
        listener: Where.
        pace: Waits before a process that has died is started again.
        silent_after_s: A process that gives no sign of life for so long is ended, and started again.

    Attributes:
        dropped: Results that the page did not take, by reason.
        pid: Process id; None while there is no process.
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
        self._between: Frame | None = None
        self._stopping = threading.Event()
        self._is_loss_logged = False
        self._thread = threading.Thread(target=self._run, name="page", daemon=True)

    def put(self, kind: Kind, record_id: str, topic: str, payload: str, created_at_ms: int) -> bool:
        """Take a result; alerts are part of the state."""
        del record_id, topic, created_at_ms
        if kind == "result":
            with self._lock:
                if len(self._results) >= _MOST_WAITING:
                    self._results.popleft()
                    self.dropped[_NOT_TAKEN] += 1
                self._results.append(payload)
        return True

    def show(self, part: PartInspection) -> None:
        """Offer the newest frame, after its result was put; a recent one with a defect is shown first."""
        self._newest = part
        if part.decision.verdict.evaluation is Evaluation.NOT_OK:
            self._newest_reject = part

    def show_between(self, frame: Frame) -> None:
        """Offer a frame without a part; it is shown when no part has come for a while."""
        self._between = frame

    def use_state(self, state: Callable[[], Payload]) -> None:
        """Set what gives the state of the station, once a second while a browser watches; before enter."""
        self._state = state

    def __enter__(self) -> Self:
        """Start."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Stop serving."""
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
        is_frame_due, shown = False, None
        while not self._stopping.is_set():
            request = process.next_request(_STOPS_WITHIN_S)
            if request is not None:
                self._note_life()
            if request == "state":
                process.send(PageReport("state", self._state()).as_bytes())
            is_frame_due = is_frame_due or request == "picture"
            part = self._part_to_show()  # before the results, so that its own is among them
            has_all = self._send_results(process)
            if is_frame_due and has_all and part is not None and part is not shown and _show(process, part):
                is_frame_due, shown, self._newest_reject = False, part, None

    def _part_to_show(self) -> PartInspection | Frame | None:
        newest, reject, between = self._newest, self._newest_reject, self._between
        if newest is None:
            return between
        if between is not None and between.captured_ns - newest.frame.captured_ns > _BETWEEN_AFTER_NS:
            return between
        is_recent = reject is not None and newest.frame.captured_ns - reject.frame.captured_ns <= _REJECT_FIRST_NS
        return reject if is_recent else newest

    def _send_results(self, process: PageProcess) -> bool:
        """Whether the process has all of them now."""
        while True:
            self._batch = self._batch or self._next_batch()
            if self._batch is None:
                return True
            if not process.send(self._batch):
                return False
            self._batch = None

    def _next_batch(self) -> bytes | None:
        batch, size_bytes = [], 0
        with self._lock:
            while self._results and size_bytes < _LARGEST_BATCH_BYTES:
                batch.append(self._results.popleft())
                size_bytes += len(batch[-1]) + 1
        # A `PageReport`; the results are JSON already.
        return b'["results",[' + ",".join(batch).encode() + b"]]" if batch else None

    def _note_loss(self, error: PageError) -> None:
        _log.log(logging.DEBUG if self._is_loss_logged else logging.WARNING, "no page for now: %s", error)
        self._is_loss_logged = True

    def _note_life(self) -> None:
        if self._is_loss_logged:
            _log.info("the page is back")
        self._is_loss_logged = False


def _show(process: PageProcess, shown: PartInspection | Frame) -> bool:
    return _show_frame(process, shown) if isinstance(shown, Frame) else _show_part(process, shown)


def _show_frame(process: PageProcess, frame: Frame) -> bool:
    rows, columns = frame.image.shape[:2]
    shown = ShownFrame(
        result_id=f"between-{frame.seq}",
        captured_at_ms=frame.captured_at_ms,
        rows=rows,
        columns=columns,
        map_shape=None,
        grid=(1, 1),
        region=None,
        threshold=1.0,
    )
    return process.show(frame.image, None, shown)


def _show_part(process: PageProcess, part: PartInspection) -> bool:
    image, recipe = part.frame.image, part.recipe
    score_map, threshold = None, recipe.rules.threshold
    if part.inference is not None:
        score_map = part.inference.map
        threshold = map_threshold(score_map, part.inference.score, threshold)
    region = part.region or recipe.preprocess.region
    shown = ShownFrame(
        result_id=part.result_id,
        captured_at_ms=part.frame.captured_at_ms,
        rows=image.shape[0],
        columns=image.shape[1],
        map_shape=None if score_map is None else (score_map.shape[0], score_map.shape[1]),
        grid=recipe.grid,
        region=None if region is None else (region.x, region.y, region.width, region.height),
        threshold=threshold,
    )
    return process.show(image, score_map, shown)
