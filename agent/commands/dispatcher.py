"""Checks commands from people and controllers, logs them for the audit, carries them out and answers them.

Everyone who may publish on ``cmd/`` at the broker may command. What changes the inspection can be excluded, or need a
token. The same commands come from the command line of this device, where the operating system decides who may.
"""

from __future__ import annotations

import hmac
import logging
import threading
import time
from collections import Counter, OrderedDict
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias, TypeVar

from pydantic import BaseModel

from agent.clock import now_ms
from agent.commands.schema import arguments_of, command_id_of, envelope_of
from agent.errors import AuditError, CommandRefusedError
from agent.messages.payloads import CommandAck

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Mapping

    from agent.audit.log import AuditLog
    from agent.commands.schema import Envelope
    from agent.messages.payloads import CommandId
    from agent.messages.records import Payload
    from calibration.errors import ShiftwatchError

A = TypeVar("A", bound=BaseModel)
Via: TypeAlias = Literal["mqtt", "local"]
Effect: TypeAlias = "Callable[[], object]"

log = logging.getLogger(__name__)

_REMEMBERED = 1000
_LONGEST_NAME = 64


class Command(NamedTuple):
    """A command that is well-formed and allowed.

    Attributes:
        command_id: None if it could not be read; then the command is refused.
        by: The person who gave it, as stated by the command or the operating system.
        unread_ms: How long it may have waited while the agent stood still.
    """

    command_id: CommandId | None
    name: str
    by: str | None
    unread_ms: int = 0


def final_ack(
    command: Command,
    error: ShiftwatchError | None = None,
    audit_hash: str | None = None,
    figures: Payload | None = None,
) -> Payload:
    """The final answer to a command that takes time."""
    return CommandAck(
        command_id=command.command_id,
        command=command.name,
        accepted=error is None,
        error=None if error is None else error.one_line,
        progress=1.0,
        audit_hash=audit_hash,
        figures=figures,
    ).payload()


class Action(NamedTuple):
    """The effect of a command.

    Attributes:
        arguments: Schema of its arguments.
        prepare: Returns the effect, which must be quick; None if nothing would change. Both raise CommandRefusedError,
            with the reason, if the command cannot be carried out; only ``prepare`` does so before the command is
            logged.
        changes_station: It is logged for the audit, and needs the token if there is one.
        takes_time: Another answer follows when it is done.
    """

    arguments: type[BaseModel]
    prepare: Callable[[Command, BaseModel], Effect | None]
    changes_station: bool = True
    takes_time: bool = False


def action(
    arguments: type[A],
    prepare: Callable[[Command, A], Effect | None],
    *,
    changes_station: bool = True,
    takes_time: bool = False,
) -> Action:
    """An action whose arguments have a type."""

    def checked(command: Command, given: BaseModel) -> Effect | None:
        assert isinstance(given, arguments)  # noqa: S101 - `CommandDispatcher` has just parsed it
        return prepare(command, given)

    return Action(arguments, checked, changes_station, takes_time)


class CommandDispatcher:
    """Answers each command once; safe from any thread.

    Args:
        actions: By name, the last level of the topic.
        audit: Receives commands before they are carried out.
        accepted: Names of the commands that are accepted over MQTT.
        token: Required for changes of the station over MQTT; None requires none.
        clock_ms: Wall clock.

    Attributes:
        refused: Number of refused commands, by name; those that do not exist are ``unknown``.
    """

    def __init__(
        self,
        actions: Mapping[str, Action],
        audit: AuditLog,
        accepted: Collection[str],
        token: str | None = None,
        clock_ms: Callable[[], int] = now_ms,
    ) -> None:
        self.refused: Counter[str] = Counter()
        self._actions = actions
        self._audit = audit
        self._accepted = accepted
        self._token = token
        self._clock_ms = clock_ms
        # What is written down may wait for a disk; a trigger, which is not, must not wait for it.
        self._locks = {changes_station: threading.Lock() for changes_station in (False, True)}
        self._answered: OrderedDict[tuple[str, CommandId], Payload] = OrderedDict()
        self._refusals = _Bucket()

    def answer(  # noqa: PLR0913 - the message, and all that is known about it
        self,
        name: str,
        text: bytes,
        *,
        retained: bool = False,
        via: Via = "mqtt",
        user: str | None = None,
        unread_ms: int = 0,
    ) -> Payload:
        """Carry out a command, or refuse it; returns the answer for ``cmd/ack``.

        A command that is delivered again gets the same answer, and is not carried out again.

        Args:
            name: Last level of the topic.
            text: The message.
            retained: It is a retained message.
            via: Origin of the command.
            user: Who gave it, as the operating system reports; None takes the word of the command.
            unread_ms: How long it may have waited while the agent stood still.
        """
        with self._locks[self.may_wait(name)]:
            try:
                self._check_known(name)
                envelope = envelope_of(text, retained=retained)
                return self._answer(envelope, Command(envelope.command_id, name, user or envelope.by, unread_ms), via)
            except CommandRefusedError as refusal:
                return self._refuse(Command(command_id_of(text), name, user), refusal, via)

    def may_wait(self, name: str) -> bool:
        """Whether the answer may have to wait for a disk; that to a trigger never does."""
        return name in self._actions and self._actions[name].changes_station

    def _check_known(self, name: str) -> None:
        if name not in self._actions:
            raise CommandRefusedError(
                what=f"there is no command {name[:_LONGEST_NAME]!r}", remedy=f"there are: {', '.join(self._actions)}"
            )

    def _answer(self, envelope: Envelope, command: Command, via: Via) -> Payload:
        key = (command.name, envelope.command_id)
        if key not in self._answered:
            self._answered[key] = self._carry_out(envelope, command, via)
            if len(self._answered) > _REMEMBERED:
                self._answered.popitem(last=False)
        return self._answered[key]

    def _carry_out(self, envelope: Envelope, command: Command, via: Via) -> Payload:
        name = command.name
        act = self._allowed(name, envelope, via)
        arguments = arguments_of(act.arguments, envelope.args)
        effect = act.prepare(command, arguments)
        audit_hash = None
        if effect is not None and act.changes_station:
            audit_hash = self._write("command", command, via, args=arguments.model_dump(by_alias=True))
            log.info("command %s%s", name, f" by {command.by}" if command.by else "")
        if effect is not None:
            effect()
        return CommandAck(
            command_id=envelope.command_id,
            command=name,
            accepted=True,
            progress=0.0 if act.takes_time else None,
            audit_hash=audit_hash,
        ).payload()

    def _allowed(self, name: str, envelope: Envelope, via: Via) -> Action:
        act = self._actions[name]
        late_ms = 0 if envelope.expires is None else self._clock_ms() - envelope.expires
        if late_ms > 0:
            raise CommandRefusedError(
                what=f"expired {late_ms} ms ago by this device's clock",
                remedy="give it again; if it happens each time, set both clocks by NTP",
            )
        if via == "mqtt":
            self._authorise(name, act, envelope.token)
        return act

    def _authorise(self, name: str, act: Action, token: str | None) -> None:
        if name not in self._accepted:
            raise CommandRefusedError(
                what=f"{name} is not accepted over MQTT",
                remedy="give it on the device, or add it to commands.accept in its configuration",
            )
        is_known = self._token is None or hmac.compare_digest((token or "").encode(), self._token.encode())
        if act.changes_station and not is_known:
            raise CommandRefusedError(
                what="the token is wrong" if token else f"{name} needs a token",
                remedy="send the content of the device's commands.token_file as `token`",
            )

    def _write(self, event: str, command: Command, via: Via, **more: object) -> str:
        try:
            return self._audit.append(
                event, command=command.name, commandId=command.command_id, by=command.by, via=via, **more
            )
        except AuditError as error:
            raise CommandRefusedError(what=f"it cannot be logged: {error.what}", remedy=error.remedy) from error

    def _refuse(self, command: Command, refusal: CommandRefusedError, via: Via) -> Payload:
        name = command.name
        self.refused[name if name in self._actions else "unknown"] += 1
        audit_hash = None
        if name in self._actions and self._actions[name].changes_station and self._refusals.take():
            log.warning("command %s refused: %s", name, refusal.what)
            try:
                audit_hash = self._write(
                    "refused", command, via, reason=refusal.what, notWritten=self._refusals.spilt()
                )
            except CommandRefusedError as error:
                log.warning("%s", error.what)
        return CommandAck(
            command_id=command.command_id,
            command=name[:_LONGEST_NAME],
            accepted=False,
            error=refusal.one_line,
            audit_hash=audit_hash,
        ).payload()


class _Bucket:
    """Admits a hundred refusals at once, then one every ten seconds, so that they cannot fill the disk."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._left = 100.0
        self._at_s = clock_s()
        self._spilt = 0

    def take(self) -> bool:
        now_s = self._clock_s()
        self._left = min(100.0, self._left + (now_s - self._at_s) / 10)
        self._at_s = now_s
        if self._left < 1:
            self._spilt += 1
            return False
        self._left -= 1
        return True

    def spilt(self) -> int:
        """Number of refusals that were not admitted since the last call."""
        spilt, self._spilt = self._spilt, 0
        return spilt
