"""Every message of a running station fits the JSON Schema that users get."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING

import pytest
from paho.mqtt.client import Client
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.published import PUBLISHED, check_published
from tests.support.stations import ROOT, THRESHOLD, Agent, broken_parts, good_parts, write_config, write_pictures

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.support.real_broker import Listener, Mosquitto

TIMEOUT_S = 30.0


@pytest.mark.slow
@pytest.mark.parametrize("zones", [(), ("left", "right")])
def test_every_message_of_a_running_station_fits_the_schema(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path, zones: tuple[str, ...]
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    parts = write_pictures(tmp_path / "parts", [*good_parts(2), *broken_parts(4)])
    config = write_config(
        tmp_path,
        dict.fromkeys(zones, bundle) if zones else bundle,
        parts,
        mosquitto.port,
        camera={"playback": "realtime", "frames_per_s": 20, "loop": True},
        commands={"accept": ["pause", "resume"]},
        decision={} if zones else {"threshold": THRESHOLD},
    )
    client = Client(CallbackAPIVersion.VERSION2)
    client.connect("127.0.0.1", mosquitto.port)
    client.loop_start()
    with Agent(config) as agent:
        listener.wait_for(lambda heard: (heard.on("/alert") and heard.on("/plc")) or agent.process.poll(), TIMEOUT_S)
        for name, text in (("pause", json.dumps({"commandId": "1"})), ("resume", "{}"), ("pause", "[]")):
            client.publish(f"{ROOT}/cmd/{name}", text, qos=1)
        listener.wait_for(lambda heard: len(heard.on("/cmd/ack")) == 3, TIMEOUT_S)
        listener.wait_for(lambda heard: any(status["state"] == "paused" for status in heard.on("/status")), TIMEOUT_S)
        agent.end(signal.SIGTERM)
    client.disconnect()
    client.loop_stop()
    assert listener.on("/status")[-1]["reason"] == "stopped"
    assert check_published(ROOT, listener.heard) == set(PUBLISHED["properties"])
