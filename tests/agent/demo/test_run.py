"""The demo as a stranger runs it: one command, one minute, the whole system."""

from __future__ import annotations

import json
import re
import socket
import subprocess
import sys
import threading
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import pytest
import yaml

from agent.cli import main
from agent.demo import run
from agent.demo.broker import embedded_broker
from agent.demo.conveyor import DEFECTS
from agent.demo.listener import LineListener
from agent.demo.run import Outcome
from agent.messages.topics import Topics
from calibration.errors import EngineError, SettingError

if TYPE_CHECKING:
    from collections.abc import Sequence

pytestmark = pytest.mark.waits

COMMAND = Path(sys.executable).with_name("shiftwatch-agent")
TOPICS = Topics("demo/vision/flange-check")
MOST_MEMORY_MB = 250.0
OUTCOME = Outcome(
    seen=320,
    planted={"scratch": 10, "dent": 10},
    found={"scratch": 9, "dent": 9},
    false_alarms=2,
    frames_per_s=8.0,
    p50_ms=1.0,
    p99_ms=2.0,
    peak_memory_mib=200.0,
    pictures=Path("pictures"),
)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """The folder that the demo made, and how it ended."""
    folder = tmp_path_factory.mktemp("demo") / "demo"
    command = [str(COMMAND), "demo", "--folder", str(folder)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)  # noqa: S603 - our own command
    return folder, ended


def number_in(table: str, row: str) -> float:
    """The first number in a row of the demo's table."""
    found = re.search(rf"{row}\s*[│|]\s*([\d.]+)", table)
    assert found, f"no row {row!r} in:\n{table}"
    return float(found[1])


@pytest.mark.slow
def test_the_demo_finds_the_defects_and_raises_no_false_alarms(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    _, ended = demo
    assert ended.returncode == 0, ended.stdout + ended.stderr
    planted, found = number_in(ended.stdout, "defects planted"), number_in(ended.stdout, "defects found")
    assert planted >= 25
    assert found >= 0.9 * planted
    assert number_in(ended.stdout, "false alarms") <= 2
    assert number_in(ended.stdout, "parts seen") >= 0.9 * run.INSPECTED_PARTS
    assert "Traceback" not in ended.stdout + ended.stderr


@pytest.mark.slow
def test_the_line_receives_an_alert_for_each_defect(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    _, ended = demo
    heard = re.findall(r"alert new part +\d+ score +[\d,]+ severity +\d+ planted: (.+)", ended.stdout)
    assert len(heard) >= 0.9 * number_in(ended.stdout, "defects planted")
    assert {kind.strip() for kind in heard} == set(DEFECTS)


@pytest.mark.slow
def test_a_picture_of_each_defect_is_on_disk_with_its_heat_map(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, ended = demo
    numbers = sorted((folder / "state" / "archive").glob("*/*.json"))
    rejected = number_in(ended.stdout, "defects found") + number_in(ended.stdout, "false alarms")
    assert len(numbers) == rejected
    for path in numbers:
        content = json.loads(path.read_text())
        assert content["score"] > content["threshold"]
        frame, overlay = (cv2.imread(str(path.with_name(content[name]))) for name in ("frame", "overlay"))
        assert frame is not None
        assert frame.shape == (480, 640, 3)
        assert overlay is not None
        assert overlay.shape >= frame.shape, "the caption stands below the picture"


@pytest.mark.slow
def test_the_agent_needs_less_than_250_mb(demo: tuple[Path, subprocess.CompletedProcess[str]]) -> None:
    _, ended = demo
    peak_mib = number_in(ended.stdout, "agent's peak memory")
    assert 50 < peak_mib * 2**20 / 1e6 < MOST_MEMORY_MB


@pytest.mark.slow
def test_the_demo_leaves_no_process_no_port_and_no_record_behind(
    demo: tuple[Path, subprocess.CompletedProcess[str]],
) -> None:
    folder, _ = demo
    port = yaml.safe_load((folder / "agent.yaml").read_text())["mqtt"]["port"]
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)
    assert [line for line in _command_lines() if str(folder) in line] == []
    assert (folder / "agent.log").read_text().rstrip().endswith("records published, 0 waiting in the outbox")


def test_the_demo_may_be_run_again_in_its_own_folder(tmp_path: Path) -> None:
    folder = tmp_path / "demo"
    run._prepare_folder(folder)
    (folder / "bundle").mkdir()
    run._prepare_folder(folder)
    assert [path.name for path in folder.iterdir()] == [run._MARK]


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["folder", "file"])
def test_a_folder_not_made_by_the_demo_is_refused_and_left_alone(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    mine = tmp_path / "mine"
    precious = mine
    if mode == "folder":
        mine.mkdir()
        precious = mine / "thesis.txt"
    precious.write_text("years of work")
    monkeypatch.setattr(sys, "argv", ["shiftwatch-agent", "demo", "--folder", str(mine)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    said = capfd.readouterr().err
    assert f"{mine} exists and was not made by the demo" in said
    assert "choose another folder" in said
    assert precious.read_text() == "years of work"


def test_without_amqtt_the_demo_says_what_to_install_before_it_makes_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "amqtt.broker", None)
    with pytest.raises(SettingError, match="pip install") as refusal:
        run.run_demo(tmp_path / "demo")
    assert "amqtt" in refusal.value.what
    assert not (tmp_path / "demo").exists()


@pytest.mark.slow
def test_an_agent_that_does_not_start_is_reported_with_its_log(tmp_path: Path) -> None:
    config = tmp_path / "agent.yaml"
    config.write_text("bundle: nowhere\ncamera: {source: nothing.avi, playback: slow}\n")
    with pytest.raises(EngineError, match=r"exit code 2(.|\n)*camera\.playback"):
        run._run_agent(config, tmp_path / "agent.log")


@pytest.mark.parametrize(
    ("found", "false_alarms", "convincing"),
    [((9, 9), 2, True), ((10, 10), 0, True), ((9, 8), 0, False), ((10, 10), 3, False), ((0, 0), 0, False)],
)
def test_a_demo_convinces_with_nine_of_ten_defects_and_two_false_alarms(
    found: Sequence[int], false_alarms: int, *, convincing: bool
) -> None:
    outcome = replace(OUTCOME, found=dict(zip(OUTCOME.planted, found, strict=True)), false_alarms=false_alarms)
    assert outcome.convincing is convincing


def test_a_demo_that_does_not_convince_ends_with_exit_code_1(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "run_demo", lambda _: replace(OUTCOME, false_alarms=3))
    monkeypatch.setattr(sys, "argv", ["shiftwatch-agent", "demo"])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 1


def test_results_are_counted_as_the_line_received_them(tmp_path: Path) -> None:
    truth = [None, "scratch", None, "dent", "stain"]
    told = {0: 1, 1: 2, 2: 2, 3: 1, 4: 2}  # seq -> evaluation: one false alarm, one dent missed
    line = LineListener(1883, TOPICS, lambda *_: None)
    for seq, evaluation in told.items():
        line.results[seq] = {
            "resultEvaluation": evaluation,
            "creationTime": 1000 + 500 * seq,
            "processingTimes": {"total": 10.0 + seq},
        }
    outcome = run._outcome(line, truth, None, tmp_path)
    assert outcome.planted == {"scratch": 1, "dent": 1, "missing hole": 0, "stain": 1}
    assert outcome.found == {"scratch": 1, "dent": 0, "missing hole": 0, "stain": 1}
    assert outcome.false_alarms == 1
    assert (outcome.seen, outcome.frames_per_s, outcome.p50_ms) == (5, 2.0, 12.0)


def test_a_line_without_results_is_counted_as_well(tmp_path: Path) -> None:
    outcome = run._outcome(LineListener(1883, TOPICS, lambda *_: None), ["scratch"], None, tmp_path)
    assert outcome.seen == 0
    assert not outcome.convincing


@pytest.mark.slow
def test_the_embedded_broker_carries_messages_and_is_gone_afterwards() -> None:
    received: list[tuple[dict[str, Any], dict[str, Any] | None]] = []
    with embedded_broker() as port, LineListener(port, TOPICS, lambda *pair: received.append(pair)) as line:
        _publish(line, TOPICS.status, {"online": True})
        _publish(line, TOPICS.result, {"resultId": "r1", "seq": 3})
        _publish(line, TOPICS.alert, {"alertId": "a1", "type": "new", "resultId": "r1"})
        _publish(line, TOPICS.status, {"online": False})
        assert line.offline.wait(10)
    assert line.results == {3: {"resultId": "r1", "seq": 3}}
    assert [(alert["alertId"], result) for alert, result in received] == [("a1", {"resultId": "r1", "seq": 3})]
    _is_gone(port)


@pytest.mark.slow
def test_the_embedded_broker_is_gone_also_when_the_demo_fails() -> None:
    ports: list[int] = []

    def fail() -> None:
        with embedded_broker() as port:
            ports.append(port)
            raise EngineError(what="the agent stopped", remedy="read its log")

    with pytest.raises(EngineError):
        fail()
    _is_gone(ports[0])


def _is_gone(port: int) -> None:
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 1)
    assert "broker" not in {thread.name for thread in threading.enumerate()}


def _publish(line: LineListener, topic: str, content: dict[str, object]) -> None:
    line._client.publish(topic, json.dumps(content), qos=1).wait_for_publish(10)


def _command_lines() -> list[str]:
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):  # it ended meanwhile
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return lines
