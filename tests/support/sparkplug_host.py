"""A Sparkplug host application on a real broker, which shares no code with the agent.

The messages are described here anew, from the field numbers of the published definition (Eclipse Sparkplug 3.0, 6.4).
"""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any, cast

from google.protobuf.descriptor_pb2 import DescriptorProto, FieldDescriptorProto, FileDescriptorProto
from google.protobuf.descriptor_pool import DescriptorPool
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.unknown_fields import UnknownFieldSet
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

from tests.support.real_broker import PATIENCE_S, wait_for

INT32, INT64, DOUBLE, BOOLEAN, STRING, DATE_TIME = 3, 4, 10, 11, 12, 13
HOST_ID = "scada"
_PACKAGE = "published"
_PUBLISHED = {
    "Payload": "1 timestamp uint64, 2 metrics [Payload.Metric], 3 seq uint64, 4 uuid string, 5 body bytes",
    "Payload.Metric": "1 name string, 2 alias uint64, 3 timestamp uint64, 4 datatype uint32, 5 is_historical bool, "
    "6 is_transient bool, 7 is_null bool, 8 metadata Payload.MetaData, 9 properties Payload.PropertySet, "
    "10 int_value uint32 |, 11 long_value uint64 |, 12 float_value float |, 13 double_value double |, "
    "14 boolean_value bool |, 15 string_value string |, 16 bytes_value bytes |, 17 dataset_value Payload.DataSet |, "
    "18 template_value Payload.Template |",
    "Payload.MetaData": "1 is_multi_part bool, 2 content_type string, 3 size uint64, 4 seq uint64, 5 file_name string, "
    "6 file_type string, 7 md5 string, 8 description string",
    "Payload.PropertySet": "1 keys [string], 2 values [Payload.PropertyValue]",
    "Payload.PropertyValue": "1 type uint32, 2 is_null bool, 3 int_value uint32 |, 4 long_value uint64 |, "
    "5 float_value float |, 6 double_value double |, 7 boolean_value bool |, 8 string_value string |",
    "Payload.DataSet": "1 num_of_columns uint64, 2 columns [string], 3 types [uint32]",
    "Payload.Template": "1 version string, 2 metrics [Payload.Metric], 4 template_ref string, 5 is_definition bool",
}


def _add_field(message: DescriptorProto, text: str) -> None:
    number, name, kind, *alternative = text.split()
    field = message.field.add(name=name, number=int(number), label=FieldDescriptorProto.LABEL_OPTIONAL)
    if kind.startswith("["):
        kind, field.label = kind.strip("[]"), FieldDescriptorProto.LABEL_REPEATED
    if kind.startswith("Payload"):
        field.type, field.type_name = FieldDescriptorProto.TYPE_MESSAGE, f".{_PACKAGE}.{kind}"
    else:
        field.type = FieldDescriptorProto.Type.Value(f"TYPE_{kind.upper()}")
    if alternative:
        field.oneof_index = 0


def _published_payload() -> Any:  # noqa: ANN401 - a class made at run time
    file = FileDescriptorProto(name="published.proto", package=_PACKAGE, syntax="proto2")
    payload = file.message_type.add(name="Payload")
    for path, fields in _PUBLISHED.items():
        message = payload if path == "Payload" else payload.nested_type.add(name=path.partition(".")[2])
        if "|" in fields:
            message.oneof_decl.add(name="value")
        for field in fields.split(", "):
            _add_field(message, field)
    pool = DescriptorPool()
    pool.Add(file)
    return GetMessageClass(pool.FindMessageTypeByName(f"{_PACKAGE}.Payload"))


PublishedPayload = _published_payload()


@dataclass(frozen=True)
class Said:
    """One metric as the published definition reads it."""

    name: str
    value: object
    datatype: int | None
    timestamp_ms: int
    is_historical: bool


@dataclass(frozen=True)
class Message:
    """One message of an edge node."""

    verb: str
    topic: str
    qos: int
    retained: bool
    seq: int | None
    metrics: tuple[Said, ...]

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - of any type
        return next(metric.value for metric in self.metrics if metric.name == name)

    @property
    def names(self) -> set[str]:
        return {metric.name for metric in self.metrics}

    @property
    def is_historical(self) -> bool:
        (is_historical,) = {metric.is_historical for metric in self.metrics}
        return is_historical


def read(topic: str, payload: bytes, qos: int = 0, *, retained: bool = False) -> Message:
    published = PublishedPayload.FromString(payload)
    assert not any(len(UnknownFieldSet(part)) for part in (published, *published.metrics))
    metrics = tuple(_said(metric) for metric in published.metrics)
    seq = published.seq if published.HasField("seq") else None
    return Message(topic.split("/")[2], topic, qos, retained, seq, metrics)


def _said(metric: Any) -> Said:  # noqa: ANN401 - a message made at run time
    field = metric.WhichOneof("value")
    assert (field is None) == metric.is_null, metric.name
    datatype = metric.datatype if metric.HasField("datatype") else None
    value: Any = None if field is None else getattr(metric, field)
    if field in {"int_value", "long_value"} and value >= 1 << (31 if field == "int_value" else 63):
        value -= 1 << (32 if field == "int_value" else 64)
    assert metric.HasField("timestamp"), metric.name
    return Said(metric.name, value, datatype, metric.timestamp, metric.is_historical)


class HostApplication:
    """Hears everything of Sparkplug, in order, and says what a host says."""

    def __init__(self, port: int, edge_node: str = "acme/station1") -> None:
        self.heard: list[Message] = []
        self._group, self._node = edge_node.split("/")
        self._subscribed = threading.Event()
        self._client = Client(CallbackAPIVersion.VERSION2, reconnect_on_failure=False)
        self._client.max_inflight_messages = 0
        self._client.on_connect = lambda client, *_: client.subscribe("spBv1.0/#", qos=1)
        self._client.on_subscribe = lambda *_: self._subscribed.set()
        self._client.on_message = self._on_message
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._subscribed.wait(PATIENCE_S)

    def on(self, verb: str) -> list[Message]:
        return [message for message in self.heard if message.verb == verb]

    def results(self) -> list[str]:
        """Identities of the results in DDATA, in order."""
        return [message["result/resultId"] for message in self.on("DDATA") if "result/resultId" in message.names]

    def verbs(self) -> list[str]:
        """What was heard, each run of the same once."""
        verbs = [message.verb for message in self.heard]
        return [verb for place, verb in enumerate(verbs) if place == 0 or verbs[place - 1] != verb]

    def say_state(self, timestamp_ms: int, *, online: bool) -> None:
        state = json.dumps({"online": online, "timestamp": timestamp_ms})
        self._client.publish(f"spBv1.0/STATE/{HOST_ID}", state, qos=1, retain=True).wait_for_publish(PATIENCE_S)

    def command(self, name: str = "Node Control/Rebirth", *, retain: bool = False, **value: object) -> None:
        payload = PublishedPayload(timestamp=1)
        payload.metrics.add(name=name, timestamp=1, **(value or {"boolean_value": True}))
        self.send_command(payload.SerializeToString(), retain=retain)

    def send_command(self, payload: bytes, *, retain: bool = False) -> None:
        topic = f"spBv1.0/{self._group}/NCMD/{self._node}"
        self._client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(PATIENCE_S)

    def wait_for(self, verb: str, count: int = 1) -> list[Message]:
        wait_for(lambda: len(self.on(verb)) >= count)
        return self.on(verb)

    def close(self) -> None:
        self._client.disconnect()
        self._client.loop_stop()

    def _on_message(self, _client: Client, _data: object, message: MQTTMessage) -> None:
        if "/STATE/" not in message.topic and "/NCMD/" not in message.topic:
            payload = cast("bytes", message.payload)
            self.heard.append(read(message.topic, payload, message.qos, retained=message.retain))


def check_the_rules(messages: list[Message]) -> None:
    """What holds for every stream of an edge node with one device, whatever happens.

    Births open a session, NBIRTH with seq 0, DBIRTH at once after it; each later message has the next seq; data names
    only metrics of the births; a death has the number of the birth it ends.
    """
    born: set[str] = set()
    birth_number: object = None
    seq: int | None = None
    for place, message in enumerate(messages):
        assert (message.qos, message.retained) == ((1 if message.verb == "NDEATH" else 0), False)
        if message.verb == "NDEATH":
            assert message.seq is None
            assert message.names == {"bdSeq"}
            if seq is not None:
                assert message["bdSeq"] == birth_number
            seq = None
            continue
        if message.verb == "NBIRTH":
            seq, born, birth_number = -1, message.names, message["bdSeq"]
            assert message["Node Control/Rebirth"] is False
            assert messages[place + 1 : place + 2] == [] or messages[place + 1].verb == "DBIRTH"
        assert seq is not None, f"{message.verb} without a birth"
        seq = (seq + 1) % 256
        assert message.seq == seq, message.verb
        if message.verb.endswith("BIRTH"):
            born |= message.names
            assert all(metric.datatype is not None for metric in message.metrics)
            assert [metric.name for metric in message.metrics if metric.is_historical] == []
        else:
            assert message.names <= born
            assert all(metric.datatype is None for metric in message.metrics)
