"""What is known of stations from their messages: messages in, a board out, nothing else."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from agent.messages.payloads import AlertState, CommandAck, Health, PlcMessage, Status
from agent.messages.records import Alert, Result
from agent.watch.incoming import MALFORMED, Incoming, read

if TYPE_CHECKING:
    from agent.messages.fields import Message

_RESULTS_KEPT = 200
"""Twice as many as a station sends again after a broken connection."""
_ACKS_KEPT = 5


@dataclass
class StationView:
    """The last known state of one station.

    Attributes:
        health_at_ms: When its health was received.
        plc: Messages to the PLC.
        plc_invalid: Of these, not valid.
        alerts: Active ones, by identity.
    """

    status: Status | None = None
    health: Health | None = None
    health_at_ms: int = 0
    plc: int = 0
    plc_invalid: int = 0
    alerts: dict[str, Alert] = field(default_factory=dict)


class StationBoard:
    """All stations.

    Attributes:
        stations: By topic root.
        results: Topic root and result of the last ones, newest last.
        acks: Topic root, time of arrival and content of the last answers to commands, newest last.
        result_count: Results since the start, each counted once.
        malformed: Number of messages that no station publishes in this form.
    """

    def __init__(self) -> None:
        self.stations: dict[str, StationView] = {}
        self.results: deque[tuple[str, Result]] = deque(maxlen=_RESULTS_KEPT)
        self.acks: deque[tuple[str, int, CommandAck]] = deque(maxlen=_ACKS_KEPT)
        self.result_count = 0
        self.malformed = 0

    def update(self, topic: str, payload: bytes, now_ms: int) -> tuple[Incoming, bool] | None:
        """Take in a message; None if it is malformed, or not one of a station.

        Returns:
            The message, and whether it is more than a repetition of what was known.
        """
        incoming = read(topic, payload)
        if isinstance(incoming, Incoming):
            return incoming, self._take(incoming.root, incoming.message, now_ms)
        self.malformed += incoming is MALFORMED
        return None

    def _take(self, root: str, message: Message, now_ms: int) -> bool:
        station = self.stations.setdefault(root, StationView())
        if isinstance(message, Result):
            if any(message.result_id == known.result_id for _, known in self.results):
                return False  # delivery is at least once
            self.results.append((root, message))
            self.result_count += 1
            return True
        if isinstance(message, CommandAck):
            return self._take_ack(root, message, now_ms)
        return _update(station, message, now_ms)

    def _take_ack(self, root: str, ack: CommandAck, now_ms: int) -> bool:
        """A command keeps one place however often it is answered; more progress in the same phase is no news."""
        earlier = [each for each in self.acks if each[0] == root and _is_same_command(each[2], ack)]
        for each in earlier:
            self.acks.remove(each)
        self.acks.append((root, now_ms, ack))
        return not (earlier and _is_same_phase(earlier[-1][2], ack))

    @property
    def is_paused(self) -> bool:
        """Whether all stations are paused, so that no results come."""
        statuses = [station.status for station in self.stations.values()]
        return bool(statuses) and all(status is not None and status.state == "paused" for status in statuses)


def _is_same_command(before: CommandAck, now: CommandAck) -> bool:
    """An answer to a command that could not be read has no id, and stands alone."""
    return now.command_id is not None and (before.command_id, before.command) == (now.command_id, now.command)


def _is_same_phase(before: CommandAck, now: CommandAck) -> bool:
    return now.progress not in {None, 1} and replace(before, progress=None) == replace(now, progress=None)


def _update(station: StationView, message: Message, now_ms: int) -> bool:
    if isinstance(message, Status):
        is_new, station.status = station.status is None or _shown(message) != _shown(station.status), message
        return is_new
    if isinstance(message, Health):
        station.health, station.health_at_ms = message, now_ms
    elif isinstance(message, PlcMessage):
        station.plc += 1
        station.plc_invalid += not message.valid
    elif isinstance(message, AlertState):
        station.alerts = {alert.alert_id: alert for alert in message.active}
    elif isinstance(message, Alert) and not message.historical:  # what happened while offline is not active now
        station.alerts.pop(message.alert_id, None)
        if message.type != "end":
            station.alerts[message.alert_id] = message
    return True


def _shown(status: Status) -> tuple[bool, str, str]:
    return status.online, status.state, status.reason
