"""What the page tells of the station besides its results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.clock import now_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.messages.records import Payload
    from agent.mqtt.client_thread import BrokerClient
    from agent.station.status import StationStatus


def state_of(reports: StationStatus, speakers: Sequence[BrokerClient]) -> Payload:
    """From any thread, without waiting.

    Args:
        reports: What the station knows of itself.
        speakers: Connections to the broker: the plain one, then that of Sparkplug if there is one.
    """
    state, reason = reports.state()
    connections = zip(("MQTT", "Sparkplug"), speakers, strict=False)
    return {
        "at": now_ms(),
        "state": state,
        "reason": reason,
        "info": reports.info(),
        "health": reports.health(),
        "alerts": reports.alert_state()["active"],
        "brokers": [
            {"name": name, "connected": speaker.connected, "waiting": speaker.waiting, "error": speaker.last_error}
            for name, speaker in connections
        ],
        "thresholds": {
            zone.name: {"now": zone.served.recipe.rules.threshold, "base": zone.served.base_threshold}
            for zone in reports.controls.zones
        },
    }
