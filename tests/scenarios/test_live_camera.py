"""A station with a network camera that comes, goes and comes back; what the line hears of it."""

from __future__ import annotations

import itertools
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from agent.doctor.camera_probe import camera
from agent.doctor.network_probe import network
from tests.support.network_camera import NetworkCamera
from tests.support.stations import Agent, closed_port, until, write_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.real_broker import Listener, Mosquitto

pytestmark = pytest.mark.waits

BACK_WITHIN_S = 30.0
"""Ten seconds between two attempts, and a busy machine."""


def children_of(process: int) -> list[int]:
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    return [int(child) for task in tasks for child in task.read_text().split()]


def states(listener: Listener) -> list[tuple[str, str]]:
    return [(status["state"], status["reason"]) for status in listener.on("/status") if status["online"]]


@pytest.mark.slow
def test_a_camera_that_comes_late_goes_and_comes_back_is_reported_each_time(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    port = closed_port()
    source = f"http://user:secret@127.0.0.1:{port}/stream"
    absent = ("lost", f"stream http://***@127.0.0.1:{port}/stream does not open")
    config = write_config(tmp_path, bundle, source, mosquitto.port, camera={"width": 96, "height": 72})
    with Agent(config) as agent:
        listener.wait_for(lambda listener: absent in states(listener))
        listener.wait_for(lambda listener: listener.on("/plc"))
        assert not listener.on("/plc")[0]["valid"]
        for _ in range(2):
            with NetworkCamera(port):
                seen = len(listener.on("/result"))
                listener.wait_for(lambda listener: states(listener)[-1] == ("running", ""), BACK_WITHIN_S)
                listener.wait_for_more("/result", seen)
            listener.wait_for(lambda listener: states(listener)[-1][0] == "lost")
        children = children_of(agent.process.pid)
        assert len(children) <= 1
        agent.end(signal.SIGTERM)
        assert agent.process.returncode == 0, agent.log
    assert not any(Path(f"/proc/{child}").exists() for child in children)
    assert all(before != after for before, after in itertools.pairwise(states(listener)))
    alerts = [alert for alert in listener.on("/alert") if alert["cause"] == "camera lost"]
    assert [alert["type"] for alert in alerts] == ["new", "end", "new", "end", "new", "end"]
    assert len({alert["alertId"] for alert in alerts}) == 3
    results = listener.on("/result")
    assert [result["seq"] for result in results] == sorted({result["seq"] for result in results})
    assert not any(result["isSimulated"] for result in results)
    assert "secret" not in agent.log
    assert "Traceback" not in agent.log


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_an_agent_that_is_stopped_ends_its_capture_process(
    bundle: Path, tmp_path: Path, number: signal.Signals
) -> None:
    port = closed_port()
    config = write_config(tmp_path, bundle, f"http://127.0.0.1:{port}/stream", closed_port())
    with NetworkCamera(port), Agent(config) as agent:
        until(lambda: agent.log.count("gives frames"))
        (child,) = children_of(agent.process.pid)
        took_s = agent.end(number)
        until(lambda: not _is_running(child))
    if number != signal.SIGKILL:
        assert "frames captured" in agent.log
        assert took_s < 10.0


@pytest.mark.slow
def test_the_doctor_looks_at_frames_of_a_live_camera(bundle: Path, tmp_path: Path) -> None:
    port = closed_port()
    config = str(write_config(tmp_path, bundle, f"http://127.0.0.1:{port}/line.mjpg", closed_port()))
    with NetworkCamera(port):
        (watched,) = camera(config, str(tmp_path))
    assert 6 <= len(list(tmp_path.glob("*.npy"))) <= 9
    found = {each.name: each for each in network(config, **watched.figures, frames=str(tmp_path))}
    assert (found["live frames"].level, found["deadline"].level) == ("ok", "ok"), found
    assert " look as taught; score " in found["live frames"].found
    assert "a frame every 5" in found["deadline"].found


def _is_running(process: int) -> bool:
    """A zombie is not; whoever has taken it over may take its time."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{process}/status").read_text()
    except FileNotFoundError:
        return False
