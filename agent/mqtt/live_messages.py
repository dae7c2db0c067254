"""What is said now or never, between the station and the line: answers to parts and to commands."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, NamedTuple

from agent.messages.records import to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.commands.dispatcher import CommandDispatcher
    from agent.messages.records import Payload
    from agent.messages.topics import Topics
    from agent.mqtt.connection import Received
    from agent.trigger.plc_handshake import Handshake

_PLC_EXPIRES_S = 1
_ANSWER_EXPIRES_S = 60


class LiveMessage(NamedTuple):
    """One message.

    Attributes:
        expires_s: The broker must not deliver it later.
    """

    topic: str
    payload: str
    expires_s: int


class LiveMessages:
    """Used by the publisher's thread; `follow_up` by any.

    Args:
        handshake: With the controller of the line.
        commands: Answers what comes in.
        give_up: Called when parts are overdue and the controller is to be told so.
    """

    def __init__(
        self, topics: Topics, handshake: Handshake, commands: CommandDispatcher, give_up: Callable[[], object]
    ) -> None:
        self.subscription = topics.commands
        self._topics = topics
        self._handshake = handshake
        self._commands = commands
        self._give_up = give_up
        self._answers: queue.SimpleQueue[Payload] = queue.SimpleQueue()

    @property
    def due_at_s(self) -> float:
        """When there is something to say without being woken, on the monotonic clock."""
        return self._handshake.due_at_s

    def begin(self) -> None:
        """There is a new line: what could not be said over the last one is void."""
        self._handshake.discard()

    def hear(self, message: Received) -> None:
        """A message came; the answer is in the next `say`."""
        if message.topic != self._topics.acknowledgement:  # our own, which the subscription brings back
            name = message.topic.rpartition("/")[2]
            self.follow_up(self._commands.answer(name, message.payload, retained=message.retained))

    def follow_up(self, answer: Payload) -> None:
        """Say later how a command went on."""
        self._answers.put(answer)

    def say(self) -> list[LiveMessage]:
        """What is to be said now, in order."""
        self._give_up()
        sayings = [LiveMessage(self._topics.plc, to_json(answer), _PLC_EXPIRES_S) for answer in self._handshake.take()]
        while not self._answers.empty():
            answer = to_json(self._answers.get())
            sayings.append(LiveMessage(self._topics.acknowledgement, answer, _ANSWER_EXPIRES_S))
        return sayings
