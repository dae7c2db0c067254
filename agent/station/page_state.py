"""What the live page shows of the station besides its results."""

from __future__ import annotations

from typing import TYPE_CHECKING

from agent.clock import now_ms

if TYPE_CHECKING:
    from collections.abc import Sequence

    from agent.messages.records import Payload
    from agent.mqtt.client_thread import BrokerClient
    from agent.station.status import StationStatus

_VERSIONS, _VERSIONS_OF_ALL = 20, 120  # a message of the page has 128 KiB


def page_state(status: StationStatus, clients: Sequence[BrokerClient]) -> Payload:
    """The state of the station now; from any thread, without waiting.

    Args:
        status: The status of the station.
        clients: Connections to the broker: the plain one, then the one of Sparkplug if there is one.
    """
    state, reason = status.state()
    zones = status.controls.zones
    most = max(1, min(_VERSIONS, _VERSIONS_OF_ALL // len(zones)))
    return {
        "at": now_ms(),
        "state": state,
        "reason": reason,
        "info": status.info(),
        "health": status.health(),
        "alerts": status.alert_state()["active"],
        "brokers": [
            {"name": name, "connected": client.connected, "waiting": client.waiting, "error": client.last_error}
            for name, client in zip(("MQTT", "Sparkplug"), clients, strict=False)
        ],
        "versions": {
            zone.name: [
                {
                    "identity": each.identity,
                    "at": each.since_ms,
                    "threshold": each.threshold,
                    "by": each.by,
                    "why": each.why,
                }
                for each in reversed(zone.versions.served[-most:])
            ]
            for zone in zones
        },
        "thresholds": {
            zone.name: {
                "now": active.recipe.rules.threshold,
                "base": active.base_threshold,
                "curve": active.curve,
            }
            for zone in zones
            for active in (zone.active,)
        },
    }
