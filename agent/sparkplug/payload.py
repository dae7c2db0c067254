"""Sparkplug B payloads: metrics to bytes and back.

The messages are those of the published definition (Eclipse Sparkplug 3.0, chapter 6), without the fields that are not
used here. They have a descriptor pool of their own, so that another copy of the definition in the same process does not
conflict. No type of protobuf leaves this module.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any, TypeAlias

from google.protobuf.descriptor_pb2 import FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message import DecodeError
from google.protobuf.message_factory import GetMessageClass

from agent.errors import SparkplugPayloadError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.descriptor_pb2 import DescriptorProto

Value: TypeAlias = bool | int | float | str | None


class DataType(IntEnum):
    """The types of metrics in use, numbered as in Sparkplug B."""

    INT32 = 3
    INT64 = 4
    DOUBLE = 10
    BOOLEAN = 11
    STRING = 12
    DATE_TIME = 13


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One value.

    Attributes:
        value: As ``type`` says; `DataType.DATE_TIME` is milliseconds since 1970, UTC.
        timestamp_ms: When it was taken.
        is_historical: It is not the current value.
    """

    name: str
    type: DataType
    value: Value
    timestamp_ms: int
    is_historical: bool = False


# name, number, type
_METRIC_FIELDS = (
    ("name", 1, FieldDescriptorProto.TYPE_STRING),
    ("timestamp", 3, FieldDescriptorProto.TYPE_UINT64),
    ("datatype", 4, FieldDescriptorProto.TYPE_UINT32),
    ("is_historical", 5, FieldDescriptorProto.TYPE_BOOL),
    ("is_null", 7, FieldDescriptorProto.TYPE_BOOL),
    ("int_value", 10, FieldDescriptorProto.TYPE_UINT32),
    ("long_value", 11, FieldDescriptorProto.TYPE_UINT64),
    ("double_value", 13, FieldDescriptorProto.TYPE_DOUBLE),
    ("boolean_value", 14, FieldDescriptorProto.TYPE_BOOL),
    ("string_value", 15, FieldDescriptorProto.TYPE_STRING),
)
_PAYLOAD_FIELDS = (
    ("timestamp", 1, FieldDescriptorProto.TYPE_UINT64),
    ("seq", 3, FieldDescriptorProto.TYPE_UINT64),
)
_VALUE_FIELD = {
    DataType.INT32: "int_value",
    DataType.INT64: "long_value",
    DataType.DOUBLE: "double_value",
    DataType.BOOLEAN: "boolean_value",
    DataType.STRING: "string_value",
    DataType.DATE_TIME: "long_value",
}
_MASK = {DataType.INT32: 2**32 - 1, DataType.INT64: 2**64 - 1, DataType.DATE_TIME: 2**64 - 1}


def _payload_class() -> Any:  # noqa: ANN401 - a class made at run time
    file = FileDescriptorProto(name="sparkplug_b.proto", package="org.eclipse.tahu.protobuf", syntax="proto2")
    payload = file.message_type.add(name="Payload")
    _add_fields(payload, _PAYLOAD_FIELDS)
    _add_fields(payload.nested_type.add(name="Metric"), _METRIC_FIELDS)
    payload.field.add(
        name="metrics",
        number=2,
        type=FieldDescriptorProto.TYPE_MESSAGE,
        type_name=f".{file.package}.Payload.Metric",
        label=FieldDescriptorProto.LABEL_REPEATED,
    )
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.Payload"))


def _add_fields(
    message: DescriptorProto, fields: Iterable[tuple[str, int, FieldDescriptorProto.Type.ValueType]]
) -> None:
    for name, number, type_ in fields:
        message.field.add(name=name, number=number, type=type_, label=FieldDescriptorProto.LABEL_OPTIONAL)


_Payload = _payload_class()


def encode(metrics: Iterable[Metric], timestamp_ms: int, seq: int | None, *, with_types: bool) -> bytes:
    """The bytes of one message.

    Args:
        metrics: Its metrics.
        timestamp_ms: When it is sent.
        seq: 0 to 255; None for an NDEATH, which has none.
        with_types: Name the types of the metrics, as births and deaths do.
    """
    payload = _Payload(timestamp=timestamp_ms)
    if seq is not None:
        payload.seq = seq
    for metric in metrics:
        _fill(payload.metrics.add(), metric, with_type=with_types)
    encoded: bytes = payload.SerializeToString()
    return encoded


def decode(payload: bytes) -> dict[str, Value]:
    """The values of a command by name; integers without their sign, as they are in the message.

    Raises:
        SparkplugPayloadError: These bytes are not a Sparkplug B payload.
    """
    try:
        message = _Payload.FromString(payload)
    except DecodeError as error:
        raise SparkplugPayloadError(
            what=f"{len(payload)} bytes are not a Sparkplug B payload: {error}",
            remedy="send what the published definition sparkplug_b.proto describes",
        ) from error
    return {metric.name: _value_in(metric) for metric in message.metrics}


def _fill(target: Any, metric: Metric, *, with_type: bool) -> None:  # noqa: ANN401 - a message made at run time
    target.name = metric.name
    target.timestamp = metric.timestamp_ms
    if with_type:
        target.datatype = metric.type
    if metric.is_historical:
        target.is_historical = True
    value = metric.value
    if value is None:
        target.is_null = True
        return
    if isinstance(value, str):
        value = value.encode(errors="replace").decode()  # a lone surrogate, say from a file name, has no UTF-8
    elif metric.type in _MASK:
        value = int(value) & _MASK[metric.type]  # two's complement in an unsigned field
    setattr(target, _VALUE_FIELD[metric.type], value)


def _value_in(metric: Any) -> Value:  # noqa: ANN401 - as above
    for field in ("boolean_value", "int_value", "long_value", "double_value", "string_value"):
        if metric.HasField(field):
            value: Value = getattr(metric, field)
            return value
    return None
