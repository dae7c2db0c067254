"""The schema of commands: parses their text, and reports what is wrong with it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, PlainValidator, ValidationError
from pydantic.alias_generators import to_camel

from agent.errors import CommandRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

    from agent.messages.payloads import CommandId

A = TypeVar("A", bound=BaseModel)

MOST_PARTS = 5000
_MAX_BYTES = 64 * 1024
_LONGEST_ID = 64
_LARGEST_ID = 2**63
_Text = Annotated[str, Field(min_length=1, max_length=200)]


class Strict(BaseModel):
    """A part of a command; unknown keys and numbers as text are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, alias_generator=to_camel)


class NoArguments(Strict):
    """For a command without arguments."""


class TriggerArguments(Strict):
    """For ``trigger``."""

    part_id: _Text | None = None


class ReasonArguments(Strict):
    """For ``pause``."""

    reason: _Text | None = None


class ThresholdArguments(Strict):
    """For ``threshold``: the score above which a part is NotOK; null restores the configured one."""

    threshold: Annotated[float, Field(gt=0)] | None
    zone: _Text | None = None


class RollbackArguments(Strict):
    """For ``rollback``: the hash of a bundle that was active, or its start; null takes the one before this."""

    bundle: _Text | None = None
    zone: _Text | None = None


class RecalibrateArguments(Strict):
    """For ``recalibrate``; null takes the value of the configuration.

    Attributes:
        mode: See `calibration.update.refit`.
        backbone: For ``teach``: instead of the bundle's.
        parts: Number of parts to collect.
        seconds: Time to collect for, instead of ``parts``.
        old_weight: Weight of an image of the bundle relative to a part, in the mode ``full``.
        false_reject_rate: Null keeps the bundle's.
        dry_run: Report the new bundle, and discard it.
        force: Activate it despite objections.
        cancel: End the recalibration that is under way instead.
    """

    mode: Literal["threshold", "mean", "full", "teach"] = "full"
    backbone: Literal["filterbank"] | None = None
    parts: Annotated[int, Field(ge=1, le=MOST_PARTS)] | None = None
    seconds: Annotated[float, Field(gt=0, le=86_400)] | None = None
    old_weight: Annotated[float, Field(ge=0, le=1000)] | None = None
    false_reject_rate: Annotated[float, Field(gt=0, le=0.5)] | None = None
    dry_run: bool = False
    force: bool = False
    cancel: bool = False
    reason: _Text | None = None
    zone: _Text | None = None


class MarkArguments(Strict):
    """For ``mark``: what the image of a result shows; the identity of the result, or its start; who saw it."""

    result_id: Annotated[str, Field(min_length=8, max_length=64, pattern="^[0-9a-f]*$")]
    label: Literal["good", "defect"]
    by: Annotated[str, Field(max_length=200)] | None = None


def _checked_id(value: object) -> CommandId:
    """The identity of a command; many controllers count, so that it is a number.

    Raises:
        ValueError: It is neither text nor a number, or too long.
    """
    if isinstance(value, str) and 1 <= len(value) <= _LONGEST_ID:
        return value
    if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < _LARGEST_ID:
        return value
    message = f"give text of 1 to {_LONGEST_ID} characters, or a number"
    raise ValueError(message)


class Envelope(Strict):
    """The outer part of every command."""

    command_id: Annotated[str | int | float, PlainValidator(_checked_id)]
    args: dict[str, object] = {}
    expires: int | None = None
    by: _Text | None = None
    token: str | None = None


def envelope_of(text: bytes, *, retained: bool) -> Envelope:
    """The outer part of a command.

    Raises:
        CommandRefusedError: The text is not a command.
    """
    if retained:
        raise CommandRefusedError(
            what="it is a retained message, not a command of now",
            remedy="publish commands without the retain flag; an empty retained message removes this one",
        )
    if len(text) > _MAX_BYTES:
        raise CommandRefusedError(what=f"{len(text)} bytes are too long for a command", remedy="send less than 64 KiB")
    try:
        return Envelope.model_validate_json(text)
    except ValidationError as error:
        remedy = 'send a command such as {"commandId": "17", "args": {}, "expires": 1767225600000}'
        raise _malformed(error, remedy) from error


def arguments_of(model: type[A], values: Mapping[str, object]) -> A:
    """The arguments of a command.

    Raises:
        CommandRefusedError: The command does not take them.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        names = ", ".join(field.alias or name for name, field in model.model_fields.items())
        remedy = f"correct `args`; this command takes {names or 'none'}"
        raise _malformed(error, remedy, "args.") from error


def _malformed(error: ValidationError, remedy: str, prefix: str = "") -> CommandRefusedError:
    found = [_problem(prefix, detail) for detail in error.errors()[:5]]
    return CommandRefusedError(what=f"malformed: {'; '.join(found)}"[:500], remedy=remedy)


def _problem(prefix: str, detail: ErrorDetails) -> str:
    where = prefix + ".".join(str(key) for key in detail["loc"])
    return f"{where}: {detail['msg']}" if detail["loc"] else detail["msg"]


def command_id_of(text: bytes) -> CommandId | None:
    """The identity of a refused command, so that its sender can match the answer."""
    try:
        command_id = json.loads(text[:_MAX_BYTES])["commandId"]
        return _checked_id(command_id[:_LONGEST_ID] if isinstance(command_id, str) else command_id)
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
