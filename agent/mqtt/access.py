"""Whether a broker lets a station in, and lets it publish and read what it needs."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import TYPE_CHECKING

from agent.errors import BrokerRefusedError
from agent.messages.payloads import CommandAck, PlcMessage, Status
from agent.messages.records import Evaluation, ResultCode, new_id, to_json
from agent.mqtt.connect import connect

if TYPE_CHECKING:
    from agent.messages.topics import Topics
    from agent.mqtt.connect import BrokerSettings
    from agent.mqtt.connection import Connection

_ANSWERED_WITHIN_S = 5.0
_REMEDY = "allow the station's user its topics at the broker, or use other levels for its topics"


def try_access(settings: BrokerSettings, topics: Topics) -> str:
    """Connect, publish what a station without a bundle would, and read one message back; then leave.

    Nothing is retained, and what a controller reads rejects parts: there is no verdict. The message that is read back
    is the answer to a command that was never given; some brokers let a client subscribe, and then send it nothing. The
    client id is one of its own, as that of the station would disconnect one that runs already.

    Returns:
        What works, in words.

    Raises:
        BrokerUnreachableError: No answer, in time or in MQTT.
        BrokerRefusedError: It refuses the client, its certificate cannot be trusted, or it refuses a topic.
    """
    start_s = time.monotonic()
    connection = connect(replace(settings, client_id=f"{settings.client_id}-setup"), None)
    took_ms = 1000 * (time.monotonic() - start_s)
    try:
        _try_topics(connection, topics, settings.address)
    finally:
        connection.close()
    works = "may publish and read" if settings.protocol == "5" else "may publish answers to commands, and read them"
    return f"{settings.address} accepts the station in {took_ms:.0f} ms; it {works} below {topics.root}"


def _try_topics(connection: Connection, topics: Topics, address: str) -> None:
    identity = new_id()
    asked: dict[int | None, str] = {connection.subscribe(topics.commands, 1): f"read {topics.commands}"}
    for topic, payload in (
        (topics.status, Status(online=True, state="not taught").payload()),
        (topics.plc, _no_verdict()),
        (topics.acknowledgement, CommandAck(command_id=identity, command="setup", accepted=False).payload()),
    ):
        asked[connection.publish(topic, to_json(payload), qos=1, retain=False)] = f"publish on {topic}"
    asked.pop(None, None)  # larger than this broker takes
    deadline_s, is_back = time.monotonic() + _ANSWERED_WITHIN_S, False
    while (asked or not is_back) and connection.lost is None and time.monotonic() < deadline_s:
        for answer in connection.service(0.2):
            about = asked.pop(answer.mid, "")
            if answer.refused is not None:
                raise _refused(address, f"{about}: {answer.refused.rpartition(': ')[2]}")
        is_back = is_back or any(identity.encode() in each.payload for each in connection.take_received())
    if asked:
        raise BrokerRefusedError(
            what=f"{address} lets the station in, but not more: {connection.lost or 'it does not answer'}",
            remedy="look at the broker's log",
            reason=connection.lost or "no answer",
        )
    if not is_back:
        raise _refused(address, f"read {topics.commands}: what was published there does not come back")


def _refused(address: str, what: str) -> BrokerRefusedError:
    return BrokerRefusedError(
        what=f"{address} lets the station in, but does not let it {what}", remedy=_REMEDY, reason=what
    )


def _no_verdict() -> dict[str, object]:
    none = PlcMessage(
        seq=None,
        part_id=None,
        evaluation=Evaluation.NOT_DECIDABLE,
        code=ResultCode.NOT_TAUGHT,
        score=float("nan"),
        valid=False,
        age_ms=0,
    )
    return none.payload()
