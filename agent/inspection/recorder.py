"""Records what was inspected: results and alerts to the outbox, images to the archive, then the answer to the line."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from agent.archive.snapshot import Heat, Snapshot
from agent.inspection.defect_regions import defect_regions
from agent.inspection.record_writer import at_once
from agent.messages.records import Evaluation, Result, ResultCode, ZoneResult, to_json
from agent.trigger.plc_handshake import Answer
from calibration.imaging.region import whole_frame
from calibration.imaging.score_map import cover_region, map_threshold

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.alerts.store import ActiveAlerts
    from agent.archive.archive import Archive
    from agent.inspection.score import PartInspection
    from agent.messages.records import Alert, DefectRegion
    from agent.messages.topics import Topics
    from agent.mqtt.publisher import Announcement
    from agent.outbox.outbox import Kind
    from agent.trigger.part import Part
    from agent.trigger.plc_handshake import Handshake


_PATIENCE_S = 0.02


class PublisherHandle(Protocol):
    """How the recorder notifies the publisher; both calls take microseconds."""

    def wake(self) -> None:
        """A record waits."""

    def announce(self, announcement: Announcement) -> None:
        """The content of a retained message has changed."""


class Store(Protocol):
    """Keeps records until they are delivered: an outbox."""

    def put(self, kind: Kind, record_id: str, topic: str, payload: str, created_at_ms: int) -> bool:
        """Store a record; returns before it is delivered."""


class FanOut:
    """Gives each record to several stores, which lose or deliver it independently."""

    def __init__(self, *stores: Store) -> None:
        self._stores = stores

    def put(self, kind: Kind, record_id: str, topic: str, payload: str, created_at_ms: int) -> bool:
        """Store a record everywhere; whether all stores have it."""
        stored = [store.put(kind, record_id, topic, payload, created_at_ms) for store in self._stores]
        return all(stored)


class Recorder:
    """Turns each inspection into records.

    Args:
        outbox: Written before the network sees anything.
        archive: Keeps images; None keeps none.
        handshake: The controller, which is answered last.
        publisher: Notified of new records.
        topics: Topics of the station.
        active_alerts: Kept in step with the recorded alerts.
        is_simulated: Frames come from a file.
        write: Carries out what stores a record, perhaps later; see `RecordWriter.write`.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - everything that an inspection reaches
        self,
        outbox: Store,
        archive: Archive | None,
        handshake: Handshake,
        publisher: PublisherHandle,
        topics: Topics,
        active_alerts: ActiveAlerts,
        *,
        is_simulated: bool,
        write: Callable[[Kind, Callable[[], object], float], None] = at_once,
    ) -> None:
        self._outbox = outbox
        self._archive = archive
        self._handshake = handshake
        self._publisher = publisher
        self._topics = topics
        self._active_alerts = active_alerts
        self._is_simulated = is_simulated
        self._write = write

    def __call__(self, inspection: PartInspection) -> None:
        """Record one inspection; adds the stage ``record`` to its times."""
        started_ns = time.monotonic_ns()
        heat, regions = _defects(inspection)
        result = self._archived(inspection, self._result(inspection, regions), heat)
        # A verdict is answered when it is on record, as far as the disk allows that in time.
        patience_s = min(_PATIENCE_S, self._handshake.left_s(inspection.part) / 2)
        self._put(result, patience_s)
        decision = inspection.decision
        for event in (decision.event, decision.camera_event, decision.drift_event):
            if event is not None:
                self.record_alert(event, result.created_at_ms, patience_s)
        self._handshake.answer(Answer(inspection.part, result.seq, result.evaluation, result.code, result.score))
        self._publisher.wake()
        finished_ns = time.monotonic_ns()
        inspection.times_ms["record"] = (finished_ns - started_ns) / 1e6
        inspection.times_ms["total"] = (finished_ns - inspection.frame.captured_ns) / 1e6

    def record_missed(self, part: Part, code: ResultCode, threshold: float) -> None:
        """Record a part that had no frame in time; the controller has its answer already. From any thread.

        Args:
            part: The part.
            code: Why it had no frame.
            threshold: NaN where there are several.
        """
        self._put(
            Result(
                seq=None,
                part_id=part.part_id,
                created_at_ms=part.asked_at_ms,
                evaluation=Evaluation.NOT_DECIDABLE,
                code=code,
                frames=0,
                score=float("nan"),
                threshold=threshold,
                is_simulated=self._is_simulated,
            )
        )

    def record_alert(self, alert: Alert, now_ms: int, patience_s: float = _PATIENCE_S) -> None:
        """Record that an alert started, changed or ended."""

        def store() -> None:
            # An agent killed in between may end an alert that was never published, or publish the same end twice, but
            # it leaves no alert without an end.
            self._active_alerts.note(alert)
            self._outbox.put("alert", alert.record_id, self._topics.alert, to_json(alert.payload()), now_ms)
            if alert.type == "end":
                self._active_alerts.forget(alert)
            self._publisher.announce("alert_state")

        self._write("alert", store, patience_s)

    def _put(self, result: Result, patience_s: float = 0.0) -> None:
        payload = to_json(result.payload())
        topic, created_at_ms = self._topics.result, result.created_at_ms
        self._write(
            "result",
            lambda: self._outbox.put("result", result.result_id, topic, payload, created_at_ms),
            patience_s,
        )

    def _result(self, inspection: PartInspection, regions: tuple[DefectRegion, ...]) -> Result:
        code = inspection.code
        if code is ResultCode.NONE and self._handshake.is_late(inspection.part):
            code = ResultCode.TOO_LATE
        stamp = inspection.frame.stamp
        return Result(
            result_id=inspection.result_id,
            seq=inspection.frame.seq,
            part_id=inspection.part.part_id,
            created_at_ms=inspection.frame.captured_at_ms,
            evaluation=inspection.decision.verdict.evaluation,
            code=code,
            frames=inspection.frames,
            score=inspection.decisive.score,
            threshold=inspection.recipe.rules.threshold,
            regions=regions,
            zone=inspection.recipe.zone or None,
            zones=_zone_results(inspection),
            processing_times_ms={stage: round(ms, 3) for stage, ms in inspection.times_ms.items()},
            speed_px_s=inspection.part.speed_px_s,
            camera_frame=None if stamp is None else stamp.number,
            camera_time_us=None if stamp is None else stamp.time_ns // 1000,
            is_simulated=self._is_simulated,
        )

    def _archived(self, inspection: PartInspection, result: Result, heat: tuple[Heat, ...]) -> Result:
        """The result, with a reference to its image if the archive keeps one."""
        if self._archive is None or not self._archive.wants(result.evaluation, ResultCode(result.code)):
            return result
        region = inspection.region or inspection.recipe.preprocess.region
        return replace(result, image_ref=self._archive.submit(Snapshot(inspection.frame.image, heat, region, result)))


def _defects(inspection: PartInspection) -> tuple[tuple[Heat, ...], tuple[DefectRegion, ...]]:
    """Score maps and regions of the defects in the decisive frame, the worst zone first."""
    frame = whole_frame(inspection.frame.image)
    heat: list[Heat] = []
    regions: list[DefectRegion] = []
    rejected = [zone for zone in inspection.zones if zone.verdict.evaluation is Evaluation.NOT_OK]
    for zone in sorted(rejected, key=lambda zone: zone.ratio, reverse=True):
        score, recipe = zone.frame_score, zone.frame_score.recipe
        if zone.inference is not None and score.frame.seq == inspection.frame.seq:
            score_map = cover_region(zone.inference.map, recipe.grid)
            threshold = map_threshold(score_map, zone.inference.score, recipe.rules.threshold)
            heat.append(Heat(score.region, score_map, threshold))
            regions += defect_regions(score_map, threshold, score.region or frame, frame, recipe.zone or None)
    return tuple(heat), tuple(regions)


def _zone_results(inspection: PartInspection) -> dict[str, ZoneResult]:
    return {
        zone.frame_score.recipe.zone: ZoneResult(
            seq=zone.frame_score.frame.seq,
            evaluation=zone.verdict.evaluation,
            code=zone.code,
            score=zone.score,
            threshold=zone.frame_score.recipe.rules.threshold,
        )
        for zone in inspection.zones
        if zone.frame_score.recipe.zone
    }
