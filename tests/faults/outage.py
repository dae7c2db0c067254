"""A station's records during an outage of the broker, in a process of its own, which tells how much memory it has.

    python outage.py FOLDER PORT MINUTES

It puts what so many minutes give, as fast as it can, while the publisher finds no broker; says so; waits until
everything has been delivered to one that came; says so again. Each time one line of JSON.
"""

from __future__ import annotations

import itertools
import json
import os
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from agent.audit.log import AuditLog
from agent.backoff import BackoffLimits
from agent.commands.dispatcher import CommandDispatcher
from agent.messages.records import Alert, DefectRegion, Evaluation, Result, ResultCode, to_json
from agent.messages.topics import Topics
from agent.mqtt.connect import BrokerSettings
from agent.mqtt.live_messages import LiveMessages
from agent.mqtt.publisher import Publisher, Station
from agent.outbox.outbox import Kind, Outbox
from agent.trigger.plc_handshake import Handshake

if TYPE_CHECKING:
    from collections.abc import Iterator

RESULTS_PER_S = 30
ALERT_EVERY = 450
BEGAN_AT_MS = 1_790_000_000_000
TOPICS = Topics("acme/north/press/line2/cell4/vision/station1")


def records(minutes: int) -> Iterator[tuple[Kind, str, str, dict[str, Any], int]]:
    """What a recorder would put: kind, identity, topic, content and time; an alert now and then."""
    for seq in range(minutes * 60 * RESULTS_PER_S):
        is_defect = seq % ALERT_EVERY == 0
        now_ms = BEGAN_AT_MS + seq * 1000 // RESULTS_PER_S
        result = Result(
            seq=seq,
            part_id=None,
            created_at_ms=now_ms,
            evaluation=Evaluation.NOT_OK if is_defect else Evaluation.OK,
            score=1234.567890123 + seq,
            threshold=2345.678901234,
            regions=(DefectRegion(120, 96, 48, 32, 9876.54321),) if is_defect else (),
            image_ref=f"2026/09/21/{seq:032x}.jpg" if is_defect else None,
            processing_times_ms={"waiting": 0.123, "preprocess": 0.456, "inference": 2.789},
            result_id=f"{seq:032x}",
        )
        yield "result", result.record_id, TOPICS.result, result.payload(), now_ms
        if is_defect:
            alert = Alert(
                type="new",
                severity=700,
                cause="defect",
                started_at_ms=now_ms,
                result_id=result.result_id,
                alert_id=f"{seq:032x}",
            )
            yield "alert", alert.record_id, TOPICS.alert, alert.payload(), now_ms


def resident_mib() -> float:
    """Memory of this process that is in use."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def main(folder: Path, port: int, minutes: int) -> None:
    """The outage from its beginning to its end."""
    station = Station(
        session_id="session",
        version="0",
        state=lambda: ("running", ""),
        info=dict,
        alert_state=dict,
        health=lambda: {"outboxDepth": outbox.depth()},
    )
    settings = BrokerSettings(host="127.0.0.1", port=port, client_id="station1")
    handshake = Handshake(100, lambda: ResultCode.TOO_LATE)
    commands = CommandDispatcher({}, AuditLog(folder / "audit.jsonl"), ())
    dialogue = LiveMessages(TOPICS, handshake, commands, handshake.overdue)
    with Outbox(folder / "outbox.sqlite") as outbox:
        with Publisher(settings, TOPICS, outbox, station, dialogue, BackoffLimits(longest_retry_s=0.5)) as publisher:
            all_records = records(minutes)
            for record in itertools.islice(all_records, 1000):  # what is allocated once, is by now
                put(outbox, record)
            before_mib = highest_mib = resident_mib()
            for number, record in enumerate(all_records):
                put(outbox, record)
                publisher.wake()
                if number % 1000 == 0:
                    highest_mib = max(highest_mib, resident_mib())
            say(before_mib=before_mib, highest_mib=highest_mib, depth=outbox.depth(), error=publisher.last_error)
            while outbox.depth():
                highest_mib = max(highest_mib, resident_mib())
                time.sleep(0.02)
        say(
            highest_mib=highest_mib,
            after_mib=resident_mib(),
            published=publisher.published,
            dropped=outbox.dropped,
            file_mib=(folder / "outbox.sqlite").stat().st_size / 2**20,
        )


def put(outbox: Outbox, record: tuple[Kind, str, str, dict[str, Any], int]) -> None:
    kind, record_id, topic, content, created_at_ms = record
    if not outbox.put(kind, record_id, topic, to_json(content), created_at_ms):
        message = f"{record_id} was not stored: {outbox.dropped}"
        raise RuntimeError(message)


def say(**values: object) -> None:
    sys.stdout.write(json.dumps(values) + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
