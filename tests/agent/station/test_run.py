"""A whole station against a real broker, in this process: camera, network, outbox, publisher, line."""

from __future__ import annotations

import json
import shutil
import signal
import time
from dataclasses import fields
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import cv2
import pytest

from agent.alerts.store import ActiveAlerts
from agent.config.model import load
from agent.errors import AgentRunningError, ConfigError
from agent.from_config import broker_settings
from agent.messages.records import Alert
from agent.metrics.loop_metrics import LoopMetrics
from agent.outbox.outbox import Outbox
from agent.station.run import Stop, Summary, run_station
from agent.station.settled_state import SettledState
from agent.station.status import StationStatus, disk_free_bytes
from calibration.backbones.backbone import filterbank_backbone
from calibration.bundle.bundle import open_bundle
from calibration.errors import BundleError
from calibration.imaging.preprocess import Preprocess
from calibration.workstation.dataset import frame_range, good_images
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings
from tests.support.real_broker import halt
from tests.support.running import Running
from tests.support.sparkplug_host import HostApplication, check_the_rules
from tests.support.stations import (
    ROOT,
    THRESHOLD,
    broken_parts,
    closed_port,
    good_parts,
    kept_records,
    write_config,
    write_pictures,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.real_broker import Listener, Mosquitto

LEARNT_FRAMES, ALL_FRAMES = 396, 1189
LOOPING = {"playback": "realtime", "frames_per_s": 200, "loop": True}


@pytest.fixture(scope="module")
def bottles(data: Path) -> Path:
    """A real camera above a real conveyor."""
    return data / "conveyor" / "bottle-detection.mp4"


@pytest.fixture(scope="module")
def bottle_bundle(bottles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the first third of the stream looks like, every second frame of it."""
    images = good_images(bottles, frame_range(f"0:{LEARNT_FRAMES}:2"))
    path = tmp_path_factory.mktemp("bottles") / "bundle"
    settings = Settings(Preprocess(224, 224))
    return calibrate(images, filterbank_backbone(224, 224), settings, path, lambda *_: None).path


@pytest.fixture(scope="module")
def other_bottles(bottles: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The rest of the stream, as a video of its own."""
    path = tmp_path_factory.mktemp("others") / "others.avi"
    video = cv2.VideoCapture(str(bottles))
    writer = cv2.VideoWriter(str(path), cv2.CAP_OPENCV_MJPEG, cv2.VideoWriter.fourcc(*"MJPG"), 30, (640, 360))
    for _ in range(LEARNT_FRAMES):
        assert video.grab()
    while (frame := video.read()[1]) is not None:
        writer.write(frame)
    writer.release()
    video.release()
    return path


def run(config: Path) -> Summary:
    return run_station(load(config), Stop())


def is_offline(listener: Listener) -> bool:
    status = listener.on("/status")
    return bool(status) and not status[-1]["online"]


def types(listener: Listener) -> list[str]:
    return [alert["type"] for alert in listener.on("/alert")]


@pytest.mark.slow
def test_each_frame_of_a_real_stream_reaches_the_line_once_and_in_order(
    mosquitto: Mosquitto,
    listen: Callable[[int], Listener],
    bottle_bundle: Path,
    other_bottles: Path,
    tmp_path: Path,
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    config = write_config(tmp_path, bottle_bundle, other_bottles, mosquitto.port, decision={}, engine={"threads": 0})
    summary = run(config)
    frames = ALL_FRAMES - LEARNT_FRAMES
    listener.wait_for(is_offline)
    results = listener.on("/result")
    assert [result["seq"] for result in results] == list(range(frames))
    assert len({result["resultId"] for result in results}) == frames
    assert (summary.captured, summary.results, summary.dropped) == (frames, frames, {})
    assert (summary.published, summary.waiting) == (frames + len(listener.on("/alert")), 0)
    threshold = open_bundle(bottle_bundle).manifest.working_point.threshold
    for result in results:
        assert result["threshold"] == threshold
        assert result["resultEvaluation"] == (2 if result["score"] > threshold else 1)
        assert bool(result["regions"]) == (result["resultEvaluation"] == 2)
        assert result["isSimulated"] is True
    assert 1 in {result["resultEvaluation"] for result in results}


@pytest.mark.slow
def test_frames_that_come_too_fast_are_counted_and_all_others_reach_the_line(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bottle_bundle: Path, bottles: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    config = write_config(
        tmp_path,
        bottle_bundle,
        bottles,
        mosquitto.port,
        camera={"playback": "realtime", "frames_per_s": 1000},
        engine={"threads": 1},
    )
    summary = run(config)
    listener.wait_for(is_offline)
    seqs = [result["seq"] for result in listener.on("/result")]
    assert summary.captured == ALL_FRAMES
    assert summary.dropped["superseded"] > 0
    assert summary.captured == summary.results + sum(summary.dropped.values())
    assert summary.results == len(seqs) == len(set(seqs))
    assert seqs == sorted(seqs)
    assert (summary.published, summary.waiting) == (len(seqs) + len(listener.on("/alert")), 0)


@pytest.mark.slow
def test_a_defect_is_an_alert_with_its_place_and_its_image(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    source = write_pictures(tmp_path / "parts", [*good_parts(4), *broken_parts(1), *good_parts(5, first=3000)])
    summary = run(write_config(tmp_path, bundle, source, mosquitto.port))
    listener.wait_for(is_offline)
    results = listener.on("/result")
    assert [result["resultEvaluation"] for result in results] == [1, 1, 1, 1, 2, 1, 1, 1, 1, 1]
    new, end = listener.on("/alert")
    assert (new["type"], new["resultId"]) == ("new", results[4]["resultId"])
    assert (end["type"], end["alertId"], end["resultId"]) == ("end", new["alertId"], results[7]["resultId"])
    worst = results[4]["regions"][0]
    assert worst["x"] >= 16
    assert worst["x"] + worst["width"] <= 80
    assert worst["score"] >= results[4]["score"]  # the largest distance there; the score is a mean
    picture = cv2.imread(str(tmp_path / "state" / "archive" / results[4]["imageRef"]))
    assert picture is not None
    assert picture.shape == (72, 96, 3)
    assert [result["imageRef"] for result in results if result["seq"] != 4] == [None] * 9
    assert summary.published == 12
    assert not (tmp_path / "state" / "active_alert.json").exists()


def test_without_an_archive_no_image_is_kept_and_the_result_says_so(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    source = write_pictures(tmp_path / "parts", broken_parts(1))
    run(write_config(tmp_path, bundle, source, mosquitto.port, archive={"enabled": False}))
    listener.wait_for(is_offline)
    (result,) = listener.on("/result")
    assert result["resultEvaluation"] == 2
    assert result["regions"]
    assert result["imageRef"] is None
    assert not (tmp_path / "state" / "archive").exists()


def test_a_frame_of_another_size_is_not_decidable_and_the_next_is_inspected_again(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    images = good_parts(3)
    images[1] = images[1][:50, :50]
    run(write_config(tmp_path, bundle, write_pictures(tmp_path / "parts", images), mosquitto.port))
    listener.wait_for(is_offline)
    results = listener.on("/result")
    assert [result["resultEvaluation"] for result in results] == [1, 3, 1]
    assert [result["resultCode"] for result in results] == [0, 1, 0]
    assert [result["score"] is None for result in results] == [False, True, False]
    assert results[1]["margin"] is None


RETAINED: dict[str, dict[str, type | tuple[type, ...]]] = {
    "/status": {"online": bool, "timestamp": int, "state": str, "reason": str, "sessionId": str, "version": str},
    "/info": {
        "bundleHash": str,
        "threshold": float,
        "falseRejectRate": float,
        "backend": str,
        "backendReason": str,
        "calibratedAt": int,
        "zones": dict,
        "camera": str,
    },
    "/alert/state": {"timestamp": int, "active": list},
}
HEALTH: dict[str, type | tuple[type, ...]] = {
    "timestamp": int,
    "fps": float,
    "p50": dict,
    "p99": dict,
    "captured": int,
    "results": int,
    "resultsPerSecond": float,
    "ok": int,
    "notOk": int,
    "notDecidable": int,
    "missed": int,
    "lastResultAge": (int, type(None)),
    "camera": str,
    "dropped": dict,
    "outboxDepth": int,
    "outboxFaults": int,
    "thisHour": dict,
    "diskFree": int,
    "temperature": (float, type(None)),
    "drift": dict,
    "recalibration": (dict, type(None)),
}


def check_types(content: dict[str, Any], expected: dict[str, type | tuple[type, ...]]) -> None:
    assert set(content) == set(expected)
    for key, kind in expected.items():
        assert isinstance(content[key], kind), (key, content[key])


def test_a_latecomer_learns_from_retained_messages_who_is_there_and_what_is_wrong(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    early = listen(mosquitto.port)
    source = write_pictures(tmp_path / "parts", broken_parts(3))
    station = Running(write_config(tmp_path, bundle, source, mosquitto.port, camera=LOOPING))
    try:
        early.wait_for(lambda listener: any(state["active"] for state in listener.on("/alert/state")))
        late = listen(mosquitto.port)
        late.wait_for(lambda listener: len([message for message in listener.heard if message.retained]) >= 3)
        retained = {message.topic.removeprefix(ROOT): message.content for message in late.heard if message.retained}
    finally:
        station.end()
    assert set(retained) == set(RETAINED), "results, alerts, health and commands are never retained"
    for topic, content in retained.items():
        check_types(content, RETAINED[topic])
    opened = open_bundle(bundle)
    assert retained["/status"]["online"] is True
    assert retained["/status"]["state"] == "running"
    assert retained["/info"]["bundleHash"] == opened.identity
    assert retained["/info"]["threshold"] == THRESHOLD
    assert retained["/info"]["falseRejectRate"] == 0.004
    assert retained["/info"]["backend"] == "onnxruntime-cpu"
    assert retained["/info"]["camera"] == str(source)
    (active,) = retained["/alert/state"]["active"]
    assert active["type"] in {"new", "update"}
    assert active["cause"] == "defect"

    early.wait_for(is_offline)
    after = listen(mosquitto.port)
    after.wait_for(lambda listener: listener.on("/status") and listener.on("/alert/state"))
    assert after.on("/alert/state")[-1]["active"] == []
    status = after.on("/status")[-1]
    assert (status["online"], status["state"], status["reason"]) == (False, "offline", "stopped")
    assert types(early)[-1] == "end"
    assert early.on("/alert")[-1]["alertId"] == active["alertId"]


@pytest.mark.slow
def test_health_reports_how_the_station_is_doing(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    source = write_pictures(tmp_path / "parts", good_parts(5))
    station = Running(write_config(tmp_path, bundle, source, mosquitto.port, camera=LOOPING))
    try:
        listener.wait_for(lambda listener: len(listener.on("/health")) >= 2)
        health = listener.on("/health")[-1]
    finally:
        station.end()
    check_types(health, HEALTH)
    assert health["fps"] > 5
    stages = {"waiting", "checks", "preprocess", "inference", "record", "total"}
    assert set(health["p50"]) == set(health["p99"]) == stages
    assert 0 < health["p50"]["inference"] <= health["p99"]["total"]
    assert health["captured"] >= health["results"] > 0
    assert health["ok"] + health["notOk"] + health["notDecidable"] == health["results"]
    assert health["resultsPerSecond"] > 5
    assert health["camera"] == "running"
    assert health["diskFree"] > 0


def test_a_station_that_cannot_store_its_results_says_so() -> None:
    parts = dict.fromkeys(field.name for field in fields(StationStatus))
    outbox, records = SimpleNamespace(fault=None), SimpleNamespace(fault=None)
    stand_ins = {
        "camera": SimpleNamespace(state="running"),
        "controls": SimpleNamespace(paused=None),
        "metrics": LoopMetrics(),
        "outbox": outbox,
        "settled": SettledState(2.0),
        "records": records,
    }
    reports = StationStatus(**{**parts, **stand_ins})  # type: ignore[arg-type]
    assert reports.state() == ("running", "")
    outbox.fault = "database or disk is full"
    assert reports.state() == ("fault", "results cannot be stored: database or disk is full")
    outbox.fault, records.fault = None, "database is locked"
    assert reports.state() == ("fault", "results cannot be stored: database is locked")


@pytest.mark.slow
def test_without_a_broker_the_station_watches_on_and_the_next_one_delivers_everything(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    source = write_pictures(tmp_path / "parts", [*good_parts(10), *broken_parts(2), *good_parts(8, first=3000)])
    config = write_config(tmp_path, bundle, source, mosquitto.port)
    summary = run(config)
    kept = kept_records(tmp_path)
    assert (summary.captured, summary.results, summary.published) == (20, 20, 0)
    assert summary.waiting == len(kept) == 20 + sum(record.kind == "alert" for record in kept)
    first_ids = [record.record_id for record in kept if record.kind == "result"]
    assert [json.loads(record.payload)["type"] for record in kept if record.kind == "alert"] == ["new", "end"]

    mosquitto.start()
    listener = listen(mosquitto.port)
    shutil.rmtree(source)
    write_pictures(source, good_parts(1))
    second = run(config)
    listener.wait_for(is_offline)
    results = listener.on("/result")
    assert [result["resultId"] for result in results[:20]] == first_ids
    assert all(result["historical"] for result in results[:20])
    assert len(results) == 21
    assert [(alert["type"], alert["historical"]) for alert in listener.on("/alert")] == [("new", True), ("end", True)]
    assert (second.published, second.waiting) == (23, 0)
    assert kept_records(tmp_path) == []


def test_an_alert_that_is_active_at_the_end_of_the_video_is_ended(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    source = write_pictures(tmp_path / "parts", [*good_parts(2), *broken_parts(1)])
    run(write_config(tmp_path, bundle, source, mosquitto.port))
    listener.wait_for(is_offline)
    assert types(listener) == ["new", "end"]
    assert listener.on("/alert")[1]["resultId"] is None
    assert listener.on("/alert/state")[-1]["active"] == []


def test_parts_on_dark_frames_are_not_decidable_and_the_line_receives_why(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    dark = [(frame * 0.1).astype("uint8") for frame in [*good_parts(2), *broken_parts(1)]]
    source = write_pictures(tmp_path / "parts", [*good_parts(1), *broken_parts(1), *dark, *good_parts(4)])
    run(write_config(tmp_path, bundle, source, mosquitto.port, checks={"alert_after_s": 0.0}))
    listener.wait_for(is_offline)
    results = listener.on("/result")
    told = [(result["resultEvaluation"], result["resultCode"], result["score"] is None) for result in results]
    good, bad, untrusted = (1, 0, False), (2, 0, False), (3, 6, True)
    assert told == [good, bad, *[untrusted] * 3, *[good] * 4]
    alerts = [(alert["type"], alert["cause"]) for alert in listener.on("/alert")]
    assert alerts == [("new", "defect"), ("new", "camera dark"), ("end", "camera dark"), ("end", "defect")]
    assert listener.on("/alert/state")[-1]["active"] == []


def test_a_camera_alert_that_is_active_when_the_frames_end_is_ended(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    source = write_pictures(tmp_path / "parts", [frame * 0 for frame in good_parts(3)])
    run(write_config(tmp_path, bundle, source, mosquitto.port, checks={"alert_after_s": 0.0}))
    listener.wait_for(is_offline)
    alerts = [(alert["type"], alert["cause"], alert["resultId"] is None) for alert in listener.on("/alert")]
    assert alerts == [("new", "camera dark", False), ("end", "camera dark", True)]
    assert listener.on("/alert/state")[-1]["active"] == []
    assert not (tmp_path / "state" / "active_alert.json").exists()


def test_an_alert_that_an_earlier_process_left_active_is_ended_first(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    left = Alert(type="new", severity=700, cause="defect", started_at_ms=1_700_000_000_000, result_id="r", alert_id="a")
    (tmp_path / "state").mkdir()
    ActiveAlerts(tmp_path / "state" / "active_alert.json").note(left)
    mosquitto.start()
    listener = listen(mosquitto.port)
    source = write_pictures(tmp_path / "parts", [*broken_parts(1), *good_parts(3)])
    run(write_config(tmp_path, bundle, source, mosquitto.port))
    listener.wait_for(is_offline)
    ends = [(alert["type"], alert["alertId"] == "a") for alert in listener.on("/alert")]
    assert ends == [("end", True), ("new", False), ("end", False)]
    assert not (tmp_path / "state" / "active_alert.json").exists()


def test_a_sparkplug_host_gets_the_same_results_and_alerts(mosquitto: Mosquitto, bundle: Path, tmp_path: Path) -> None:
    mosquitto.start()
    host = HostApplication(mosquitto.port, "acme:north:press:line2:cell4/station1")
    source = write_pictures(tmp_path / "parts", [*good_parts(4), *broken_parts(1), *good_parts(5, first=3000)])
    config = write_config(tmp_path, bundle, source, mosquitto.port, sparkplug={"enabled": True})
    summary = run(config)
    host.wait_for("NDEATH")
    host.close()
    check_the_rules(host.heard)
    (birth,) = host.on("NBIRTH")
    assert birth.topic == "spBv1.0/acme:north:press:line2:cell4/NBIRTH/station1"
    assert birth["info/bundleHash"] == open_bundle(bundle).identity
    results = [message for message in host.on("DDATA") if "result/seq" in message.names]
    alerts = [message for message in host.on("DDATA") if "alert/type" in message.names]
    assert [result["result/seq"] for result in results] == list(range(10))
    assert [result["result/resultEvaluation"] for result in results] == [1, 1, 1, 1, 2, 1, 1, 1, 1, 1]
    assert [alert["alert/type"] for alert in alerts] == ["new", "end"]
    assert results[4]["result/score"] > THRESHOLD
    assert json.loads(results[4]["result/regions"])[0]["x"] >= 16
    assert (summary.published, summary.waiting) == (12, 0), "over the plain connection, which it does not disturb"
    with Outbox(tmp_path / "state" / "sparkplug.sqlite") as outbox:
        assert outbox.depth() == 0


@pytest.mark.slow
def test_a_broker_that_hangs_does_not_hold_up_the_stop_of_two_connections(
    mosquitto: Mosquitto, bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    host = HostApplication(mosquitto.port)
    source = write_pictures(tmp_path / "parts", good_parts(2))
    config = write_config(
        tmp_path, bundle, source, mosquitto.port, camera=LOOPING, sparkplug={"enabled": True, "group_id": "acme"}
    )
    station = Running(config)
    host.wait_for("DDATA")
    host.close()
    assert mosquitto.process is not None
    halt(mosquitto.process)
    began_s = time.monotonic()
    try:
        station.end()
        assert time.monotonic() - began_s < 2.0
    finally:
        mosquitto.process.send_signal(signal.SIGCONT)


def test_a_stop_that_comes_before_the_start_ends_the_station_at_once(bundle: Path, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "parts", good_parts(5))
    config = write_config(tmp_path, bundle, source, closed_port(), camera={**LOOPING, "frames_per_s": 1})
    stop = Stop()
    stop.request()
    summary = Running(config, stop).wait()
    assert summary.results <= 1
    assert summary.captured == summary.results + sum(summary.dropped.values())


def test_a_second_station_on_the_same_records_is_refused_and_the_first_continues(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    source = write_pictures(tmp_path / "parts", good_parts(5))
    config = write_config(tmp_path, bundle, source, mosquitto.port, camera=LOOPING)
    first = Running(config)
    try:
        listener.wait_for(lambda listener: listener.on("/result"))
        second = Running(config)
        with pytest.raises(AgentRunningError, match="another agent is running on") as refusal:
            second.wait()
        assert str(tmp_path / "state") in refusal.value.what
        heard = len(listener.on("/result"))
        listener.wait_for(lambda listener: len(listener.on("/result")) > heard + 5)
    finally:
        summary = first.end()
    assert summary.waiting == 0
    with Outbox(tmp_path / "state" / "outbox.sqlite") as outbox:
        assert outbox.depth() == 0


def test_a_bundle_with_one_byte_changed_is_refused_and_nothing_is_made(bundle: Path, tmp_path: Path) -> None:
    damaged = shutil.copytree(bundle, tmp_path / "damaged")
    network = damaged / "network.onnx"
    content = bytearray(network.read_bytes())
    content[len(content) // 2] ^= 1
    network.write_bytes(content)
    source = write_pictures(tmp_path / "parts", good_parts(1))
    with pytest.raises(BundleError, match=r"network\.onnx is not what calibration wrote"):
        run(write_config(tmp_path, damaged, source, closed_port()))
    assert not (tmp_path / "state").exists()


def test_a_password_file_that_cannot_be_read_is_refused_and_nothing_is_made(bundle: Path, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "parts", good_parts(1))
    mqtt = {"host": "127.0.0.1", "username": "station", "password_file": "secret.txt"}
    config = write_config(tmp_path, bundle, source, closed_port(), mqtt=mqtt)
    with pytest.raises(ConfigError, match=r"mqtt\.password_file: cannot read .*secret\.txt"):
        run(config)
    assert not (tmp_path / "state").exists()
    (tmp_path / "secret.txt").write_text("pass word\r\n")
    assert broker_settings(load(config)).password == "pass word"  # noqa: S105 - not one


def test_a_disk_that_does_not_answer_is_a_full_one(tmp_path: Path) -> None:
    assert disk_free_bytes(tmp_path / "pulled") == 0
    assert disk_free_bytes(tmp_path) > 0


def test_an_image_that_cannot_be_read_is_counted_and_the_next_has_its_own_number(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    source = write_pictures(tmp_path / "parts", good_parts(3))
    (source / "0001.png").write_bytes(b"torn")
    summary = run(write_config(tmp_path, bundle, source, mosquitto.port))
    listener.wait_for(is_offline)
    assert [result["seq"] for result in listener.on("/result")] == [0, 2]
    assert (summary.captured, summary.results, summary.dropped) == (3, 2, {"unreadable": 1})


@pytest.mark.slow
def test_records_outlive_a_broker_that_dies_while_the_station_watches(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    before = listen(mosquitto.port)
    source = write_pictures(tmp_path / "parts", [*good_parts(20), *broken_parts(3)])
    station = Running(write_config(tmp_path, bundle, source, mosquitto.port, camera=LOOPING))
    try:
        before.wait_for(types)
        mosquitto.kill()
        mosquitto.start()
        after = listen(mosquitto.port)
        after.wait_for(lambda listener: any(not result["historical"] for result in listener.on("/result")))
    finally:
        summary = station.end()
    after.wait_for(is_offline)
    seqs = {result["seq"] for listener in (before, after) for result in listener.on("/result")}
    assert len(seqs) == summary.results
    assert any(result["historical"] for result in after.on("/result"))
    assert summary.waiting == 0
