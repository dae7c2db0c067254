"""What Prometheus fetches from a station."""

from __future__ import annotations

import http.client
import re
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.parser import text_string_to_metric_families

from agent.errors import MetricsError
from agent.metrics.endpoint import serve_metrics
from agent.metrics.loop_metrics import BUCKETS_MS, LoopMetrics
from agent.station.prometheus import _histogram
from calibration.bundle.bundle import open_bundle
from tests.support.running import Running
from tests.support.stations import ROOT, broken_parts, closed_port, good_parts, until, write_config, write_pictures

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from prometheus_client.core import Metric

    from tests.support.real_broker import Mosquitto

LOOPING = {"playback": "realtime", "frames_per_s": 100, "loop": True}
NAME = r"[a-zA-Z_:][a-zA-Z0-9_:]*"
LABELS = r'\{[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*"(?:,[a-zA-Z_]\w*="(?:[^"\\\n]|\\["\\n])*")*\}'
SAMPLE = re.compile(rf"({NAME})({LABELS})? ([0-9.e+-]+|[+-]Inf|NaN)")


def fetch(url: str, method: str = "GET") -> tuple[int, str, str]:
    parts = urlsplit(url)
    assert parts.hostname is not None
    line = http.client.HTTPConnection(parts.hostname, parts.port, timeout=10)
    line.request(method, parts.path)
    answer = line.getresponse()
    text = answer.read().decode()
    line.close()
    return answer.status, answer.headers.get("Content-Type", ""), text


def families(text: str) -> dict[str, Metric]:
    return {family.name: family for family in text_string_to_metric_families(text)}


def value(text: str, sample: str, **labels: str) -> float:
    """Of one sample; not a number, and so neither more nor less than any, where there is none."""
    found = [
        one.value
        for family in families(text).values()
        for one in family.samples
        if one.name == sample and one.labels == labels
    ]
    assert len(found) < 2, (sample, labels, text)
    return found[0] if found else float("nan")


def check_format(text: str) -> None:
    """The exposition format to the letter: each family once, HELP and TYPE before its samples, no sample twice."""
    assert text.endswith("\n")
    kinds: dict[str, str] = {}
    helped: set[str] = set()
    seen: set[tuple[str, str]] = set()
    current = ""
    for line in text.splitlines():
        if line.startswith("# HELP "):
            current = line.split(" ")[2]
            assert current not in helped, line
            helped.add(current)
        elif line.startswith("# TYPE "):
            _, _, name, kind = line.split(" ")
            assert name == current, line
            assert kind in {"counter", "gauge", "histogram"}, line
            kinds[name] = kind
        else:
            sample = SAMPLE.fullmatch(line)
            assert sample is not None, line
            suffixes = {"_bucket", "_sum", "_count"} if kinds[current] == "histogram" else {""}
            assert sample[1] in {current + suffix for suffix in suffixes}, line
            assert (sample[1], sample[2]) not in seen, line
            seen.add((sample[1], sample[2]))
            assert not (kinds[current] == "counter" and not current.endswith("_total")), line


def check_histograms(text: str) -> None:
    for family in families(text).values():
        if family.type != "histogram":
            continue
        for labels in {tuple(sorted((k, v) for k, v in one.labels.items() if k != "le")) for one in family.samples}:
            own = [one for one in family.samples if set(labels) <= set(one.labels.items())]
            buckets = [(float(one.labels["le"]), one.value) for one in own if one.name.endswith("_bucket")]
            assert buckets == sorted(buckets)
            assert [count for _, count in buckets] == sorted(count for _, count in buckets)
            assert buckets[-1][0] == float("inf")
            (count,) = (one.value for one in own if one.name.endswith("_count"))
            assert count == buckets[-1][1]


@pytest.fixture
def station(
    mosquitto: Mosquitto, bundle: Path, tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[tuple[Running, str]]:
    """One that runs, and where its metrics are."""
    mosquitto.start()
    parts = write_pictures(tmp_path / "parts", [*good_parts(4), *broken_parts(1)])
    port = closed_port()
    more = getattr(request, "param", {})
    metrics = {"enabled": True, "port": port}
    config = write_config(tmp_path, bundle, parts, mosquitto.port, camera=LOOPING, metrics=metrics, **more)
    running = Running(config)
    url = f"http://127.0.0.1:{port}/metrics"
    until(lambda: answers(url) and value(fetch(url)[2], "shiftwatch_connected", connection="mqtt") == 1)
    yield running, url
    running.end()


def answers(url: str) -> bool:
    try:
        return fetch(url)[0] == 200
    except ConnectionRefusedError:
        return False


@pytest.mark.slow
@pytest.mark.parametrize("station", [{}, {"sparkplug": {"enabled": True}}], indirect=True)
def test_a_station_reports_its_figures_in_the_format_of_prometheus(
    station: tuple[Running, str], bundle: Path, request: pytest.FixtureRequest
) -> None:
    running, url = station
    until(lambda: value(fetch(url)[2], "shiftwatch_results_total", verdict="not_ok") > 3)
    status, kind, text = fetch(url)
    assert status == 200
    assert kind.startswith("text/plain; version=")
    check_format(text)
    check_histograms(text)
    assert value(text, "shiftwatch_results_total", verdict="ok") > 0
    assert value(text, "shiftwatch_results_total", verdict="not_decidable") == 0
    about = {
        "station": ROOT,
        "version": "0.1.0",
        "zone": "",
        "bundle": open_bundle(bundle).identity,
        "backend": "onnxruntime-cpu",
    }
    assert value(text, "shiftwatch_build_info", **about) == 1
    assert value(text, "shiftwatch_camera_state", state="running") == 1
    assert value(text, "shiftwatch_camera_state", state="lost") == 0
    assert 0 <= value(text, "shiftwatch_last_result_age_seconds") < 60
    assert value(text, "process_resident_memory_bytes") > 1e6
    for connection in ("mqtt", "sparkplug") if "sparkplug" in str(request.node.callspec.params) else ("mqtt",):
        assert value(text, "shiftwatch_outbox_depth", connection=connection) >= 0
        assert value(text, "shiftwatch_published_total", connection=connection) >= 0
    stages = {one.labels["stage"] for one in families(text)["shiftwatch_stage_duration_seconds"].samples}
    assert {"waiting", "preprocess", "inference", "total"} <= stages
    summary = running.end()
    assert not answers(url)
    assert value(text, "shiftwatch_frames_captured_total") <= summary.captured


@pytest.mark.slow
def test_counters_never_fall(station: tuple[Running, str]) -> None:
    _, url = station
    earlier = fetch(url)[2]
    until(lambda: value(fetch(url)[2], "shiftwatch_frames_captured_total") > 300)
    later = fetch(url)[2]
    before = {
        (one.name, tuple(one.labels.items())): one.value
        for family in families(earlier).values()
        for one in family.samples
        if family.type in {"counter", "histogram"}
    }
    after = {
        (one.name, tuple(one.labels.items())): one.value for each in families(later).values() for one in each.samples
    }
    assert all(after[key] >= count for key, count in before.items())


@pytest.mark.slow
@pytest.mark.parametrize("station", [{"trigger": {"source": "command"}}], indirect=True)
def test_drops_are_reported_by_reason_as_in_health(station: tuple[Running, str]) -> None:
    running, url = station
    until(lambda: value(fetch(url)[2], "shiftwatch_dropped_total", reason="untriggered") > 10)
    told = value(fetch(url)[2], "shiftwatch_dropped_total", reason="untriggered")
    assert told <= running.end().dropped["untriggered"]


def test_metrics_can_only_be_read(station: tuple[Running, str]) -> None:
    _, url = station
    assert fetch(url, "POST")[0] == 405


def connection_to(url: str) -> socket.socket:
    address = urlsplit(url)
    assert address.port is not None
    return socket.create_connection((address.hostname, address.port))


@pytest.mark.slow
def test_silent_clients_delay_neither_other_clients_nor_the_stop(station: tuple[Running, str]) -> None:
    running, url = station
    silent = [connection_to(url) for _ in range(20)]
    assert fetch(url)[0] == 200
    began_s = time.monotonic()
    running.end()
    assert time.monotonic() - began_s < 10
    for line in silent:
        line.close()


def test_nothing_listens_unless_metrics_are_enabled(bundle: Path, tmp_path: Path) -> None:
    parts = write_pictures(tmp_path / "parts", good_parts(2))
    port = closed_port()
    station = Running(write_config(tmp_path, bundle, parts, closed_port(), camera=LOOPING, metrics={"port": port}))
    until((tmp_path / "state" / "control.sock").exists)
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    station.end()


@pytest.mark.parametrize("host", ["127.0.0.1", "192.0.2.1"])
def test_a_port_or_address_that_is_not_free_stops_the_start(bundle: Path, tmp_path: Path, host: str) -> None:
    parts = write_pictures(tmp_path / "parts", good_parts(2))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        metrics = {"enabled": True, "port": port, "host": host}
        station = Running(write_config(tmp_path, bundle, parts, closed_port(), metrics=metrics))
        with pytest.raises(MetricsError, match=f"metrics cannot be served at http://{host}:{port}/metrics") as refusal:
            station.wait()
    assert "metrics.port of its own" in refusal.value.remedy
    assert not {thread.name for thread in threading.enumerate()} & {"publisher", "capture"}


def test_ipv6_is_an_address_too() -> None:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    with serve_metrics("::1", 0, registry) as url:
        assert url.startswith("http://[::1]:")
        assert "process_open_fds" in fetch(url)[2]


def test_a_client_that_disconnects_at_once_leaves_no_trace_on_stderr(capfd: pytest.CaptureFixture[str]) -> None:
    with serve_metrics("127.0.0.1", 0, CollectorRegistry()) as url:
        for _ in range(3):
            hasty = connection_to(url)
            hasty.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # closes with a reset
            hasty.close()
        assert fetch(url)[0] == 200
    assert capfd.readouterr().err == ""


def test_a_collector_that_fails_is_reported_on_stderr_and_stops_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    class Broken:
        def collect(self) -> Iterator[Metric]:
            raise RuntimeError

    registry = CollectorRegistry()
    with serve_metrics("127.0.0.1", 0, registry) as url:
        registry.register(Broken())
        assert [fetch(url)[0] for _ in range(2)] == [500, 500]
    assert capsys.readouterr().err.count("\nRuntimeError\n") == 2


def test_a_duration_is_counted_in_the_first_bucket_that_holds_it() -> None:
    metrics = LoopMetrics()
    for duration_ms in (0.2, 1.0, 1.001, 5000.0, 5000.1, 60_000.0):
        metrics.note({"inference": duration_ms})
    samples = {one.labels.get("le", one.name): one.value for one in _histogram(metrics.stages).samples}
    assert samples["0.001"] == 2
    assert samples["0.002"] == 3
    assert samples["5"] == 4
    assert samples["+Inf"] == 6
    assert samples["shiftwatch_stage_duration_seconds_sum"] == pytest.approx(70.0023)
    assert len(metrics.stages["inference"].counts) == len(BUCKETS_MS) + 1
