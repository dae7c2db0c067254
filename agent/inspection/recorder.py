"""What was seen: results and alerts into the outbox, pictures into the archive, then the line is told."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Protocol

from agent.archive.archive import Heat, Snapshot
from agent.inspection.defect_regions import defect_regions
from agent.messages.records import Evaluation, Result, ResultCode, ZoneResult, to_json
from agent.trigger.plc_handshake import Answer
from calibration.imaging.region import whole_frame
from calibration.imaging.score_map import cover_region

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.alerts.store import ActiveAlerts
    from agent.archive.archive import Archive
    from agent.inspection.score import PartInspection, ZoneVerdict
    from agent.messages.records import Alert, DefectRegion
    from agent.messages.topics import Topics
    from agent.mqtt.publisher import Announcement
    from agent.outbox.outbox import Kind
    from agent.trigger.part import Part
    from agent.trigger.plc_handshake import Handshake


class PublisherHandle(Protocol):
    """What the recorder tells the publisher; both calls cost microseconds."""

    def wake(self) -> None:
        """A record waits."""

    def announce(self, announcement: Announcement) -> None:
        """What a retained message says has changed."""


class Store(Protocol):
    """Where records are kept until somebody has them: an outbox."""

    def put(self, kind: Kind, record_id: str, topic: str, payload: str, created_at_ms: int) -> bool:
        """Store a record; returns before anybody has it."""


class FanOut:
    """A record for each of several stores, which lose or deliver it independently."""

    def __init__(self, *stores: Store) -> None:
        self._stores = stores

    def put(self, kind: Kind, record_id: str, topic: str, payload: str, created_at_ms: int) -> bool:
        """Store a record everywhere; whether all have it."""
        stored = [store.put(kind, record_id, topic, payload, created_at_ms) for store in self._stores]
        return all(stored)


class Recorder:
    """Turns each verdict into records.

    Args:
        outbox: Committed before the network sees anything.
        archive: Where pictures go; None keeps none.
        handshake: With the controller, which is told last.
        is_simulated: Frames come from a file.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the places that one verdict reaches
        self,
        outbox: Store,
        archive: Archive | None,
        handshake: Handshake,
        line: PublisherHandle,
        topics: Topics,
        active_alerts: ActiveAlerts,
        *,
        is_simulated: bool,
    ) -> None:
        self._outbox = outbox
        self._archive = archive
        self._handshake = handshake
        self._line = line
        self._topics = topics
        self._active_alerts = active_alerts
        self._is_simulated = is_simulated

    def __call__(self, seen: PartInspection) -> None:
        """Record one verdict; adds the stage ``record`` to its times."""
        started_ns = time.monotonic_ns()
        result = self._result(seen)
        self._put(result)
        for event in (seen.decision.event, seen.decision.camera_event, seen.decision.drift_event):
            if event is not None:
                self.record_alert(event, seen.frame.captured_at_ms)
        self._handshake.tell(Answer(seen.part, result.seq, result.evaluation, result.code, result.score))
        self._line.wake()
        finished_ns = time.monotonic_ns()
        seen.times_ms["record"] = (finished_ns - started_ns) / 1e6
        seen.times_ms["total"] = (finished_ns - seen.frame.captured_ns) / 1e6

    def record_missed(self, part: Part, code: ResultCode, threshold: float) -> None:
        """Record a part of which there was no frame in time; the controller has been told. From any thread.

        Args:
            part: Which.
            code: Why.
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
        self._line.wake()

    def record_alert(self, alert: Alert, now_ms: int) -> None:
        """Record that an alert began, changed or ended."""
        # An agent killed in between may end an alert of which nobody heard, or end one twice in the same words, but
        # leaves none without an end.
        self._active_alerts.note(alert)
        self._outbox.put("alert", alert.record_id, self._topics.alert, to_json(alert.payload()), now_ms)
        if alert.type == "end":
            self._active_alerts.forget(alert)
        self._line.announce("alert_state")

    def _put(self, result: Result) -> None:
        payload = to_json(result.payload())
        self._outbox.put("result", result.result_id, self._topics.result, payload, result.created_at_ms)

    def _result(self, seen: PartInspection) -> Result:
        heat = _heat_of_defects(seen)
        regions = _defects(seen, heat)
        zones = {zone.view.recipe.zone: _zone_result(zone) for zone in seen.zones if zone.view.recipe.zone}
        is_late = seen.code is ResultCode.NONE and self._handshake.is_late(seen.part)
        code = ResultCode.TOO_LATE if is_late else seen.code
        return Result(
            result_id=seen.result_id,
            seq=seen.frame.seq,
            part_id=seen.part.part_id,
            created_at_ms=seen.frame.captured_at_ms,
            evaluation=seen.decision.verdict.evaluation,
            code=code,
            frames=seen.frames,
            score=seen.decisive.score,
            threshold=seen.recipe.rules.threshold,
            regions=regions,
            zone=seen.recipe.zone or None,
            zones=zones,
            image_ref=self._picture(seen, code, regions, heat, zones),
            processing_times_ms={stage: round(ms, 3) for stage, ms in seen.times_ms.items()},
            is_simulated=self._is_simulated,
        )

    def _picture(
        self,
        seen: PartInspection,
        code: ResultCode,
        regions: tuple[DefectRegion, ...],
        heat: Mapping[str, Heat],
        zones: Mapping[str, ZoneResult],
    ) -> str | None:
        """Reference of the picture that is kept of this result, if one is."""
        evaluation = seen.decision.verdict.evaluation
        if self._archive is None or not self._archive.wants(evaluation, code):
            return None
        return self._archive.submit(
            Snapshot(
                image=seen.frame.image,
                heat=tuple(heat.values()),
                region=seen.region or seen.recipe.preprocess.region,
                threshold=seen.recipe.rules.threshold,
                score=seen.decisive.score,
                result_id=seen.result_id,
                part_id=seen.part.part_id,
                seq=seen.frame.seq,
                created_at_ms=seen.frame.captured_at_ms,
                evaluation=evaluation,
                code=code,
                regions=regions,
                zones=zones,
            )
        )


def _heat_of_defects(seen: PartInspection) -> dict[str, Heat]:
    """Of each zone in which the decisive frame shows a defect, by its name, the worst first."""
    rejected = [zone for zone in seen.zones if zone.verdict.evaluation is Evaluation.NOT_OK]
    heat = {}
    for zone in sorted(rejected, key=lambda zone: zone.ratio, reverse=True):
        view, inference = zone.view, zone.inference
        if inference is not None and view.frame.seq == seen.frame.seq:
            score_map = cover_region(inference.map, view.recipe.grid)
            heat[view.recipe.zone] = Heat(view.region, score_map, view.recipe.rules.threshold)
    return heat


def _defects(seen: PartInspection, heat: Mapping[str, Heat]) -> tuple[DefectRegion, ...]:
    """Where they are, the worst zone first."""
    frame = whole_frame(seen.frame.image)
    return tuple(
        defect
        for name, each in heat.items()
        for defect in defect_regions(each.score_map, each.threshold, each.region or frame, frame, name or None)
    )


def _zone_result(zone: ZoneVerdict) -> ZoneResult:
    return ZoneResult(
        seq=zone.view.frame.seq,
        evaluation=zone.verdict.evaluation,
        code=zone.code,
        score=zone.score,
        threshold=zone.view.recipe.rules.threshold,
    )
