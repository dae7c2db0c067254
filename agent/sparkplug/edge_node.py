"""A Sparkplug B 3.0 edge node with one device, over a connection of its own.

    connect -> subscribe to commands and the primary host's state -> births, once the host is online
    -> what waited, marked historical -> new data -> deaths -> connect

The node is the agent: its metrics are ``status/``, ``info/`` and ``health/``. The device is the inspection:
``result/`` and ``alert/``. Records wait in an outbox of their own until the broker has them.
"""

from __future__ import annotations

import json
import logging
import time
from typing import TYPE_CHECKING

from agent.backoff import DEFAULT_PACE
from agent.clock import now_ms
from agent.errors import SparkplugPayloadError
from agent.mqtt.client_thread import BrokerClient
from agent.mqtt.connect import Will
from agent.sparkplug.delivery import SparkplugDelivery
from agent.sparkplug.metrics import data_types, metrics_of
from agent.sparkplug.payload import decode
from agent.sparkplug.session import REBIRTH, PrimaryHost, Session, death_payload

if TYPE_CHECKING:
    from agent.backoff import BackoffLimits
    from agent.messages.records import Payload
    from agent.messages.topics import SparkplugTopics
    from agent.mqtt.connect import BrokerSettings
    from agent.mqtt.connection import Acknowledgement, Connection, Received
    from agent.mqtt.publisher import Station
    from agent.outbox.outbox import Kind, Outbox
    from agent.sparkplug.bd_seq import BdSeq
    from agent.sparkplug.payload import Metric

log = logging.getLogger(__name__)

_DEVICE: tuple[Kind, ...] = ("result", "alert")


class EdgeNode(BrokerClient):
    """Keeps the Sparkplug session, from ``start`` to ``stop``.

    Args:
        settings: The client id must not be that of the plain connection.
        outbox: Not that of the plain connection, whose delivered records may still wait here.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - as the publisher's, and the number that outlives it
        self,
        settings: BrokerSettings,
        topics: SparkplugTopics,
        outbox: Outbox,
        station: Station,
        bd_seq: BdSeq,
        pace: BackoffLimits = DEFAULT_PACE,
    ) -> None:
        super().__init__(settings, outbox, pace, "sparkplug")
        data_types()  # now, while no part waits
        self._topics = topics
        self._station = station
        self._bd_seq = bd_seq
        self._newest: dict[Kind, tuple[int, str]] = {}
        self._health_at_s = 0.0

    def put(self, kind: Kind, record_id: str, topic: str, payload: str, created_at_ms: int) -> bool:
        """Store a record, as `Outbox.put` does, and send it; from any thread."""
        stored = self._outbox.put(kind, record_id, topic, payload, created_at_ms)
        self._newest[kind] = created_at_ms, payload
        self.wake()
        return stored

    def _will(self) -> Will:
        return Will(self._topics.node("DEATH"), death_payload(self._bd_seq.to_use()), retain=False)

    def _serve(self, connection: Connection) -> None:
        session = Session(connection, self._topics, self._bd_seq.note_accepted())
        delivery = SparkplugDelivery(connection, session, self._outbox, self._topics.node("CMD"), self._pace.window)
        host = PrimaryHost(is_awaited=self._topics.host_state is not None)
        connection.subscribe(self._topics.node("CMD"), 1)
        if self._topics.host_state is not None:
            connection.subscribe(self._topics.host_state, 1)
        while connection.lost is None and not self._is_done(session, delivery, host):
            if host.is_online:
                self._publish_node(session, connection)
                delivery.send()
            answers = connection.service(
                self._idle_s(self._due_at_s(session, connection), delivery.due_at_s), self._wake
            )
            self._note_refusals(answers)
            self.published += delivery.settle(answers)
            for message in connection.take_received():
                self._receive(message, session, host)
            self._checkpoint()
            self.last_error = self._limit.complaint or self.last_error
            if delivery.stalled:
                connection.drop("it answers nothing")
        if connection.lost is None:
            if session.is_born:
                session.publish_node_data(self._node_metrics())  # the final counts: captured = results + dropped
            self._publish_last(connection, session.publish_deaths, delivery.settle)

    def _is_done(self, session: Session, delivery: SparkplugDelivery, host: PrimaryHost) -> bool:
        if host.is_online is False and session.is_born:
            log.info("the Sparkplug primary host is offline: records wait until it is back")
            return True
        if self._stop_at_s is None:
            return False
        has_sent_all = delivery.idle and not session.birth_is_due
        return has_sent_all or host.is_online is False or self._is_stop_due

    def _due_at_s(self, session: Session, connection: Connection) -> float:
        return float("inf") if session.birth_is_due or connection.room == 0 else self._health_at_s

    def _publish_node(self, session: Session, connection: Connection) -> None:
        is_due = session.birth_is_due or time.monotonic() >= self._health_at_s
        if connection.room == 0 or not is_due:
            return
        wait_s = self._pace.health_every_s
        if session.birth_is_due:
            session.publish_births(self._node_metrics(), self._device_metrics())
            wait_s = wait_s if session.is_born else self._pace.refused_retry_s
        elif session.is_born:
            session.publish_node_data(self._node_metrics())
        elif not connection.limit.is_certain(self._topics.node("BIRTH")):
            connection.drop("the birth does not fit into what the broker seemed to take")  # it may be something else
        self._health_at_s = time.monotonic() + wait_s

    def _receive(self, message: Received, session: Session, host: PrimaryHost) -> None:
        if message.topic == self._topics.host_state:
            host.update(message.payload)
        elif message.retained:
            log.warning("a Sparkplug command that the broker has kept is ignored: it is not given now")
        else:
            try:
                session.birth_is_due |= decode(message.payload).get(REBIRTH) is True
            except SparkplugPayloadError as error:
                log.warning("a Sparkplug command is ignored: %s", error)

    def _node_metrics(self) -> list[Metric]:
        timestamp_ms = now_ms()
        state, reason = self._station.state()
        if state == "running" and self._outbox.fault is not None:
            state, reason = "fault", f"results cannot be stored: {self._outbox.fault}"
        session = {"sessionId": self._station.session_id, "version": self._station.version}
        return [
            *metrics_of("status", {"state": state, "reason": reason, **session}, timestamp_ms),
            *metrics_of("info", self._station.info(), timestamp_ms),
            *metrics_of("health", self._health(), timestamp_ms),
        ]

    def _health(self) -> Payload:
        """The station's, with the records that wait and were dropped here."""
        health = self._station.health()
        dropped = {f"sparkplug: {reason}": count for reason, count in self._outbox.dropped.items()}
        return {**health, "outboxDepth": self.waiting, "dropped": {**health.get("dropped", {}), **dropped}}

    def _device_metrics(self) -> list[Metric]:
        metrics = []
        for kind in _DEVICE:
            created_at_ms, payload = self._newest.get(kind, (now_ms(), "{}"))
            metrics += metrics_of(kind, json.loads(payload), created_at_ms)
        return metrics

    def _note_refusals(self, answers: list[Acknowledgement]) -> None:
        for answer in answers:
            if answer.refused is not None:
                self._note_down(
                    f"refused: {answer.refused}",
                    f"the broker refuses subscriptions to {self._topics.node('CMD')} or of the primary host's state: "
                    f"{answer.refused}; give {self._settings.client_id!r} the right to read both",
                )
