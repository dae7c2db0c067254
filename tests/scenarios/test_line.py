"""A whole station and its line: controller, commands, real broker."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from agent.audit.log import AuditLog
from agent.commands.control_socket import NAME, ask_station
from agent.commands.dispatcher import CommandDispatcher
from agent.config.model import load
from agent.doctor.camera_probe import camera
from agent.doctor.network_probe import network
from agent.errors import StationUnreachableError
from agent.inspection.score import score_frame
from agent.messages.records import Evaluation, Result, to_json
from agent.outbox.outbox import Outbox
from calibration.bundle.bundle import open_bundle
from calibration.errors import EngineError
from tests.support.running import Running
from tests.support.stations import (
    ROOT,
    THRESHOLD,
    Agent,
    broken_parts,
    closed_port,
    good_parts,
    teach,
    write_config,
    write_pictures,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.real_broker import Listener, Mosquitto
    from tests.support.stations import Outcome

LOOPING = {"playback": "realtime", "frames_per_s": 100, "loop": True}
BY_COMMAND = {"source": "command"}
PATIENT = {"deadline_ms": 5000}
EVERYTHING = {"accept": ["trigger", "pause", "resume", "threshold", "rollback"]}


class Line:
    """A listener and a commander at the station's broker."""

    def __init__(self, listener: Listener, port: int) -> None:
        self.listener = listener
        self._numbers = itertools.count()
        self._client = Client(CallbackAPIVersion.VERSION2)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def command(self, name: str, args: dict[str, Any] | None = None, *, retain: bool = False, **more: object) -> str:
        command_id = f"c{next(self._numbers)}"
        text = json.dumps({"commandId": command_id, "args": args or {}, **more})
        self._client.publish(f"{ROOT}/cmd/{name}", text, qos=1, retain=retain)
        return command_id

    def remove_retained(self, name: str) -> None:
        """Have the broker forget a command, as the refusal of a retained one says."""
        self._client.publish(f"{ROOT}/cmd/{name}", b"", qos=1, retain=True)

    def answer(self, command_id: str) -> dict[str, Any]:
        """The last word on a command: progress is none, or all."""

        def answers() -> list[dict[str, Any]]:
            return [
                one for one in self.listener.on("cmd/ack") if one["commandId"] == command_id and one["progress"] != 0
            ]

        self.listener.wait_for(lambda _: answers())
        return answers()[-1]

    def do(self, name: str, args: dict[str, Any] | None = None, **more: object) -> dict[str, Any]:
        answer = self.answer(self.command(name, args, **more))  # type: ignore[arg-type]
        assert answer["accepted"], answer
        return answer

    def wait_until_running(self) -> None:
        self.listener.wait_for(lambda heard: any(status["state"] == "running" for status in heard.on("/status")))

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()


@pytest.fixture
def line(mosquitto: Mosquitto, listen: Callable[[int], Listener]) -> Iterator[Line]:
    mosquitto.start()
    line = Line(listen(mosquitto.port), mosquitto.port)
    yield line
    line.close()


@pytest.fixture
def parts(tmp_path: Path) -> Path:
    return write_pictures(tmp_path / "parts", [*good_parts(4), *broken_parts(1)])


@pytest.mark.slow
def test_each_inspected_frame_is_reported_to_the_controller(
    line: Line, mosquitto: Mosquitto, bundle: Path, parts: Path, tmp_path: Path
) -> None:
    camera = {"playback": "realtime", "frames_per_s": 20}
    station = Running(write_config(tmp_path, bundle, parts, mosquitto.port, camera=camera, plc=PATIENT))
    summary = station.wait()
    line.listener.wait_for(lambda heard: len(heard.on("/result")) == summary.results)
    told = line.listener.on("/plc")
    results = line.listener.on("/result")
    # The first frames may be over before the broker has answered; what is late is not said.
    assert told
    assert [one["seq"] for one in told] == [one["seq"] for one in results][-len(told) :]
    by_seq = {result["seq"]: result for result in results}
    for one in told:
        result = by_seq[one["seq"]]
        assert one["valid"]
        assert (one["resultEvaluation"], one["score"]) == (result["resultEvaluation"], result["score"])
        assert 0 <= one["ageMs"] < 5000
    assert told[-1]["resultEvaluation"] == 2


@pytest.mark.slow
def test_parts_that_the_line_names_are_answered_by_name_and_in_order(
    line: Line, mosquitto: Mosquitto, bundle: Path, parts: Path, tmp_path: Path
) -> None:
    station = Running(
        write_config(tmp_path, bundle, parts, mosquitto.port, camera=LOOPING, trigger=BY_COMMAND, plc=PATIENT)
    )
    line.wait_until_running()
    names = [f"SN-{number}" for number in range(20)]
    for name in names:
        line.command("trigger", {"partId": name})
    line.listener.wait_for(lambda heard: len(heard.on("/plc")) == len(names))
    summary = station.end()
    assert [one["partId"] for one in line.listener.on("/plc")] == names
    assert [one["partId"] for one in line.listener.on("/result")] == names
    assert all(one["valid"] for one in line.listener.on("/plc"))
    assert {one["command"] for one in line.listener.on("cmd/ack")} == {"trigger"}
    assert summary.results == len(names)
    assert summary.captured == summary.results + sum(summary.dropped.values())
    assert summary.dropped["untriggered"] > 0


@pytest.mark.slow
def test_a_station_whose_verdicts_all_come_after_the_deadline_says_so_with_the_settings(
    line: Line, mosquitto: Mosquitto, bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    parts = write_pictures(tmp_path / "parts", good_parts(4))
    camera = {"playback": "realtime", "frames_per_s": 20, "loop": True}
    trigger = {"source": "command", "frames_per_part": 4}
    config = write_config(tmp_path, bundle, parts, mosquitto.port, camera=camera, trigger=trigger)
    (told,) = (each for each in network(str(config), frames_per_s=20.0) if each.name == "deadline")
    assert told.level == "fault"
    assert told.found.startswith("a verdict takes about ")
    assert 150 <= told.figures["least_ms"] < 200 <= told.figures["most_ms"] < 250  # three to four frames, and a network
    station = Running(config)
    line.wait_until_running()
    for number in range(6):
        line.command("trigger", {"partId": f"SN-{number}"})
        line.listener.wait_for(partial(ends_with_part, f"SN-{number}"))
    summary = station.end()
    assert [one["valid"] for one in line.listener.on("/plc")] == [False] * 6
    assert (summary.late, summary.missed, summary.results) == (6, 0, 6)
    (said,) = (text for text in caplog.messages if "no verdict within plc.deadline_ms 100" in text)
    assert "trigger.delay_ms 0, trigger.frames_per_part 4" in said


@pytest.mark.slow
def test_a_station_taught_from_other_pictures_says_so_and_the_doctor_names_the_cause(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = write_pictures(tmp_path / "parts", [frame // 2 for frame in good_parts(25)])
    config = write_config(tmp_path, bundle, source, closed_port(), decision={})
    summary = Running(config).wait()
    assert summary.verdicts[Evaluation.NOT_DECIDABLE] == 25
    assert sum("none of the first 20 parts could be inspected: " in text for text in caplog.messages) == 1
    list(camera(str(config), str(tmp_path)))
    (told,) = (each for each in network(str(config), frames=str(tmp_path)) if each.name == "live frames")
    assert told.level == "fault"
    assert "taught from other pictures than this camera gives: light or colour differ: " in told.found


def ends_with_part(name: str, listener: Listener) -> bool:
    return [one["partId"] for one in listener.on("/result")][-1:] == [name]


def test_several_frames_of_a_named_part_are_one_answer_and_one_result(
    line: Line, mosquitto: Mosquitto, bundle: Path, parts: Path, tmp_path: Path
) -> None:
    trigger = {**BY_COMMAND, "frames_per_part": 3}
    config = write_config(tmp_path, bundle, parts, mosquitto.port, camera=LOOPING, trigger=trigger, plc=PATIENT)
    station = Running(config)
    line.wait_until_running()
    for name in ("A", "B"):
        line.do("trigger", {"partId": name})
        line.listener.wait_for(partial(ends_with_part, name))
    done = station.end()
    told, results = line.listener.on("/plc"), line.listener.on("/result")
    assert [(one["partId"], one["valid"]) for one in told] == [("A", True), ("B", True)]
    assert [(one["partId"], one["frames"]) for one in results] == [("A", 3), ("B", 3)]
    assert [one["seq"] for one in told] == [one["seq"] for one in results]
    assert done.dropped["combined"] == 4
    assert done.captured == done.results + sum(done.dropped.values())


def test_a_part_that_the_engine_hangs_on_is_not_valid_within_the_deadline(  # noqa: PLR0913, PLR0917 - fixtures
    line: Line, mosquitto: Mosquitto, bundle: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hanging, go_on = threading.Event(), threading.Event()

    def hang(*arguments: Any) -> Any:  # noqa: ANN401 - as look
        hanging.set()
        go_on.wait(10)
        return score_frame(*arguments)

    monkeypatch.setattr("agent.inspection.loop.score_frame", hang)
    config = write_config(tmp_path, bundle, parts, mosquitto.port, camera=LOOPING, trigger=BY_COMMAND)
    station = Running(config)
    line.wait_until_running()
    line.command("trigger", {"partId": "stuck"})
    line.command("trigger", {"partId": "behind it"})
    line.listener.wait_for(lambda heard: len(heard.on("/plc")) == 2)
    told = line.listener.on("/plc")
    assert [(one["partId"], one["valid"], one["resultEvaluation"], one["resultCode"]) for one in told] == [
        ("stuck", False, 3, 3),
        ("behind it", False, 3, 3),
    ]
    assert all(100 <= one["ageMs"] < 5000 for one in told)
    assert hanging.is_set()
    go_on.set()
    line.listener.wait_for(lambda heard: len(heard.on("/result")) == 2)
    results = {one["partId"]: one for one in line.listener.on("/result")}
    assert (results["stuck"]["resultCode"], results["stuck"]["score"] is None) == (3, False)
    assert (results["behind it"]["seq"], results["behind it"]["resultEvaluation"]) == (None, 3)
    station.end()
    assert len(line.listener.on("/plc")) == 2  # the late verdict was not said


@pytest.mark.slow
def test_the_controller_receives_at_once_while_a_backlog_is_caught_up(
    line: Line, mosquitto: Mosquitto, bundle: Path, parts: Path, tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    backlog = 18_000 if os.environ.get("SHIFTWATCH_SOAK") == "full" else 5_000
    with Outbox(tmp_path / "state" / "outbox.sqlite") as outbox:
        for number in range(backlog):
            result = Result(
                seq=number, part_id=None, created_at_ms=number, evaluation=Evaluation.OK, score=1.0, threshold=2.0
            )
            outbox.put("result", result.record_id, f"{ROOT}/result", to_json(result.payload()), number)
    camera = {"playback": "realtime", "frames_per_s": 30, "loop": True}
    station = Running(write_config(tmp_path, bundle, parts, mosquitto.port, camera=camera, plc=PATIENT))
    line.listener.wait_for(lambda heard: len(heard.on("/result")) > backlog, timeout_s=60)
    station.end()
    results = [message for message in line.listener.heard if message.topic.endswith("/result")]
    late = [message for message in results if message.content["historical"]]
    assert len(late) >= backlog
    captured_ms = {one.content["seq"]: one.content["creationTime"] for one in results[backlog:]}
    delays_ms = [
        message.at_ms - captured_ms[message.content["seq"]]
        for message in line.listener.heard
        if message.topic.endswith("/plc") and message.at_ms < late[-1].at_ms and message.content["seq"] in captured_ms
    ]
    percentile_ms = np.percentile(delays_ms, 95)
    said = f"{len(delays_ms)} live answers while {len(late)} were caught up, 95 % within {percentile_ms:.0f} ms"
    sys.stdout.write(f"{said}\n")
    assert len(delays_ms) > 5
    assert percentile_ms < 200, said


def test_an_engine_fault_is_not_valid(  # noqa: PLR0913, PLR0917 - fixtures
    line: Line, mosquitto: Mosquitto, bundle: Path, parts: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise EngineError(what="out of memory", remedy="mend it")

    config = write_config(tmp_path, bundle, parts, mosquitto.port, camera=LOOPING, plc=PATIENT)
    station = Running(config)
    line.wait_until_running()
    monkeypatch.setattr("calibration.engine.onnxruntime.OnnxRuntimeEngine.__call__", fail)
    line.listener.wait_for(lambda heard: any(one["resultCode"] == 2 for one in heard.on("/plc")))
    monkeypatch.undo()
    station.end()
    faulty = [one for one in line.listener.on("/plc") if one["resultCode"] == 2]
    assert all((one["valid"], one["resultEvaluation"]) == (False, 3) for one in faulty)


def test_a_paused_station_decides_nothing_says_so_and_continues_when_asked(
    line: Line, mosquitto: Mosquitto, bundle: Path, parts: Path, tmp_path: Path
) -> None:
    station = Running(write_config(tmp_path, bundle, parts, mosquitto.port, camera=LOOPING))
    line.wait_until_running()
    line.do("pause", {"reason": "lens"}, by="Ana")
    line.listener.wait_for(lambda heard: heard.on("/status")[-1]["state"] == "paused")
    assert line.listener.on("/status")[-1]["reason"] == "paused by Ana: lens"
    line.listener.wait_for(lambda heard: any(one["resultCode"] == 5 for one in heard.on("/plc")))
    results = len(line.listener.on("/result"))
    assert len(line.listener.on("/result")) == results
    line.do("resume")
    line.listener.wait_for(lambda heard: len(heard.on("/result")) > results + 2)
    assert line.listener.on("/status")[-1]["state"] == "running"
    summary = station.end()
    assert summary.dropped["paused"] > 0
    assert summary.captured == summary.results + sum(summary.dropped.values())


@pytest.mark.slow
def test_a_commanded_threshold_judges_at_once_outlives_the_agent_and_ends_with_another_configuration(
    line: Line, mosquitto: Mosquitto, bundle: Path, parts: Path, tmp_path: Path
) -> None:
    def thresholds() -> list[float]:
        return [result["threshold"] for result in line.listener.on("/result")]

    config = write_config(tmp_path, bundle, parts, mosquitto.port, camera=LOOPING, commands=EVERYTHING)
    station = Running(config)
    line.wait_until_running()
    line.do("threshold", {"threshold": 2 * THRESHOLD})
    line.listener.wait_for(lambda _: 2 * THRESHOLD in thresholds())
    line.listener.wait_for(lambda heard: heard.on("/info")[-1]["threshold"] == 2 * THRESHOLD)
    station.end()
    before = len(thresholds())
    station = Running(config)
    line.listener.wait_for(lambda _: len(thresholds()) > before)
    station.end()
    assert set(thresholds()[before:]) == {2 * THRESHOLD}
    before = len(thresholds())
    changed = write_config(
        tmp_path, bundle, parts, mosquitto.port, camera=LOOPING, decision={"threshold": 1.5 * THRESHOLD}
    )
    station = Running(changed)
    line.listener.wait_for(lambda _: len(thresholds()) > before)
    station.end()
    assert set(thresholds()[before:]) == {1.5 * THRESHOLD}
    events = [json.loads(text)["event"] for text in (tmp_path / "state" / "audit.jsonl").read_text().splitlines()]
    assert events == ["started", "command", "started"]


@pytest.mark.slow
def test_rollback_brings_the_bundle_before_back_while_frames_are_judged(
    line: Line, mosquitto: Mosquitto, bundle: Path, parts: Path, tmp_path: Path
) -> None:
    newer = teach(tmp_path / "newer")
    old_hash, new_hash = open_bundle(bundle).identity, open_bundle(newer).identity
    assert old_hash != new_hash

    def config(path: Path) -> Path:
        return write_config(tmp_path, path, parts, mosquitto.port, camera=LOOPING, commands=EVERYTHING)

    def serves(identity: str) -> None:
        heard = len(line.listener.on("/info"))
        station = Running(config(newer))
        line.listener.wait_for(lambda listener: len(listener.on("/info")) > heard)
        assert line.listener.on("/info")[-1]["bundleHash"] == identity
        station.end()

    station = Running(config(bundle))
    line.wait_until_running()
    refused = line.answer(line.command("rollback"))
    assert "no other bundle was active here" in refused["error"]
    station.end()
    heard = len(line.listener.on("/info"))
    station = Running(config(newer))
    line.listener.wait_for(lambda listener: len(listener.on("/info")) > heard)
    assert line.listener.on("/info")[-1]["bundleHash"] == new_hash
    done = line.do("rollback", {"bundle": old_hash[:12]}, by="Ana")
    assert done["progress"] == 1
    line.listener.wait_for(lambda listener: listener.on("/info")[-1]["bundleHash"] == old_hash)
    results = len(line.listener.on("/result"))
    line.listener.wait_for(lambda listener: len(listener.on("/result")) > results + 3)
    summary = station.end()
    assert summary.captured == summary.results + sum(summary.dropped.values())
    serves(old_hash)  # also after a restart, though the newer one is configured
    shutil.rmtree(tmp_path / "state" / "versions.json", ignore_errors=True)
    (tmp_path / "state" / "versions.json").write_text("{")
    serves(new_hash)  # a list that cannot be read leaves the configured one


@pytest.mark.slow
def test_rollback_to_a_bundle_that_is_gone_leaves_the_one_that_judges(
    line: Line, mosquitto: Mosquitto, bundle: Path, parts: Path, tmp_path: Path
) -> None:
    doomed = tmp_path / "doomed"
    shutil.copytree(bundle, doomed)
    newer = teach(tmp_path / "newer")
    for path in (doomed, newer):
        config = write_config(tmp_path, path, parts, mosquitto.port, camera=LOOPING, commands=EVERYTHING)
        heard = len(line.listener.on("/info"))
        station = Running(config)
        line.listener.wait_for_more("/info", heard)
        if path is doomed:
            station.end()
            shutil.rmtree(doomed)
    answer = line.answer(line.command("rollback"))
    assert not answer["accepted"]
    assert str(doomed) in answer["error"]
    results = len(line.listener.on("/result"))
    line.listener.wait_for(lambda listener: len(listener.on("/result")) > results)
    assert line.listener.on("/info")[-1]["bundleHash"] == open_bundle(newer).identity
    station.end()


def test_a_retained_command_is_refused_and_changes_nothing(
    line: Line, mosquitto: Mosquitto, bundle: Path, parts: Path, tmp_path: Path
) -> None:
    command_id = line.command("pause", retain=True)
    line.listener.wait_for(lambda heard: heard.on("cmd/pause"))
    station = Running(write_config(tmp_path, bundle, parts, mosquitto.port, camera=LOOPING))
    answer = line.answer(command_id)
    assert not answer["accepted"]
    assert "retained" in answer["error"]
    line.wait_until_running()
    station.end()
    assert all(status["state"] != "paused" for status in line.listener.on("/status"))


@pytest.mark.parametrize("protocol", ["5", "3.1.1"])
def test_a_command_retained_while_the_agent_is_connected_acts_with_mqtt_3_1_1_alone_and_once(
    line: Line, mosquitto: Mosquitto, bundle: Path, tmp_path: Path, protocol: str
) -> None:
    parts = write_pictures(tmp_path / "parts", good_parts(4))
    broker = {"host": "127.0.0.1", "port": mosquitto.port, "protocol": protocol}
    config = write_config(tmp_path, bundle, parts, mosquitto.port, camera=LOOPING, mqtt=broker)
    station = Running(config)
    line.wait_until_running()
    command_id = line.command("pause", retain=True)
    answer = line.answer(command_id)
    assert answer["accepted"] == (protocol == "3.1.1"), answer
    station.end()
    answers = len(line.listener.on("cmd/ack"))
    station = Running(config)
    line.listener.wait_for_more("cmd/ack", answers)
    refused = line.answer(command_id)
    assert not refused["accepted"]
    assert "retained" in refused["error"]
    line.remove_retained("pause")
    line.do("resume")
    station.end()
    unnamed = [] if protocol == "5" else [None]  # removing it is answered where it looks like an empty command
    assert [one["commandId"] for one in line.listener.on("cmd/ack")[answers + 1 :]] == [*unnamed, "c1"]


@pytest.mark.slow
def test_commands_come_from_this_device_without_a_broker(bundle: Path, parts: Path, tmp_path: Path) -> None:
    config = write_config(tmp_path, bundle, parts, 1, camera=LOOPING)

    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        call = [sys.executable, "-m", "agent", "command", *arguments, "--config", str(config)]
        return subprocess.run(call, capture_output=True, text=True, check=False)  # noqa: S603 - our own program

    nobody = command("resume")
    assert nobody.returncode == 2
    assert "no agent is running" in nobody.stderr
    with Agent(config) as agent:
        deadline_s = time.monotonic() + 20
        while command("resume").returncode and time.monotonic() < deadline_s:
            time.sleep(0.1)
        paused = command("pause", "--reason", "lens")
        assert (paused.returncode, paused.stderr) == (0, "")
        assert "pause: done; audit log entry" in paused.stdout
        refused = command("trigger", "SN-1")
        assert refused.returncode == 2
        assert "this station is not triggered by commands" in refused.stdout
        rolled_back = command("rollback")
        assert "no other bundle was active here" in rolled_back.stdout
        assert command("threshold", "1").returncode == 2
        assert command("threshold", "1500000").returncode == 0
        assert agent.end(signal.SIGTERM) < 10
    assert not (tmp_path / "state" / "control.sock").exists()
    entries = [json.loads(text) for text in (tmp_path / "state" / "audit.jsonl").read_text().splitlines()]
    assert all(entry["via"] == "local" for entry in entries if entry["event"] == "command")


@pytest.mark.slow
def test_a_socket_that_a_killed_agent_left_is_distinguished_from_one_that_answers(
    tmp_path: Path, bundle: Path, parts: Path
) -> None:
    config = write_config(tmp_path, bundle, parts, 1, camera=LOOPING)
    socket_file = tmp_path / "state" / "control.sock"
    with Agent(config) as agent:
        deadline_s = time.monotonic() + 20
        while not socket_file.exists() and time.monotonic() < deadline_s:
            time.sleep(0.05)
        agent.end(signal.SIGKILL)
    assert socket_file.exists()
    with pytest.raises(StationUnreachableError, match="no agent is running"):
        list(ask_station(load(config).state_dir, {"command": "resume", "commandId": "1"}))
    station = Running(config)
    deadline_s = time.monotonic() + 20
    while True:
        try:
            (answer,) = ask_station(load(config).state_dir, {"command": "resume", "commandId": "1"})
            break
        except StationUnreachableError:
            assert time.monotonic() < deadline_s
            time.sleep(0.05)
    assert answer["accepted"]
    station.end()


def test_a_command_that_an_agent_dies_over_is_not_called_done(
    tmp_path: Path, bundle: Path, parts: Path, command: Callable[..., Outcome], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, bundle, parts, 1)
    (tmp_path / "state").mkdir()
    monkeypatch.chdir(tmp_path / "state")  # the path of a socket must not be longer than 107 bytes
    with socket.socket(socket.AF_UNIX) as agent:
        agent.bind(NAME)
        agent.listen()
        for given in (["command", "rollback"], ["recalibrate"]):
            under_way = to_json({"accepted": True, "error": None, "progress": 0.0}).encode() + b"\n"
            with ThreadPoolExecutor() as dying:
                dying.submit(_answer_and_die, agent, under_way)
                outcome = command(*given, "--config", config)
            assert outcome.code == 2
            assert "has not answered how the command ended" in outcome.err
            assert "done" not in outcome.out


def _answer_and_die(agent: socket.socket, answer: bytes) -> None:
    connection, _ = agent.accept()
    with connection, connection.makefile("rb") as asked:
        asked.readline()
        connection.sendall(answer)


def test_an_audit_log_that_cannot_be_opened_refuses_commands_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "audit.jsonl").mkdir()
    commands = CommandDispatcher({}, AuditLog(tmp_path / "audit.jsonl"), ())
    assert not commands.answer("pause", b'{"commandId": "1"}')["accepted"]


@pytest.mark.slow
def test_the_line_recalibrates_and_marks_over_mqtt(
    line: Line, mosquitto: Mosquitto, bundle: Path, tmp_path: Path
) -> None:
    config = write_config(
        tmp_path,
        bundle,
        write_pictures(tmp_path / "parts", [*good_parts(60), *broken_parts(1)]),
        mosquitto.port,
        camera={"playback": "realtime", "frames_per_s": 100, "loop": True},
        decision={},
        commands={"accept": ["recalibrate", "mark"]},
        recalibration={"shadow_parts": 10},
    )
    station = Running(config)
    line.listener.wait_for(lambda heard: any(result["imageRef"] for result in heard.on("/result")))
    before = line.listener.on("/info")[-1]["bundleHash"]
    archived = next(result for result in line.listener.on("/result") if result["imageRef"])
    line.listener.wait_for(lambda _: (tmp_path / "state" / "archive" / archived["imageRef"]).exists())
    command_id = line.command("recalibrate", {"parts": 30, "reason": "new lamp"})

    def last() -> list[dict[str, Any]]:
        answers = [one for one in line.listener.on("cmd/ack") if one["commandId"] == command_id]
        return [one for one in answers if one["progress"] in {None, 1}]

    line.listener.wait_for(lambda _: last(), 60)
    assert last()[0]["accepted"], last()
    assert last()[0]["figures"]["bundle"] != before
    line.listener.wait_for(lambda heard: heard.on("/info")[-1]["bundleHash"] == last()[0]["figures"]["bundle"])
    assert line.do("mark", {"resultId": archived["resultId"], "label": "defect"})["progress"] == 1
    station.end()
