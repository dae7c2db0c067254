"""A whole station on GenICam cameras: taught, watched for a thousand frames, triggered, cut off, and losing packets."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.support.controller import Controller
from tests.support.genicam_cameras import GigeCamera, gentl_source, only_gige_camera
from tests.support.stations import Agent, until, write_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.real_broker import Listener, Mosquitto

pytestmark = [pytest.mark.slow, pytest.mark.waits]

FRAMES, FRAMES_PER_S = 1000, 40
BACK_WITHIN_S = 30.0
DAMAGED = 12
UNCHECKED = {"enabled": False}
"""What the emulated cameras show moves all the time, and is no scene."""


def teach_from(source: str, folder: Path) -> Path:
    """A bundle of the first images of a camera, by the commands that a person gives."""
    images, bundle = folder / "images", folder / "bundle"
    run("shiftwatch-agent", "capture", str(images), "--camera", source, "--count", "40", "--interval-s", "0")
    run("shiftwatch-calibrate", "fit", str(images), "--out", str(bundle), "--size", "64x64", "--backbone", "filterbank")
    return bundle


def run(program: str, *arguments: str) -> None:
    command = [str(Path(sys.executable).with_name(program)), *arguments]
    ended = subprocess.run(command, check=False, capture_output=True, text=True)  # noqa: S603 - our own program
    assert ended.returncode == 0, ended.stderr


def state(listener: Listener) -> str:
    return str(listener.on("/status")[-1]["state"]) if listener.on("/status") else ""


def children_of(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def wait_for_results(listener: Listener, count: int, timeout_s: float = 120.0) -> None:
    listener.wait_for(lambda heard: len(heard.on("/result")) >= count, timeout_s)


def counted(listener: Listener) -> Counter[tuple[int, int]]:
    """Results by verdict and reason."""
    return Counter((each["resultEvaluation"], each["resultCode"]) for each in listener.on("/result"))


def decided(results: Counter[tuple[int, int]]) -> int:
    """Results whose verdict is that of the network."""
    return sum(count for (_, code), count in results.items() if code == 0)


def test_a_station_on_a_gige_vision_camera_watches_is_cut_off_and_comes_back(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    with only_gige_camera(), GigeCamera("SW10") as camera:
        bundle = teach_from(camera.source, tmp_path)
        config = write_config(
            tmp_path, bundle, camera.source, mosquitto.port, camera={"frames_per_s": FRAMES_PER_S}, checks=UNCHECKED
        )
        with Agent(config) as agent:
            wait_for_results(listener, FRAMES)
            seen = len(listener.on("/result"))
            camera.kill()
            listener.wait_for(lambda heard: not heard.on("/plc")[-1]["valid"], 4.0)  # 2 s, and a busy machine
            listener.wait_for(lambda heard: state(heard) == "lost")
            camera.start()
            listener.wait_for(lambda heard: state(heard) == "running", BACK_WITHIN_S)
            listener.wait_for_more("/result", seen + 20)
            agent.end(signal.SIGTERM)
    results = counted(listener)
    print(f"GigE Vision, {FRAMES_PER_S} frames/s: verdicts and reasons {dict(results)}")  # noqa: T201
    assert decided(results) >= FRAMES
    numbers = [each["seq"] for each in listener.on("/result")]
    assert numbers == sorted(set(numbers))
    assert "Traceback" not in agent.log


def test_each_trigger_of_the_line_is_one_image_of_the_camera(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    names = [f"SN-{number}" for number in range(40)]
    with only_gige_camera(), GigeCamera("SW11") as camera:
        config = write_config(
            tmp_path,
            bundle,
            camera.source,
            mosquitto.port,
            camera={"trigger": "software"},
            trigger={"source": "command"},
            plc={"deadline_ms": 2000},
            checks=UNCHECKED,
        )
        controller = Controller(mosquitto.port)
        with Agent(config) as agent:
            listener.wait_for(lambda heard: state(heard) == "running", 60)
            for number, name in enumerate(names):
                controller.trigger(name)
                wait_for_results(listener, number + 1, 10.0)
            controller.close()
            agent.end(signal.SIGTERM)
    answers = [(each["partId"], each["valid"]) for each in listener.on("/plc")]
    print(f"software trigger: {len(answers)} answers, {sum(valid for _, valid in answers)} valid")  # noqa: T201
    assert answers == [(name, True) for name in names]
    assert f"{len(names)} frames captured" in agent.log


def test_no_part_whose_packets_are_missing_is_ok(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    with only_gige_camera():
        with GigeCamera("SW12") as camera:
            bundle = teach_from(camera.source, tmp_path)
        with GigeCamera("SW12", lost_packets=2) as camera:
            config = write_config(tmp_path, bundle, camera.source, mosquitto.port, checks=UNCHECKED)
            with Agent(config) as agent:
                wait_for_results(listener, 150)
                agent.end(signal.SIGTERM)
    results = counted(listener)
    print(f"2 of 1,000 packets lost: verdicts and reasons {dict(results)}")  # noqa: T201
    assert results[3, DAMAGED] >= 10
    assert results[1, 0] >= 10
    assert all(evaluation == 3 for evaluation, code in results if code == DAMAGED)


def test_a_station_on_a_gentl_producer_watches_and_survives_its_library(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    source = gentl_source("2")
    bundle = teach_from(source, tmp_path)
    camera = {"frames_per_s": FRAMES_PER_S}
    config = write_config(tmp_path, bundle, source, mosquitto.port, camera=camera, checks=UNCHECKED)
    with Agent(config) as agent:
        wait_for_results(listener, FRAMES)
        (capture,) = [each for each in children_of(agent.process.pid) if b"capture_main" in _command(each)]
        os.kill(capture, signal.SIGKILL)
        until(lambda: "was killed by SIGKILL" in agent.log)
        seen = len(listener.on("/result"))
        listener.wait_for_more("/result", seen + 20)
        assert state(listener) == "running"
        agent.end(signal.SIGTERM)
    results = counted(listener)
    print(f"GenTL, {FRAMES_PER_S} frames/s: verdicts and reasons {dict(results)}")  # noqa: T201
    assert decided(results) >= FRAMES
    assert "Traceback" not in agent.log


def _command(process: int) -> bytes:
    return Path(f"/proc/{process}/cmdline").read_bytes()
