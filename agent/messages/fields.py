"""What the message classes are made of: a base class that reads and writes JSON objects, and the types of their fields.

A message is a plain dataclass, so building one checks nothing: a station that has something odd to report reports it.
pydantic writes it, reads it from another station, and describes it as JSON Schema, all from the same annotations.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, PlainSerializer, Strict, TypeAdapter

if TYPE_CHECKING:
    from typing_extensions import Self

_YEAR_3000_MS = 32_503_680_000_000


class Message:
    """A JSON object on the wire; the subclasses are frozen dataclasses whose fields stand in the order of the keys."""

    __slots__ = ()

    def payload(self) -> dict[str, Any]:
        """The JSON object to publish."""
        payload: dict[str, Any] = adapter(type(self)).dump_python(self, mode="json", by_alias=True)
        return payload

    @classmethod
    def read(cls, content: object) -> Self:
        """The message that a JSON object is; unknown keys are ignored.

        Raises:
            pydantic.ValidationError: A key is missing, or a value has another type.
        """
        message: Self = adapter(cls).validate_python(content)
        return message


_adapters: dict[type[Message], TypeAdapter[Any]] = {}


def adapter(message: type[Message]) -> TypeAdapter[Any]:
    """The pydantic adapter of a message class, which takes milliseconds to build: each is built once."""
    if message not in _adapters:
        _adapters[message] = TypeAdapter(message)
    return _adapters[message]


def key(name: str, description: str, unit: str | None = None) -> Any:  # noqa: ANN401 - as `pydantic.Field`
    """The JSON key of a field, and its meaning and unit for the schema."""
    return Field(alias=name, description=description, json_schema_extra={"unit": unit} if unit else None)


def finite_or_none(value: float) -> float | None:
    """The number as JSON can carry it: NaN and infinity become None."""
    number = float(value)
    return number if math.isfinite(number) else None


def _nan_if_null(value: object) -> object:
    return math.nan if value is None else value


Int: TypeAlias = Annotated[int, Strict()]
Bool: TypeAlias = Annotated[bool, Strict()]
Text: TypeAlias = Annotated[str, Strict()]
Number: TypeAlias = Annotated[
    float, Strict(), BeforeValidator(_nan_if_null), PlainSerializer(finite_or_none, return_type=float | None)
]
"""NaN (no number) in Python, null in JSON; infinite becomes null, too."""
TimeMs: TypeAlias = Annotated[int, Strict(), Field(ge=0, le=_YEAR_3000_MS)]
"""Milliseconds since 1970, UTC."""
