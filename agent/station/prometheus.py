"""Turns the status of the station into Prometheus metrics when they are fetched."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, Any, get_args

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily

from agent.camera import CameraState
from agent.messages.records import Evaluation
from agent.metrics.loop_metrics import BUCKETS_MS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from prometheus_client.core import Metric

    from agent.metrics.loop_metrics import Latencies
    from agent.mqtt.client_thread import BrokerClient
    from agent.station.status import StationStatus

_VERDICTS = (Evaluation.OK, Evaluation.NOT_OK, Evaluation.NOT_DECIDABLE)
_BOUNDS_S = (*(f"{bound_ms / 1000:g}" for bound_ms in BUCKETS_MS), "+Inf")


class StatusCollector:
    """A collector of ``prometheus_client``.

    Args:
        status: The status of the station.
        clients: Connections to the broker: the plain one, then the one of Sparkplug if there is one.
        station: Topic root.
        version: Version of shiftwatch.
    """

    def __init__(self, status: StationStatus, clients: Sequence[BrokerClient], station: str, version: str) -> None:
        self._status = status
        self._clients = dict(zip(("mqtt", "sparkplug"), clients, strict=False))
        self._about = {"station": station, "version": version}

    def collect(self) -> Iterator[Metric]:
        """The current metrics; from any thread, without waiting."""
        status, metrics = self._status, self._status.metrics
        about = {
            (*self._about.values(), zone.name, zone.active.bundle.identity, zone.active.recipe.engine.backend): 1
            for zone in status.controls.zones
        }
        yield _gauge("build_info", "Active versions and bundles.", about, *self._about, "zone", "bundle", "backend")
        yield _counter("frames_captured", "Frames that the camera gave.", {(): status.camera.captured})
        verdicts = {(verdict.name.lower(),): metrics.verdicts[verdict] for verdict in _VERDICTS}
        yield _counter("results", "Frames with a result.", verdicts, "verdict")
        yield _counter("missed_parts", "Parts that had no frame in time.", {(): metrics.missed})
        dropped = {(reason,): count for reason, count in status.dropped().items()}
        yield _counter("dropped", "Dropped frames, records and messages, as in health.", dropped, "reason")
        age_ms = metrics.last_result_age_ms()
        age_s = {} if age_ms is None else {(): age_ms / 1000}
        yield _gauge("last_result_age_seconds", "Time since the last result.", age_s)
        yield _histogram(metrics.stages)
        states = {(state,): float(state == status.camera.state) for state in get_args(CameraState)}
        yield _gauge("camera_state", "1 for the current state.", states, "state")
        yield from self._drift()
        clients = self._clients.items()
        connected = {(name,): float(client.connected) for name, client in clients}
        yield _gauge("connected", "Whether the connection is accepted.", connected, "connection")
        waiting = {(name,): client.waiting for name, client in clients}
        yield _gauge("outbox_depth", "Records that wait for the broker.", waiting, "connection")
        faults = {(): status.outbox.faults + status.records.faults}
        yield _counter("outbox_faults", "How often results could not be stored.", faults)
        published = {(name,): client.published for name, client in clients}
        yield _counter("published", "Records that the broker has.", published, "connection")

    def _drift(self) -> Iterator[Metric]:
        reports = self._status.drifts
        if not reports:
            return
        findings = {(zone, each.statistic): each for zone, report in reports.items() for each in report.findings}
        found = {labels: (1 if each.goes_up else -1) * each.found for labels, each in findings.items()}
        meaning = "Drift of good parts from calibration: 0 none, 1 upwards, -1 downwards."
        yield _gauge("drift", meaning, found, "zone", "statistic")
        evidence = {labels: each.evidence for labels, each in findings.items()}
        yield _gauge("drift_evidence", "Evidence of drift, 0 to 1; 1 is drift.", evidence, "zone", "statistic")
        rates = {
            (zone, kind): rate
            for zone, report in reports.items()
            for kind, rate in (("stated", report.stated_rate), ("predicted", report.predicted_rate))
            if rate is not None
        }
        meaning = "Stated by calibration; predicted from current scores."
        yield _gauge("false_reject_rate", meaning, rates, "zone", "kind")


def _gauge(name: str, meaning: str, samples: Mapping[Any, float], *labels: str) -> Metric:
    return _filled(GaugeMetricFamily(f"shiftwatch_{name}", meaning, labels=labels), samples)


def _counter(name: str, meaning: str, samples: Mapping[Any, float], *labels: str) -> Metric:
    return _filled(CounterMetricFamily(f"shiftwatch_{name}", meaning, labels=labels), samples)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, samples: Mapping[Any, float]) -> Metric:
    for labels, value in samples.items():
        family.add_metric(labels, value)
    return family


def _histogram(stages: Mapping[str, Latencies]) -> Metric:
    family = HistogramMetricFamily(
        "shiftwatch_stage_duration_seconds", "Duration of each stage, per frame.", labels=("stage",)
    )
    for stage, latencies in stages.items():
        cumulated = accumulate(list(latencies.counts))  # a copy: the loop keeps counting
        buckets = [(bound, float(count)) for bound, count in zip(_BOUNDS_S, cumulated, strict=True)]
        family.add_metric((stage,), buckets, latencies.sum_ms / 1000)
    return family
