"""Triggers without a frame of their own: they lay in the socket of a stopped process, or there is no camera."""

from __future__ import annotations

import signal
import threading
from typing import TYPE_CHECKING

from tests.support.controller import Controller
from tests.support.real_broker import halt, wait_for
from tests.support.stations import Agent, closed_port, good_parts, write_config, write_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from tests.support.real_broker import Listener, Mosquitto

STOPPED_S = 3.0
MORE_THAN_A_BROKER_HANDS_OVER_AT_ONCE = 30


def valid_of(listener: Listener) -> dict[str, bool]:
    return {answer["partId"]: answer["valid"] for answer in listener.on("/plc")}


def test_triggers_that_came_while_the_agent_was_stopped_get_no_verdict_and_the_next_one_does(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    config = write_config(
        tmp_path,
        bundle,
        write_pictures(tmp_path / "parts", good_parts(5)),
        mosquitto.port,
        camera={"playback": "realtime", "frames_per_s": 50, "loop": True},
        trigger={"source": "command"},
        plc={"deadline_ms": 1000},
        archive={"enabled": False},
    )
    old = [f"old{number}" for number in range(MORE_THAN_A_BROKER_HANDS_OVER_AT_ONCE)]
    controller = Controller(mosquitto.port)
    with Agent(config) as agent:
        listener.wait_for(lambda heard: any(one["state"] == "running" for one in heard.on("/status")), 60)
        controller.trigger("before")
        listener.wait_for(lambda heard: valid_of(heard).get("before"))
        halt(agent.process)
        for part_id in old:
            controller.trigger(part_id)
        threading.Event().wait(STOPPED_S)
        agent.process.send_signal(signal.SIGCONT)
        listener.wait_for(lambda heard: valid_of(heard).keys() >= set(old))
        assert {part_id: valid for part_id, valid in valid_of(listener).items() if valid} == {"before": True}
        fresh: Iterator[str] = (f"fresh{number}" for number in range(100))

        def is_inspected_again() -> bool:
            part_id = next(fresh)
            controller.trigger(part_id)
            wait_for(lambda: part_id in valid_of(listener))
            threading.Event().wait(0.4)
            return valid_of(listener)[part_id]

        wait_for(is_inspected_again)
        controller.close()
    refused = [answer["error"] for answer in listener.on("/cmd/ack") if str(answer["commandId"]).startswith("old")]
    assert len(refused) == len(old)
    assert all("the agent stood still" in error for error in refused)


def test_parts_that_had_no_frame_are_among_the_results_of_the_last_line_and_of_health(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    config = write_config(
        tmp_path,
        bundle,
        f"http://127.0.0.1:{closed_port()}/stream",
        mosquitto.port,
        trigger={"source": "command"},
        archive={"enabled": False},
    )
    controller = Controller(mosquitto.port)
    with Agent(config) as agent:
        listener.wait_for(lambda heard: any(one["state"] == "lost" for one in heard.on("/status")), 60)
        for number in range(6):
            controller.trigger(f"part{number}")
        listener.wait_for(lambda heard: len(heard.on("/result")) == 6)
        controller.close()
        agent.end(signal.SIGTERM)
    assert not any(valid_of(listener).values())
    assert listener.on("/health")[-1]["missed"] == 6
    assert "0 frames captured, 6 results (0 OK, 0 NotOK, 6 not decidable)" in agent.log
    assert "6 records published, 0 wait" in agent.log
