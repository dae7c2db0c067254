"""How a command looks: its text, checked; what is wrong with it, told."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel

from agent.errors import CommandRefusedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from pydantic_core import ErrorDetails

A = TypeVar("A", bound=BaseModel)

MOST_PARTS = 5000
_LONGEST = 64 * 1024
_Text = Annotated[str, Field(min_length=1, max_length=200)]


class Strict(BaseModel):
    """What a command says: nothing unknown, no number as text."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False, alias_generator=to_camel)


class NoArguments(Strict):
    """Of a command that needs none."""


class TriggerArguments(Strict):
    """Of ``trigger``."""

    part_id: _Text | None = None


class ReasonArguments(Strict):
    """Of ``pause`` and ``resume``."""

    reason: _Text | None = None


class ThresholdArguments(Strict):
    """Of ``threshold``: the score above which a part is NotOK; null goes back to the configured one.

    Attributes:
        zone: Of a station that has several: which.
    """

    threshold: Annotated[float, Field(gt=0)] | None
    zone: _Text | None = None


class RollbackArguments(Strict):
    """Of ``rollback``: the hash of a bundle that was served, or its beginning; null takes the one before this.

    Attributes:
        zone: As of ``threshold``.
    """

    bundle: Annotated[str, Field(min_length=8, pattern="^[0-9a-f]*$")] | None = None
    zone: _Text | None = None


class RecalibrateArguments(Strict):
    """Of ``recalibrate``; what is null follows from the configuration.

    Attributes:
        mode: See `calibration.update.refit`.
        backbone: For `teach`: other than the bundle's.
        parts: To collect.
        seconds: To collect for, instead.
        old_weight: What an image of the bundle counts against a part, in the mode ``full``.
        false_reject_rate: Null keeps the bundle's.
        dry_run: Say what would be; change nothing.
        force: Also where something speaks against it.
        cancel: End the one that is under way instead.
        zone: As of ``threshold``.
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
    """Of ``mark``: what the picture of a result shows; the identity of the result, or the beginning of it."""

    result_id: Annotated[str, Field(min_length=8, max_length=64, pattern="^[0-9a-f]*$")]
    label: Literal["good", "defect"]


class Envelope(Strict):
    """Around every command."""

    command_id: Annotated[str, Field(min_length=1, max_length=64)]
    args: dict[str, object] = {}
    expires: int | None = None
    by: _Text | None = None
    token: str | None = None


def envelope_of(text: bytes, *, retained: bool) -> Envelope:
    """What is around the arguments of a command.

    Raises:
        CommandRefusedError: It is none.
    """
    if retained:
        raise CommandRefusedError(
            what="the broker has kept it: nobody gives it now",
            remedy="publish commands without the retain flag; an empty retained message removes this one",
        )
    if len(text) > _LONGEST:
        raise CommandRefusedError(what=f"{len(text)} bytes are no command", remedy="send less than 64 KiB")
    try:
        return Envelope.model_validate_json(text)
    except ValidationError as error:
        raise _malformed(error) from error


def arguments_of(model: type[A], values: Mapping[str, object]) -> A:
    """The arguments of a command.

    Raises:
        CommandRefusedError: They are not those that the command takes.
    """
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise _malformed(error, "args.") from error


def _malformed(error: ValidationError, prefix: str = "") -> CommandRefusedError:
    found = [_problem(prefix, detail) for detail in error.errors()[:5]]
    return CommandRefusedError(
        what=f"malformed: {'; '.join(found)}"[:500],
        remedy='it should be like {"commandId": "17", "args": {}, "expires": 1767225600000}',
    )


def _problem(prefix: str, detail: ErrorDetails) -> str:
    where = prefix + ".".join(str(key) for key in detail["loc"])
    return f"{where}: {detail['msg']}" if detail["loc"] else detail["msg"]


def command_id_of(text: bytes) -> str | None:
    """The identity of a command that is refused, so that its sender knows which."""
    try:
        command_id = json.loads(text[:_LONGEST])["commandId"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return command_id[:64] if isinstance(command_id, str) else None
