"""How fast records reach a real broker, and what recording them costs the camera's loop meanwhile.

Throughput: records as a station makes them are put, a publisher is started, and the time is taken from its first
record at the broker to its last: as the agent does it, which leaves the processor to the inspection, and as fast as it
goes. Against it paho alone, publishing the same bytes with QoS 1 and as many under way.

Cost: while the publisher drains a long queue, a thread like the camera's puts a result every few milliseconds, and now
and then an alert, which is flushed to disk. By turns with each it commits the same row with SQLite alone, to a file of
its own in the same folder, so that both meet the same neighbours.
"""

from __future__ import annotations

import argparse
import socket
import sqlite3
import tempfile
import time
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from loop import dialogue_of, mosquitto_binary, running
from paho.mqtt.client import Client, MQTTv5
from paho.mqtt.enums import CallbackAPIVersion, MQTTErrorCode
from rich import box
from rich.console import Console
from rich.table import Table

from agent.backoff import DEFAULT_PACE, BackoffLimits
from agent.messages.records import Alert, DefectRegion, Evaluation, Result, ResultCode, to_json
from agent.messages.topics import Topics
from agent.mqtt.connect import BrokerSettings
from agent.mqtt.publisher import Publisher, Station
from agent.outbox.outbox import Kind, Outbox
from agent.trigger.plc_handshake import Handshake

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

RECORDS = 20_000
ROUNDS = 3
PUTS = 3000
_PUT_EVERY_S = 0.003
_ALERT_EVERY = 20
_DEFECT_EVERY = 20
_WITHIN_S = 300.0
_TOPICS = Topics("acme/north/press/line2/cell4/vision/station1")
_UNBOUNDED = BackoffLimits(records_per_s=float("inf"))
_UNDER_WAY = 20
"""As many as mosquitto allows by default, to the publisher and to paho."""
_BARE = """
CREATE TABLE record (
    id INTEGER PRIMARY KEY, record_id TEXT NOT NULL UNIQUE, kind TEXT NOT NULL, topic TEXT NOT NULL,
    payload TEXT NOT NULL, created_at_ms INTEGER NOT NULL
)
"""


@dataclass
class Rates:
    """Records a second that the broker acknowledged, one of each round.

    Attributes:
        paced: Through outbox and publisher, as the agent does it.
        outbox: The same as fast as it goes.
        paho: The same bytes by paho alone.
        payload_bytes: Of a record, on average.
    """

    paced: list[float] = field(default_factory=list)
    outbox: list[float] = field(default_factory=list)
    paho: list[float] = field(default_factory=list)
    payload_bytes: float = 0.0

    @property
    def ratio(self) -> float:
        """How much of paho's rate is left; the best round of each."""
        return max(self.outbox) / max(self.paho)


@dataclass
class Costs:
    """Milliseconds of each put, and of each bare commit beside it."""

    put_ms: dict[Kind, list[float]] = field(default_factory=lambda: {"result": [], "alert": []})
    bare_ms: dict[Kind, list[float]] = field(default_factory=lambda: {"result": [], "alert": []})
    drained: int = 0


def measure_rates(mosquitto: str, count: int = RECORDS, rounds: int = ROUNDS) -> Rates:
    """Outbox and paho by turns."""
    rates = Rates()
    messages = [(topic, payload) for _, _, topic, payload in _records(count)]
    rates.payload_bytes = float(np.mean([len(payload) for _, payload in messages]))
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(running(mosquitto, folder))
        for number in range(rounds):
            rates.paced.append(_rate_of_outbox(folder / f"{number}paced.sqlite", port, count, DEFAULT_PACE))
            rates.outbox.append(_rate_of_outbox(folder / f"{number}.sqlite", port, count, _UNBOUNDED))
            rates.paho.append(_rate_of_paho(port, messages))
    return rates


def measure_costs(mosquitto: str, puts: int = PUTS) -> Costs:
    """What a put takes while the publisher drains all the time."""
    costs = Costs()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        port = stack.enter_context(running(mosquitto, folder))
        outbox = stack.enter_context(Outbox(folder / "outbox.sqlite", max_records=1_000_000))
        bare = stack.enter_context(closing(_bare_database(folder / "bare.sqlite")))
        # Records of the past, so many that they do not run out.
        _put_all(outbox, round(puts * _PUT_EVERY_S * 4000))
        publisher = stack.enter_context(_publisher(outbox, port))
        _wait(lambda: publisher.published)
        for number, (kind, record_id, topic, payload) in enumerate(_records(puts, first=10_000_000)):
            time.sleep(_PUT_EVERY_S)
            if number % 500 == 0:
                bare.execute("PRAGMA wal_checkpoint(PASSIVE)")
            row = (number, record_id, kind, topic, payload, number)
            works = [
                (costs.put_ms, lambda row=row: _put(outbox, row)),
                (costs.bare_ms, lambda row=row: _insert(bare, row)),
            ]
            # By turns the first, which finds the caches cold and others on the cores.
            for durations_ms, work in works if number % 2 else reversed(works):
                durations_ms[kind].append(_timed_ms(work))
            publisher.wake()
        if not outbox.depth():
            message = "the queue ran out: nothing was drained at the end"
            raise RuntimeError(message)
        costs.drained = publisher.published
    return costs


def _records(count: int, first: int = 0) -> Iterator[tuple[Kind, str, str, str]]:
    for seq in range(first, first + count):
        is_defect = seq % _DEFECT_EVERY == 0
        result = Result(
            seq=seq,
            part_id=None,
            created_at_ms=1_790_000_000_000 + seq,
            evaluation=Evaluation.NOT_OK if is_defect else Evaluation.OK,
            score=1234.567890123 + seq,
            threshold=2345.678901234,
            regions=(DefectRegion(120, 96, 48, 32, 9876.54321),) * (2 if is_defect else 0),
            image_ref=f"2026/09/21/{seq:032x}.jpg" if is_defect else None,
            processing_times_ms={"waiting": 0.123, "preprocess": 0.456, "inference": 2.789},
        )
        yield "result", result.record_id, _TOPICS.result, to_json(result.payload())
        if seq % _ALERT_EVERY == 0:
            alert = Alert(type="update", severity=700, cause="defect", started_at_ms=seq, result_id=result.result_id)
            yield "alert", alert.record_id, _TOPICS.alert, to_json(alert.payload())


def _put_all(outbox: Outbox, count: int) -> int:
    """Put results and alerts, all without waiting for the disk; returns how many."""
    total = 0
    for total, (_, record_id, topic, payload) in enumerate(_records(count), 1):
        outbox.put("result", record_id, topic, payload, 0)
        if total % 5000 == 0:
            outbox.checkpoint()
    return total


def _rate_of_outbox(path: Path, port: int, count: int, pace: BackoffLimits) -> float:
    with Outbox(path, max_records=1_000_000) as outbox:
        total = _put_all(outbox, count)
        with _publisher(outbox, port, pace) as publisher:
            _wait(lambda: publisher.published)
            began_s, before = time.monotonic(), publisher.published
            _wait(lambda: publisher.published == total)
            return (total - before) / (time.monotonic() - began_s)


def _rate_of_paho(port: int, messages: list[tuple[str, str]]) -> float:
    """As paho's users write it: its own thread, its own window."""
    client = Client(CallbackAPIVersion.VERSION2, "paho", protocol=MQTTv5, reconnect_on_failure=False)
    client.max_inflight_messages = _UNDER_WAY
    client.max_queued_messages = 0
    client.connect("127.0.0.1", port)
    client.loop_start()
    _wait(client.is_connected)
    began_s = time.monotonic()
    for topic, payload in messages:
        last = client.publish(topic, payload, qos=1)
        if last.rc not in {MQTTErrorCode.MQTT_ERR_SUCCESS, MQTTErrorCode.MQTT_ERR_QUEUE_SIZE}:
            raise ConnectionError(last.rc)
    last.wait_for_publish(_WITHIN_S)
    duration_s = time.monotonic() - began_s
    client.disconnect()
    client.loop_stop()
    return len(messages) / duration_s


def _publisher(outbox: Outbox, port: int, pace: BackoffLimits = DEFAULT_PACE) -> Publisher:
    station = Station(
        session_id="benchmark", version="0", state=lambda: ("running", ""), info=dict, alert_state=dict, health=dict
    )
    settings = BrokerSettings(host="127.0.0.1", port=port, client_id=f"mqtt-{socket.gethostname()}")
    handshake = Handshake(1000, lambda: ResultCode.TOO_LATE)
    dialogue = dialogue_of(_TOPICS, handshake, Path(tempfile.mkdtemp()))
    return Publisher(settings, _TOPICS, outbox, station, dialogue, pace)


def _bare_database(path: Path) -> sqlite3.Connection:
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("PRAGMA journal_mode = WAL")
    database.execute("PRAGMA synchronous = NORMAL")
    database.execute(_BARE)
    return database


def _insert(database: sqlite3.Connection, row: tuple[int, str, Kind, str, str, int]) -> None:
    if row[2] == "alert":
        database.execute("PRAGMA synchronous = FULL")
    database.execute("INSERT INTO record VALUES (?, ?, ?, ?, ?, ?)", row)
    if row[2] == "alert":
        database.execute("PRAGMA synchronous = NORMAL")


def _put(outbox: Outbox, row: tuple[int, str, Kind, str, str, int]) -> None:
    _, record_id, kind, topic, payload, created_at_ms = row
    outbox.put(kind, record_id, topic, payload, created_at_ms)


def _timed_ms(work: Callable[[], None]) -> float:
    began_ns = time.perf_counter_ns()
    work()
    return (time.perf_counter_ns() - began_ns) / 1e6


def _wait(condition: Callable[[], object]) -> None:
    deadline_s = time.monotonic() + _WITHIN_S
    while not condition():
        if time.monotonic() > deadline_s:
            message = f"waited {_WITHIN_S:g} s in vain"
            raise TimeoutError(message)
        time.sleep(0.002)


def _table(*titles: str) -> Table:
    table = Table(titles[0], box=box.MARKDOWN)
    for title in titles[1:]:
        table.add_column(title, justify="right")
    return table


def main() -> None:
    """Print two tables: rates and costs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--records", type=int, default=RECORDS, help="in the outbox when the publisher starts")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of outbox and of paho, by turns; the best count")
    parser.add_argument("--puts", type=int, default=PUTS, help="results that are put while the publisher drains")
    arguments = parser.parse_args()
    binary = mosquitto_binary()
    if binary is None:
        parser.error("mosquitto is not installed: apt-get install mosquitto")
    console = Console(width=120, highlight=False)

    rates = measure_rates(binary, arguments.records, arguments.rounds)
    table = _table("records a second", "as the agent", "as fast as it goes", "paho alone", "ratio of these")
    table.add_row(
        f"{rates.payload_bytes:.0f} bytes each, QoS 1",
        f"{max(rates.paced):.0f}",
        f"{max(rates.outbox):.0f}",
        f"{max(rates.paho):.0f}",
        f"{rates.ratio:.2f}",
    )
    console.print(table)

    costs = measure_costs(binary, arguments.puts)
    table = _table("milliseconds", "put p50", "put p99", "SQLite alone p50", "p99", "ratio of p50")
    for kind, put_ms in costs.put_ms.items():
        put_p50, put_p99 = np.percentile(put_ms, (50, 99))
        bare_p50, bare_p99 = np.percentile(costs.bare_ms[kind], (50, 99))
        cells = (put_p50, put_p99, bare_p50, bare_p99, put_p50 / bare_p50)
        table.add_row(f"{kind} ({len(put_ms)})", *(f"{cell:.3f}" for cell in cells))
    console.print(table)


if __name__ == "__main__":
    main()
