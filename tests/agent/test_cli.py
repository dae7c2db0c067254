"""The command as systemd and people use it: what it needs, how it ends, what it says when something is wrong."""

from __future__ import annotations

import json
import logging
import re
import shutil
import signal
import socket
import subprocess
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent import cli
from agent.messages.records import Evaluation
from agent.station.run import Summary
from calibration.terminal import ending_signals
from tests.support.stations import (
    PATIENCE_S,
    Agent,
    Outcome,
    broken_parts,
    closed_port,
    good_parts,
    kept_records,
    until,
    write_config,
    write_pictures,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.real_broker import Listener, Mosquitto

COMMAND = Path(sys.executable).with_name("shiftwatch-agent")
LOOPING = {"playback": "realtime", "frames_per_s": 100, "loop": True}
ENDS_WITHIN_S = 2.0
ABSENT_ON_A_DEVICE = ("torch", "timm", "torchvision", "sklearn", "safetensors", "amqtt")

# A Python in which the workstation's packages are not installed; says at the end what the agent needed.
DEVICE = f"""
import sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {ABSENT_ON_A_DEVICE!r}:
            raise ModuleNotFoundError(f"No module named {{name!r}}", name=name)

sys.meta_path.insert(0, Absent())
from agent.cli import main
try:
    main()
finally:
    memory = next(line for line in open("/proc/self/status") if line.startswith("VmHWM:"))
    print("peak kB:", memory.split()[1], "onnx:", "onnx" in sys.modules, file=sys.stderr)
"""


@dataclass(frozen=True)
class Sum:
    """The agent's last line, read as a person reads it."""

    captured: int
    results: int
    published: int
    waiting: int


def summed_up(log: str) -> Sum:
    line = log.strip().splitlines()[-1]
    found = re.search(
        r"stopped: (\d+) frames? captured, (\d+) results? .+; (\d+) records? published, (\d+) waiting",
        line,
    )
    assert found, log
    return Sum(*map(int, found.groups()))


def state_of(listener: Listener) -> tuple[bool, str, str]:
    """The last status."""
    status = listener.on("/status")[-1]
    return status["online"], status["state"], status["reason"]


def active(listener: Listener) -> list[str]:
    """Alerts that are active by the last ``alert/state``."""
    return [alert["alertId"] for alert in listener.on("/alert/state")[-1]["active"]]


@pytest.mark.slow
def test_a_device_needs_no_torch_and_little_memory(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    source = write_pictures(tmp_path / "parts", [*good_parts(20), *broken_parts(2)])
    with Agent(write_config(tmp_path, bundle, source, mosquitto.port), wrapper=DEVICE) as agent:
        assert agent.wait() == 0, agent.log
    listener.wait_for(lambda listener: state_of(listener) == (False, "offline", "stopped"))
    assert [result["resultEvaluation"] for result in listener.on("/result")] == [1] * 20 + [2] * 2
    needed = re.search(r"peak kB: (\d+) onnx: (\w+)", agent.log)
    assert needed is not None
    assert int(needed[1]) * 1024 < 250e6
    assert needed[2] == "False", "onnx costs memory and is needed to build a network only"


@pytest.mark.slow
@pytest.mark.parametrize("module", ["agent.station.run", "agent.cli"])
def test_to_import_the_agent_imports_nothing_that_only_calibration_needs(module: str) -> None:
    unwanted = ("onnx", "sklearn", "torch", "torchvision", "timm", "safetensors", "amqtt")
    code = f"import sys, {module}; print([name for name in {unwanted!r} if name in sys.modules])"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)  # noqa: S603 - our own program
    assert ended.stdout.strip() == "[]"


def test_a_station_below_nohup_outlives_its_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    for handler in (signal.SIG_DFL, signal.SIG_IGN):
        monkeypatch.setattr(signal, "getsignal", lambda _, handler=handler: handler)
        assert (signal.SIGHUP in ending_signals()) is (handler == signal.SIG_DFL)


@pytest.mark.slow
@pytest.mark.parametrize("number", ending_signals())
@pytest.mark.alone  # it measures
def test_an_agent_that_is_asked_to_stop_says_goodbye_and_ends_within_two_seconds(
    mosquitto: Mosquitto,
    listen: Callable[[int], Listener],
    bundle: Path,
    tmp_path: Path,
    number: signal.Signals,
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    source = write_pictures(tmp_path / "parts", broken_parts(4))
    with Agent(write_config(tmp_path, bundle, source, mosquitto.port, camera=LOOPING)) as agent:
        listener.wait_for(lambda listener: listener.on("/alert") and len(listener.on("/result")) > 20)
        assert active(listener) == [listener.on("/alert")[0]["alertId"]]
        took_s = agent.end(number)
    assert agent.process.returncode == 0, agent.log
    assert took_s < ENDS_WITHIN_S
    listener.wait_for(lambda listener: state_of(listener) == (False, "offline", "stopped"))
    assert active(listener) == []
    alerts = [alert["type"] for alert in listener.on("/alert")]
    assert (alerts[0], alerts[-1]) == ("new", "end")
    ended = summed_up(agent.log)
    assert ended.results == len(listener.on("/result"))
    assert ended.published == len(listener.on("/result")) + len(listener.on("/alert"))
    assert ended.waiting == len(kept_records(tmp_path)) == 0
    archive = tmp_path / "state" / "archive"
    assert list(archive.glob("*/*.json"))
    assert not list(archive.glob("*/*.part"))


@pytest.mark.slow
@pytest.mark.alone  # it measures
def test_an_agent_without_a_broker_ends_as_fast_and_keeps_its_records(bundle: Path, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "parts", broken_parts(4))
    config = write_config(tmp_path, bundle, source, closed_port(), camera=LOOPING)
    with Agent(config) as agent:
        alert = tmp_path / "state" / "active_alert.json"
        until(alert.exists)
        took_s = agent.end(signal.SIGTERM)
    assert agent.process.returncode == 0, agent.log
    assert took_s < ENDS_WITHIN_S
    kept = kept_records(tmp_path)
    ended = summed_up(agent.log)
    assert (ended.published, ended.waiting) == (0, len(kept))
    assert len([record for record in kept if record.kind == "result"]) == ended.results > 0
    alerts = [json.loads(record.payload)["type"] for record in kept if record.kind == "alert"]
    assert (alerts[0], alerts[-1]) == ("new", "end")
    assert not alert.exists()
    assert agent.log.count("records wait meanwhile") == 1, "told once, however many attempts end in it"


@pytest.mark.slow
@pytest.mark.alone  # it measures
def test_an_agent_whose_broker_hangs_ends_within_two_seconds_too(bundle: Path, tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "parts", broken_parts(4))
    with socket.create_server(("127.0.0.1", 0)) as mute:
        config = write_config(tmp_path, bundle, source, mute.getsockname()[1], camera=LOOPING)
        with Agent(config) as agent:
            mute.settimeout(PATIENCE_S)
            connection, _ = mute.accept()
            with connection:
                assert connection.recv(1), "it says hello"
                took_s = agent.end(signal.SIGTERM)
    assert agent.process.returncode == 0, agent.log
    assert took_s < ENDS_WITHIN_S
    assert summed_up(agent.log).waiting == len(kept_records(tmp_path))


@pytest.mark.slow
def test_an_alert_outlives_the_kill_of_its_agent_and_the_next_one_ends_it(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    source = write_pictures(tmp_path / "parts", broken_parts(4))
    config = write_config(tmp_path, bundle, source, mosquitto.port, camera=LOOPING)
    with Agent(config) as agent:
        listener.wait_for(lambda listener: listener.on("/alert") and active(listener))
        agent.end(signal.SIGKILL)
    (killed_id,) = active(listener)
    listener.wait_for(lambda listener: state_of(listener) == (False, "offline", "connection lost"))

    shutil.rmtree(source)
    write_pictures(source, good_parts(4))
    with Agent(config) as agent:
        listener.wait_for(lambda listener: listener.on("/alert")[-1]["type"] == "end")
        listener.wait_for(lambda listener: not active(listener))
        assert state_of(listener)[0] is True
        agent.end(signal.SIGTERM)
    end = listener.on("/alert")[-1]
    assert end["alertId"] == killed_id
    assert end["endTime"] >= end["startTime"]
    assert f"alert {killed_id} was active when the agent died" in agent.log
    assert kept_records(tmp_path) == []


@pytest.mark.slow
def test_records_of_a_killed_agent_reach_the_line_from_the_next(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    source = write_pictures(tmp_path / "parts", good_parts(4))
    config = write_config(tmp_path, bundle, source, mosquitto.port, camera=LOOPING)
    with Agent(config) as agent:  # nobody listens
        until((tmp_path / "state" / "outbox.sqlite-wal").exists)
        agent.end(signal.SIGKILL)
    kept = {record.record_id for record in kept_records(tmp_path)}
    mosquitto.start()
    listener = listen(mosquitto.port)
    with Agent(config) as agent:
        listener.wait_for(lambda listener: any(not result["historical"] for result in listener.on("/result")))
        agent.end(signal.SIGTERM)
    historical = {result["resultId"] for result in listener.on("/result") if result["historical"]}
    assert kept <= historical


@pytest.mark.parametrize(
    ("source", "says", "mends"),
    [
        ("nowhere.avi", "no video or image folder at", "check the path"),
        ("text.avi", "does not open as a video", "for images, give their folder"),
    ],
)
def test_a_file_that_does_not_open_is_reported_with_what_to_check(  # noqa: PLR0913, PLR0917 - a table
    command: Callable[..., Outcome], bundle: Path, tmp_path: Path, source: str, says: str, mends: str
) -> None:
    (tmp_path / "text.avi").write_text("no video")
    ended = command("run", "--config", write_config(tmp_path, bundle, source, closed_port()))
    assert ended.code == 2
    assert says in ended.err
    assert mends in ended.err
    assert "Traceback" not in ended.err
    assert kept_records(tmp_path) == []
    # What is there is whole: mended, the same station runs.
    parts = write_pictures(tmp_path / "parts", good_parts(2))
    assert command("run", "--config", write_config(tmp_path, bundle, parts, closed_port())).code == 0
    assert len(kept_records(tmp_path)) == 2


BROKEN = {
    "no YAML": ("bundle: [unclosed\ncamera: {source: 0}\n", "line 2, column 7: not YAML"),
    "empty": ("", "bundle: missing"),
    "unknown key": ("bundle: b\ncamera: {source: 0}\nbundel: c\n", "did you mean 'bundle'?"),
    "wrong value": ("bundle: b\ncamera: {source: 0, playback: slow}\n", "camera.playback: 'slow' is not allowed"),
    "two mistakes": ("camera: {source: ''}\nmqtt: {port: 0}\n", "mqtt.port: 0 is not allowed"),
    "not a table": ("- 1\n", "the file"),
}


@pytest.mark.parametrize(("content", "says"), BROKEN.values(), ids=BROKEN)
def test_a_broken_configuration_is_reported_with_place_and_remedy(
    command: Callable[..., Outcome], tmp_path: Path, content: str, says: str
) -> None:
    config = tmp_path / "station.yaml"
    config.write_text(content)
    for arguments in (("run", "--config", config), ("config", config)):
        ended = command(*arguments)
        assert ended.code == 2
        assert f"the configuration {config} is not usable" in ended.err
        assert says in ended.err
        assert "fix each line above" in ended.err
        assert "Traceback" not in ended.err
    assert list(tmp_path.iterdir()) == [config]


def test_a_missing_configuration_is_reported(command: Callable[..., Outcome], tmp_path: Path) -> None:
    ended = command("run", "--config", tmp_path / "nowhere.yaml")
    assert ended.code == 2
    assert "nowhere.yaml: No such file or directory" in ended.err
    assert "give the path of a readable YAML file" in ended.err


@pytest.mark.parametrize("name", ["network.onnx", "moments.npz", "reference.npz", "manifest.json", "manifest.sha256"])
def test_a_bundle_with_one_byte_changed_is_refused(
    command: Callable[..., Outcome], bundle: Path, tmp_path: Path, name: str
) -> None:
    damaged = shutil.copytree(bundle, tmp_path / "damaged")
    content = bytearray((damaged / name).read_bytes())
    content[len(content) // 2] ^= 1
    (damaged / name).write_bytes(content)
    source = write_pictures(tmp_path / "parts", good_parts(1))
    ended = command("run", "--config", write_config(tmp_path, damaged, source, closed_port()))
    assert ended.code == 2
    assert str(damaged / ("manifest.json" if name == "manifest.sha256" else name)) in ended.err
    assert "copy the bundle again" in ended.err
    assert "Traceback" not in ended.err
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize("missing", ["network.onnx", "manifest.json"])
def test_a_bundle_that_is_not_all_there_is_refused(
    command: Callable[..., Outcome], bundle: Path, tmp_path: Path, missing: str
) -> None:
    incomplete = shutil.copytree(bundle, tmp_path / "incomplete")
    (incomplete / missing).unlink()
    source = write_pictures(tmp_path / "parts", good_parts(1))
    ended = command("run", "--config", write_config(tmp_path, incomplete, source, closed_port()))
    assert ended.code == 2
    assert f"cannot read {incomplete}" in ended.err
    assert "shiftwatch-calibrate fit" in ended.err
    assert not (tmp_path / "state").exists()


def test_the_configuration_is_read_once_as_later_the_agent_may_be_another_user(
    command: Callable[..., Outcome], bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, bundle, write_pictures(tmp_path / "parts", good_parts(1)), closed_port())

    def become(*_: object) -> None:
        config.unlink()

    monkeypatch.setattr(cli, "_become_owner", become)
    assert command("run", "--config", config).code == 0
    assert len(kept_records(tmp_path)) == 1


@pytest.mark.slow
def test_without_a_bundle_it_waits_for_one_and_ends_when_it_is_asked_to(tmp_path: Path) -> None:
    source = write_pictures(tmp_path / "parts", good_parts(1))
    with Agent(write_config(tmp_path, tmp_path / "nowhere", source, closed_port())) as agent:
        until(lambda: "not taught: there is no bundle at" in agent.log)
        assert str(tmp_path / "nowhere") in agent.log
        agent.end(signal.SIGTERM)
    assert agent.process.returncode == 0, agent.log
    assert "Traceback" not in agent.log
    assert kept_records(tmp_path) == []


def test_one_of_several_bundles_that_is_missing_is_refused(
    command: Callable[..., Outcome], bundle: Path, tmp_path: Path
) -> None:
    source = write_pictures(tmp_path / "parts", good_parts(1))
    bundles = {"left": bundle, "right": tmp_path / "nowhere"}
    ended = command("run", "--config", write_config(tmp_path, bundles, source, closed_port(), decision={}))
    assert ended.code == 2
    assert f"cannot read {tmp_path / 'nowhere'}" in ended.err


def test_a_state_folder_that_cannot_be_made_is_reported(
    command: Callable[..., Outcome], bundle: Path, tmp_path: Path
) -> None:
    (tmp_path / "taken").write_text("a file")
    source = write_pictures(tmp_path / "parts", good_parts(1))
    for state_dir in ("taken", "taken/below"):
        ended = command("run", "--config", write_config(tmp_path, bundle, source, closed_port(), state_dir=state_dir))
        assert ended.code == 2
        assert f"cannot write to the state folder {tmp_path / state_dir}" in ended.err
        assert "state_dir" in ended.err
        assert "Traceback" not in ended.err
    assert (tmp_path / "taken").read_text() == "a file"


@pytest.mark.slow
def test_a_second_agent_on_the_same_records_is_refused(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    source = write_pictures(tmp_path / "parts", good_parts(4))
    config = write_config(tmp_path, bundle, source, mosquitto.port, camera=LOOPING)
    with Agent(config) as first:
        listener.wait_for(lambda listener: listener.on("/result"))
        second = subprocess.run(  # noqa: S603 - our own command
            [str(COMMAND), "run", "--config", str(config)], capture_output=True, text=True, timeout=30, check=False
        )
        assert second.returncode == 2
        assert f"another agent is running on {tmp_path / 'state'}" in second.stderr
        assert "stop it, or give this one its own state_dir" in second.stderr
        assert "Traceback" not in second.stderr
        first.end(signal.SIGTERM)
    assert first.process.returncode == 0
    with Agent(config) as third:  # the lock went with its holder
        heard = len(listener.on("/result"))
        listener.wait_for(lambda listener: len(listener.on("/result")) > heard)
        third.end(signal.SIGTERM)
    assert third.process.returncode == 0


def test_the_last_line_reports_what_became_of_every_frame(
    command: Callable[..., Outcome], bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source = write_pictures(tmp_path / "parts", good_parts(7))
    (source / "0003.png").write_bytes(b"torn")
    assert command("run", "--config", write_config(tmp_path, bundle, source, closed_port())).code == 0
    said = caplog.records[-1].getMessage()
    assert said == (
        "stopped: 7 frames captured, 6 results (6 OK, 0 NotOK, 0 not decidable); frames dropped: 1 unreadable; "
        "0 records published, 6 waiting in the outbox"
    )


VERDICTS = {Evaluation.OK: 5, Evaluation.NOT_OK: 2}
NOTHING = Summary(
    captured=0,
    results=0,
    verdicts={},
    missed=0,
    late=0,
    dropped={},
    waited=0,
    published=0,
    waiting=0,
    lost={},
)


@pytest.mark.parametrize(
    ("summary", "text"),
    [
        (
            NOTHING,
            (
                "0 frames captured, 0 results (0 OK, 0 NotOK, 0 not decidable); frames dropped: none; "
                "0 records published, 0 waiting in the outbox"
            ),
        ),
        (
            replace(NOTHING, missed=6, late=7, published=6),
            (
                "0 frames captured, 6 results (0 OK, 0 NotOK, 6 not decidable); 6 of them for parts without a frame; "
                "7 parts without a verdict within plc.deadline_ms; frames dropped: none; 6 records published, "
                "0 waiting in the outbox"
            ),
        ),
        (
            replace(NOTHING, captured=7, results=7, verdicts=VERDICTS, waited=6, published=12, waiting=1),
            (
                "7 frames captured, 7 results (5 OK, 2 NotOK, 0 not decidable); frames dropped: none; "
                "6 records had waited since earlier runs; 12 records published, 1 waiting in the outbox"
            ),
        ),
        (
            replace(NOTHING, captured=1207, results=7, verdicts=VERDICTS, dropped={"moving": 1198, "superseded": 2}),
            (
                "1207 frames captured, 7 results (5 OK, 2 NotOK, 0 not decidable); frames without a part: 1198 moving; "
                "frames dropped: 2 superseded; 0 records published, 0 waiting in the outbox"
            ),
        ),
        (
            replace(NOTHING, captured=7, results=7, verdicts=VERDICTS, lost={"outbox_unwritable": 3}),
            (
                "7 frames captured, 7 results (5 OK, 2 NotOK, 0 not decidable); frames dropped: none; "
                "records lost: 3 outbox_unwritable; 0 records published, 0 waiting in the outbox"
            ),
        ),
    ],
    ids=["nothing", "parts without a frame", "records of earlier runs", "frames without a part", "lost records"],
)
def test_the_last_line_says_what_was_published_lost_and_no_loss(summary: Summary, text: str) -> None:
    assert cli._summary_text(summary) == text


def test_the_example_configuration_is_printed_and_good(command: Callable[..., Outcome], tmp_path: Path) -> None:
    printed = command("config")
    assert printed.code == 0
    file = tmp_path / "station.yaml"
    file.write_text(printed.out)
    checked = command("config", file)
    assert checked.code == 0
    assert "well-formed" in checked.out


def test_the_reference_names_every_key(command: Callable[..., Outcome]) -> None:
    printed = command("config", "--reference")
    assert printed.code == 0
    for key in ("bundle", "camera.source", "mqtt.tls.ca_file", "outbox.max_records"):
        assert f"| `{key}` |" in printed.out


@pytest.mark.slow
def test_the_command_and_the_module_are_the_same() -> None:
    for command in ([str(COMMAND)], [sys.executable, "-m", "agent"]):
        ended = subprocess.run([*command, "--help"], capture_output=True, text=True, timeout=30, check=True)  # noqa: S603 - our own command
        for name in ("run", "config", "doctor", "demo"):
            assert name in ended.stdout


def test_what_the_configuration_names_and_the_disk_lacks_is_reported(
    command: Callable[..., Outcome], tmp_path: Path
) -> None:
    file = tmp_path / "station.yaml"
    file.write_text("bundle: nowhere\ncamera: {source: gone.mp4}\nmqtt: {username: u, password_file: secret}\n")
    said = command("config", file)
    assert said.code == 0
    missing = [line for line in said.out.replace("\n/", "/").splitlines() if line.startswith("not there yet")]
    assert [line.split(":")[1].strip() for line in missing] == ["bundle", "mqtt.password_file", "camera.source"]


def test_the_version_is_reported(command: Callable[..., Outcome]) -> None:
    assert command("--version").out.startswith("shiftwatch ")
