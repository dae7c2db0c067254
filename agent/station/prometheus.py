"""Turns the status of the station into Prometheus metrics when they are fetched."""

from __future__ import annotations

from itertools import accumulate
from typing import TYPE_CHECKING, get_args

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
        yield self._build_info()
        yield from self._frames()
        yield _histogram(self._status.metrics.stages)
        yield from self._camera()
        yield from self._drift()
        yield from self._broker()

    def _build_info(self) -> Metric:
        names = (*self._about, "zone", "bundle", "backend")
        samples = [
            ((*self._about.values(), zone.name, zone.served.bundle.identity, zone.served.recipe.engine.backend), 1)
            for zone in self._status.controls.zones
        ]
        return _family(GaugeMetricFamily, "build_info", "Versions and bundles that are active.", names, samples)

    def _frames(self) -> Iterator[Metric]:
        status = self._status
        captured = [((), status.camera.captured)]
        yield _family(CounterMetricFamily, "frames_captured", "Frames that the camera gave.", (), captured)
        verdicts = [((verdict.name.lower(),), status.metrics.verdicts[verdict]) for verdict in _VERDICTS]
        yield _family(CounterMetricFamily, "results", "Frames with a result.", ("verdict",), verdicts)
        dropped = [((reason,), count) for reason, count in status.dropped().items()]
        yield _family(
            CounterMetricFamily, "dropped", "Dropped frames, records and messages, as in health.", ("reason",), dropped
        )
        age_ms = status.metrics.last_result_age_ms()
        age_s = [] if age_ms is None else [((), age_ms / 1000)]
        yield _family(GaugeMetricFamily, "last_result_age_seconds", "Time since the last result.", (), age_s)

    def _camera(self) -> Iterator[Metric]:
        now = self._status.camera.state
        states = [((state,), float(state == now)) for state in get_args(CameraState)]
        yield _family(GaugeMetricFamily, "camera_state", "1 for the current state.", ("state",), states)

    def _drift(self) -> Iterator[Metric]:
        reports = self._status.drifts
        if not reports:
            return
        findings = [(zone, each) for zone, report in reports.items() for each in report.findings]
        labels = ("zone", "statistic")
        meaning = "Drift of good parts from calibration: 0 none, 1 upwards, -1 downwards."
        found = [((zone, each.statistic), (1 if each.goes_up else -1) * each.found) for zone, each in findings]
        yield _family(GaugeMetricFamily, "drift", meaning, labels, found)
        evidence = [((zone, each.statistic), each.evidence) for zone, each in findings]
        yield _family(GaugeMetricFamily, "drift_evidence", "Evidence of drift, 0 to 1; 1 is drift.", labels, evidence)
        rates = [
            ((zone, kind), rate)
            for zone, report in reports.items()
            for kind, rate in (("stated", report.stated_rate), ("predicted", report.predicted_rate))
            if rate is not None
        ]
        meaning = "Stated by calibration; predicted from current scores."
        yield _family(GaugeMetricFamily, "false_reject_rate", meaning, ("zone", "kind"), rates)

    def _broker(self) -> Iterator[Metric]:
        clients = self._clients.items()
        connected = [((name,), float(client.connected)) for name, client in clients]
        yield _family(GaugeMetricFamily, "connected", "Whether the connection is accepted.", ("connection",), connected)
        waiting = [((name,), client.waiting) for name, client in clients]
        yield _family(GaugeMetricFamily, "outbox_depth", "Records that wait for the broker.", ("connection",), waiting)
        published = [((name,), client.published) for name, client in clients]
        yield _family(CounterMetricFamily, "published", "Records that the broker has.", ("connection",), published)


def _family(
    kind: type[CounterMetricFamily | GaugeMetricFamily],
    name: str,
    meaning: str,
    labels: Sequence[str],
    samples: Sequence[tuple[Sequence[str], float]],
) -> Metric:
    family = kind(f"shiftwatch_{name}", meaning, labels=labels)
    for values, count in samples:
        family.add_metric(values, count)
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
