"""What is known of stations from their messages. Pure: messages in, a board out."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import NamedTuple

from agent.watch.incoming import Alert, AlertState, CommandAnswer, Health, Message, Plc, Result, Status, read

_RESULTS_REMEMBERED = 200
"""Twice as many as a station sends again after a broken connection."""
_ANSWERS_REMEMBERED = 5


@dataclass
class StationView:
    """What one station has said of itself last.

    Attributes:
        health_at_ms: When its health was heard.
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


class ShownResult(NamedTuple):
    """A result, and whose it is."""

    root: str
    result: Result


class ShownAnswer(NamedTuple):
    """An answer to a command, whose it is, and when it was heard."""

    root: str
    at_ms: int
    answer: CommandAnswer


class BoardUpdate(NamedTuple):
    """A message that the board has taken in; ``is_new`` unless it says what was known already."""

    root: str
    content: object
    message: Message
    is_new: bool


class StationBoard:
    """All stations.

    Attributes:
        stations: By topic root.
        results: The last ones, newest last.
        answers: To commands, newest last.
        result_count: Since the start, each once.
        malformed: Messages that no station sends so.
    """

    def __init__(self) -> None:
        self.stations: dict[str, StationView] = {}
        self.results: deque[ShownResult] = deque(maxlen=_RESULTS_REMEMBERED)
        self.answers: deque[ShownAnswer] = deque(maxlen=_ANSWERS_REMEMBERED)
        self.result_count = 0
        self.malformed = 0

    def hear(self, topic: str, payload: bytes, now_ms: int) -> BoardUpdate | None:
        """Take in a message; None if it is malformed, or not one of a station."""
        heard = read(topic, payload)
        if heard is None:
            return None
        if heard.message is None:
            self.malformed += 1
            return None
        station = self.stations.setdefault(heard.root, StationView())
        return BoardUpdate(*heard[:2], heard.message, self._take(heard.root, station, heard.message, now_ms))

    def _take(self, root: str, station: StationView, message: Message, now_ms: int) -> bool:
        if isinstance(message, Result):
            return self._take_result(ShownResult(root, message))
        if isinstance(message, CommandAnswer):
            self.answers.append(ShownAnswer(root, now_ms, message))
            return True
        return _note(station, message, now_ms)

    def _take_result(self, shown: ShownResult) -> bool:
        if any(shown.result.result_id == known.result.result_id for known in self.results):
            return False  # delivery is at least once
        self.results.append(shown)
        self.result_count += 1
        return True


def _note(station: StationView, message: Message, now_ms: int) -> bool:
    if isinstance(message, Status):
        is_news, station.status = message != station.status, message
        return is_news
    if isinstance(message, Health):
        station.health, station.health_at_ms = message, now_ms
    elif isinstance(message, Plc):
        station.plc += 1
        station.plc_invalid += not message.valid
    else:
        _note_alert(station, message)
    return True


def _note_alert(station: StationView, message: Message) -> None:
    if isinstance(message, AlertState):
        station.alerts = {alert.alert_id: alert for alert in message.active}
    elif isinstance(message, Alert) and not message.historical:  # what was while the line was down is not now
        station.alerts.pop(message.alert_id, None)
        if message.type != "end":
            station.alerts[message.alert_id] = message
