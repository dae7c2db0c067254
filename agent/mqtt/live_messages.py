"""Messages that are published now or never: answers to parts and to commands."""

from __future__ import annotations

import queue
import threading
import time
from typing import TYPE_CHECKING, NamedTuple

from agent.commands.schema import command_id_of
from agent.messages.payloads import CommandAck
from agent.messages.records import to_json

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.commands.dispatcher import CommandDispatcher
    from agent.messages.records import Payload
    from agent.messages.topics import Topics
    from agent.mqtt.connection import Received
    from agent.trigger.plc_handshake import Handshake
    from agent.trigger.standstill import Standstill

_PLC_EXPIRES_S = 1
_ACK_EXPIRES_S = 60
_MOST_WAITING = 100


class LiveMessage(NamedTuple):
    """One message; the broker must not deliver it later than ``expires_s``."""

    topic: str
    payload: str
    expires_s: int


class LiveMessages:
    """Used by the publisher's thread; `follow_up` by any.

    Args:
        give_up: Called before each `take`, to give up parts that are overdue.
        standstill: Where parts are triggered by commands: finds those that may have waited unread.

    Attributes:
        notify: Called when a command is answered that was carried out by the other thread.
    """

    def __init__(
        self,
        topics: Topics,
        handshake: Handshake,
        commands: CommandDispatcher,
        give_up: Callable[[], object],
        standstill: Standstill | None = None,
    ) -> None:
        self.subscription = topics.commands
        self._topics = topics
        self._handshake = handshake
        self._commands = commands
        self._give_up = give_up
        self._standstill = standstill
        self.notify: Callable[[], object] = lambda: None
        self._waiting: queue.Queue[tuple[str, Received]] = queue.Queue(_MOST_WAITING)
        self._thread: threading.Thread | None = None
        self._acks: queue.SimpleQueue[Payload] = queue.SimpleQueue()

    @property
    def due_at_s(self) -> float:
        """When `take` is to be called without being woken, on the monotonic clock."""
        if self._standstill is None:
            return self._handshake.due_at_s
        return min(self._handshake.due_at_s, time.monotonic() + self._standstill.wait_s)

    def discard(self) -> None:
        """Begin a connection: drop the answers to parts that the last one did not take, as they are too old."""
        self._handshake.discard()
        if self._standstill is not None:
            self._standstill.begin()

    def receive(self, message: Received) -> None:
        """Carry out a command; its answer is in the next `take`, or in a later one if it may wait for a disk."""
        if message.topic == self._topics.acknowledgement:  # our own, which the subscription brings back
            return
        if message.retained and not message.payload:  # the broker has forgotten a retained command
            return
        name = message.topic.rpartition("/")[2]
        self._look()
        if self._commands.may_wait(name):
            self._hand_over(name, message)
            return
        unread_ms = 0 if self._standstill is None else self._standstill.unread_ms()
        self.follow_up(self._commands.answer(name, message.payload, retained=message.retained, unread_ms=unread_ms))

    def _hand_over(self, name: str, message: Received) -> None:
        """Let another thread carry out a command, after those before it."""
        if self._thread is None:
            self._thread = threading.Thread(target=self._carry_out, name="commands", daemon=True)
            self._thread.start()
        try:
            self._waiting.put_nowait((name, message))
        except queue.Full:
            why = "too many commands wait for the disk; give it again when the others are answered"
            self.follow_up(
                CommandAck(command_id=command_id_of(message.payload), command=name, accepted=False, error=why).payload()
            )

    def _carry_out(self) -> None:
        while True:
            name, message = self._waiting.get()
            self.follow_up(self._commands.answer(name, message.payload, retained=message.retained))
            self.notify()

    def follow_up(self, answer: Payload) -> None:
        """Publish another answer to a command."""
        self._acks.put(answer)

    def take(self) -> list[LiveMessage]:
        """What is to be published now, in order; called right before each wait for messages."""
        self._look()
        self._give_up()
        messages = [LiveMessage(self._topics.plc, to_json(answer), _PLC_EXPIRES_S) for answer in self._handshake.take()]
        while not self._acks.empty():
            messages.append(LiveMessage(self._topics.acknowledgement, to_json(self._acks.get()), _ACK_EXPIRES_S))
        return messages

    def _look(self) -> None:
        if self._standstill is not None and self._standstill.look():
            self._handshake.give_up_all()
