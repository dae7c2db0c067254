"""The state of the station, as its messages, its live page and its metrics report it."""

from __future__ import annotations

import shutil
from collections import Counter
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from agent.camera.contract import BEING_OPENED
from agent.clock import now_ms
from agent.drift.report import drift_payload
from agent.messages.payloads import NO_LOSS, AlertState, BundleInfo, Health, Info
from agent.messages.records import Evaluation, ResultCode
from agent.station.settled_state import RUNNING, Condition, SettledState
from calibration.plain_text import counted

if TYPE_CHECKING:
    from collections.abc import Mapping

    from agent.alerts.store import ActiveAlerts
    from agent.archive.archive import Archive
    from agent.camera import Camera
    from agent.commands.dispatcher import CommandDispatcher
    from agent.drift.report import DriftReport
    from agent.inspection.record_writer import RecordWriter
    from agent.messages.records import Payload
    from agent.metrics.loop_metrics import LoopMetrics
    from agent.outbox.outbox import Outbox
    from agent.recalibration.command import RecalibrationCommand
    from agent.statistics.history import History
    from agent.trigger.plc_handshake import Handshake
    from agent.trigger.trigger import Trigger
    from agent.zones.active_bundle import ActiveBundle
    from agent.zones.station_controls import StationControls

_TEMPERATURE = Path("/sys/class/thermal/thermal_zone0/temp")


@dataclass(frozen=True, slots=True, kw_only=True)
class StationState:
    """Whether the station inspects, and if not, why; from any thread, without waiting.

    Attributes:
        settled: Follows `observe`, which one thread calls often.
    """

    camera: Camera
    controls: StationControls
    metrics: LoopMetrics
    outbox: Outbox
    settled: SettledState
    records: RecordWriter

    def state(self) -> tuple[str, str]:
        """State and reason, for ``status``; a state that comes and goes does not change it."""
        paused = self.controls.paused
        return ("paused", paused) if paused is not None else self.settled.value or self.observed()

    def observe(self) -> None:
        """Let the state follow what is seen now."""
        self.settled.note(self.observed(), passing=self._is_being_opened)

    def observed(self) -> Condition:
        """The state at this moment, but for a pause."""
        if self.camera.state != "running":
            return Condition(self.camera.state, self.camera.reason or "the camera gives no frames")
        if self.metrics.fault is not None:
            return Condition("fault", self.metrics.fault)
        fault = self.outbox.fault or self.records.fault
        return RUNNING if fault is None else Condition("fault", f"results cannot be stored: {fault}")

    @property
    def is_camera_lost(self) -> bool:
        """Whether the camera is lost, and not only for a moment or at the start."""
        settled = self.settled.value
        return settled is not None and settled.state == "lost" and not settled.reason.endswith(BEING_OPENED)

    @property
    def _is_being_opened(self) -> bool:
        return self.camera.reason.endswith(BEING_OPENED)

    def why_no_verdict(self) -> ResultCode:
        """The probable reason why an overdue part has no verdict."""
        if self.controls.is_paused:
            return ResultCode.PAUSED
        return ResultCode.TOO_LATE if self.camera.state == "running" else ResultCode.CAMERA_LOST


@dataclass(frozen=True, slots=True, kw_only=True)
class StationStatus(StationState):
    """Everything that the station reports, read from its parts; from any thread, without waiting.

    Attributes:
        source: The camera, as it may appear in a message.
        state_dir: Folder of records and images.
        page_dropped: Results that the live page did not take, by reason; updated elsewhere.
    """

    trigger: Trigger
    handshake: Handshake
    commands: CommandDispatcher
    archive: Archive | None
    history: History | None
    active_alerts: ActiveAlerts
    source: str
    state_dir: Path
    recalibrations: RecalibrationCommand
    page_dropped: Mapping[str, int] = field(default_factory=dict)

    def one_line(self) -> str:
        """A summary for people."""
        state, reason = self.state()
        why = f" ({reason})" if reason else ""
        frames = f"{counted(self.camera.captured, 'frame')} captured, {counted(self.metrics.results, 'result')}"
        drifts = [f"; {words}" for zone, report in self.drifts.items() if (words := report.words_in(zone))]
        lost = sum(count for reason, count in self.dropped().items() if reason not in NO_LOSS)
        waiting = f"{lost} dropped, {counted(self.outbox.depth(), 'record')} waiting"
        return f"{state}{why}; {frames}, {waiting}{''.join(drifts)}"

    @property
    def drifts(self) -> dict[str, DriftReport]:
        """Drift reports by zone; empty where drift is not watched."""
        watches = {recipe.zone: recipe.drift for recipe in self.controls.active_recipes()}
        return {zone: watch.report for zone, watch in watches.items() if watch is not None}

    def info(self) -> Payload:
        """Content of ``info``."""
        bundles = {zone.name: _about(zone.active) for zone in self.controls.zones}
        zones = {name: about for name, about in bundles.items() if name}
        return Info.of(next(iter(bundles.values())), self.source, zones).payload()

    def alert_state(self) -> Payload:
        """Content of ``alert/state``."""
        return AlertState(timestamp_ms=now_ms(), active=self.active_alerts.alerts).payload()

    def dropped(self) -> Counter[str]:
        """Everything that was dropped, by reason."""
        images = {} if self.archive is None else {f"archive: {why}": n for why, n in self.archive.dropped.items()}
        refused = {f"command: {name}": count for name, count in dict(self.commands.refused).items()}
        page = self.page_dropped
        not_counted = {} if self.history is None else {"statistics: unwritable": self.history.not_counted}
        return +_sum(
            self.frames_dropped(),
            self.records_lost(),
            self.handshake.dropped,
            images,
            refused,
            page,
            not_counted,
        )

    def records_lost(self) -> Counter[str]:
        """Results and alerts that the broker will never have, by reason."""
        return +_sum(self.outbox.dropped, self.records.dropped)

    def frames_dropped(self) -> Counter[str]:
        """Frames without a result of their own, by reason; ``combined`` frames are part of another's result."""
        combined = {"combined": self.metrics.combined} if self.metrics.combined else {}
        return _sum(self.camera.dropped, self.trigger.dropped, combined)

    def health(self) -> Payload:
        """Content of ``health``."""
        return Health(
            timestamp_ms=now_ms(),
            fps=self.metrics.frames_per_s(),
            p50_ms=self.metrics.percentiles(50),
            p99_ms=self.metrics.percentiles(99),
            captured=self.camera.captured,
            results=self.metrics.results,
            results_per_s=self.metrics.results_per_s(),
            ok=self.metrics.verdicts[Evaluation.OK],
            not_ok=self.metrics.verdicts[Evaluation.NOT_OK],
            not_decidable=self.metrics.verdicts[Evaluation.NOT_DECIDABLE],
            missed=self.metrics.missed,
            this_hour={} if self.history is None else self.history.this_hour,
            last_result_age_ms=self.metrics.last_result_age_ms(),
            camera=self.camera.state,
            dropped=self.dropped(),
            outbox_depth=self.outbox.depth(),
            outbox_faults=self.outbox.faults + self.records.faults,
            disk_free_bytes=disk_free_bytes(self.state_dir),
            temperature_c=_temperature_c(),
            drift=drift_payload(self.drifts),
            recalibration=self.recalibrations.under_way,
        ).payload()


def _about(active: ActiveBundle) -> BundleInfo:
    manifest = active.bundle.manifest
    return BundleInfo(
        bundle_hash=active.bundle.identity,
        threshold=active.recipe.rules.threshold,
        false_reject_rate=manifest.working_point.false_reject_rate,
        backend=active.recipe.engine.backend,
        backend_reason=active.reason,
        calibrated_at_ms=round(datetime.fromisoformat(manifest.created_at).timestamp() * 1000),
    )


def _sum(*counts: Mapping[str, int]) -> Counter[str]:
    total: Counter[str] = Counter()
    for count in counts:
        total.update(dict(count))  # a copy, made in one step: another thread may be counting
    return total


def disk_free_bytes(folder: Path) -> int:
    """Free space on a folder's disk."""
    try:
        return shutil.disk_usage(folder).free
    except OSError:
        return 0  # for example, a memory card that was pulled out


def _temperature_c() -> float | None:
    try:
        return int(_TEMPERATURE.read_text()) / 1000
    except (OSError, ValueError):
        return None
