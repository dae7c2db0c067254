"""The JSON messages as Sparkplug metrics: the same names, ``group/field``, each with a type.

Lists and objects (regions, durations by stage) are JSON text, because a metric that is not in the birth may not be sent
later, and which stages there are shows only with the first result.
"""

from __future__ import annotations

import math
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from agent.messages.payloads import MESSAGES
from agent.messages.records import MS_UTC, to_json
from agent.messages.schema import schema
from agent.messages.shorter import LEFT_OUT_FIRST
from agent.sparkplug.payload import DataType, Metric

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from agent.messages.records import Payload
    from agent.sparkplug.payload import Value

Group: TypeAlias = Literal["result", "alert", "status", "info", "health"]
GROUPS: tuple[Group, ...] = ("result", "alert", "status", "info", "health")

_NOT_METRICS = {"historical", "timestamp", "online"}
"""Sparkplug has its own fields and messages for them."""
_INT32 = {"resultEvaluation", "resultCode", "frames", "severity"}
_DATA_TYPES = {"number": DataType.DOUBLE, "boolean": DataType.BOOLEAN, "integer": DataType.INT64}
_PYTHON_TYPES: Mapping[DataType, tuple[type, ...]] = {
    DataType.INT32: (int,),
    DataType.INT64: (int,),
    DataType.DOUBLE: (float, int),
    DataType.BOOLEAN: (bool,),
    DataType.STRING: (str,),
    DataType.DATE_TIME: (int,),
}


@cache
def data_types() -> Mapping[Group, Mapping[str, DataType]]:
    """The metrics of each group and their types, by field; takes tens of milliseconds, once."""
    definitions = schema()["$defs"]
    return {group: _data_types(definitions[MESSAGES[group].__name__]["properties"]) for group in GROUPS}


def metrics_of(group: Group, payload: Payload, timestamp_ms: int, *, is_historical: bool = False) -> list[Metric]:
    """Every metric of a group; one that the payload lacks, or that is not of its type, is null."""
    return [
        Metric(
            name=f"{group}/{name}",
            type=type_,
            value=_value(payload.get(name), type_),
            timestamp_ms=timestamp_ms,
            is_historical=is_historical,
        )
        for name, type_ in data_types()[group].items()
    ]


def shorter_forms(metrics: Sequence[Metric]) -> Iterator[Sequence[Metric]]:
    """The same metrics with more and more null values, the first being those that a host can do without."""
    for key in LEFT_OUT_FIRST:
        metrics = [replace(each, value=None) if each.name.endswith(f"/{key}") else each for each in metrics]
        yield metrics


def _data_types(fields: Mapping[str, Mapping[str, Any]]) -> dict[str, DataType]:
    return {key: _data_type(key, field) for key, field in fields.items() if key not in _NOT_METRICS}


def _data_type(key: str, field: Mapping[str, Any]) -> DataType:
    if key in _INT32:
        return DataType.INT32
    if field.get("unit") == MS_UTC:
        return DataType.DATE_TIME
    kind = field["anyOf"][0]["type"] if "anyOf" in field else field["type"]
    return _DATA_TYPES.get(kind, DataType.STRING)


def _value(value: Any, type_: DataType) -> Value:  # noqa: ANN401 - any JSON value
    if isinstance(value, (dict, list)):
        value = to_json(value)
    # A record may be years old and from another version: one field that does not fit must not stop the others.
    fits = isinstance(value, _PYTHON_TYPES[type_]) and isinstance(value, bool) == (type_ is DataType.BOOLEAN)
    return value if fits and not (isinstance(value, float) and not math.isfinite(value)) else None
