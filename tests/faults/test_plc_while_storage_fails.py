"""Whatever storage does, the line has its verdicts in time: locked, removed, full, read-only, and a disk that hangs."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING

import numpy as np
from neighbour import Neighbour

from tests.support.controller import Controller
from tests.support.stations import Agent, broken_parts, good_parts, write_config, write_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    from tests.support.real_broker import Listener, Mosquitto

DEADLINE_MS = 500
LASTS_S = 7.0
EVERY_S = 0.1
# SQLite, and what writes small files, as on a disk that is mounted read-only or hangs while such a file exists.
FAILING_DISK = """
import os, sqlite3, time
from functools import partial
from pathlib import Path

from agent.cli import main
from calibration import atomic_file

hangs, is_read_only = Path({folder!r}, "hangs"), Path({folder!r}, "read-only")
WRITES = ("INSERT", "DELETE", "UPDATE", "BEGIN", "VACUUM", "PRAGMA wal_checkpoint")
write_flushed = atomic_file.write_flushed

def wait():
    while hangs.exists():
        time.sleep(0.01)

class FailingDisk(sqlite3.Connection):
    def execute(self, statement, *arguments):
        wait()
        if is_read_only.exists() and statement.startswith(WRITES):
            raise sqlite3.OperationalError("attempt to write a readonly database")
        return super().execute(statement, *arguments)

def write(path, content, *more):
    wait()
    if is_read_only.exists():
        raise OSError(30, os.strerror(30), str(path))
    write_flushed(path, content, *more)

sqlite3.connect = partial(sqlite3.connect, factory=FailingDisk)
atomic_file.write_flushed = write
main()
"""


@contextmanager
def locked(outbox: Path) -> Iterator[None]:
    with closing(sqlite3.connect(outbox, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        yield


@contextmanager
def removed(outbox: Path) -> Iterator[None]:
    for path in outbox.parent.glob("outbox.sqlite*"):
        path.unlink()
    yield


@contextmanager
def full(outbox: Path) -> Iterator[None]:
    neighbour = Neighbour(outbox.parent)
    neighbour.take_everything()
    yield
    neighbour.leave()


def marked(name: str) -> Callable[[Path], AbstractContextManager[None]]:
    @contextmanager
    def mark(outbox: Path) -> Iterator[None]:
        path = outbox.parent.parent.parent / name
        path.touch()
        yield
        path.unlink()

    return mark


FAULTS = {
    "locked": locked,
    "removed": removed,
    "full": full,
    "read-only": marked("read-only"),
    "hangs": marked("hangs"),
}


class Line(Controller):
    """Triggers parts at the line's own pace, and hears the answers."""

    def __init__(self, port: int, listener: Listener) -> None:
        super().__init__(port)
        self._listener = listener

    def run(self, name: str, duration_s: float) -> list[str]:
        """Trigger parts for this time; returns their names."""
        part_ids = [f"{name}-{number}" for number in range(round(duration_s / EVERY_S))]
        for part_id in part_ids:
            self.trigger(part_id)
            time.sleep(EVERY_S)
        self._listener.wait_for(lambda _: self.answers().keys() >= set(part_ids))
        return part_ids

    def answers(self) -> dict[str, tuple[bool, float]]:
        """By part: whether its answer is valid, and after how many milliseconds it came."""
        heard = [message for message in self._listener.heard if message.topic.endswith("/plc")]
        return {
            part_id: (message.content["valid"], message.at_ms - self.sent_ms[part_id])
            for message in heard
            if (part_id := message.content["partId"]) in self.sent_ms
        }


def test_verdicts_are_in_time_and_valid_whatever_storage_does(
    small_disk: Path, mosquitto: Mosquitto, listen: Callable[[int], Listener], bundle: Path, tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    config = write_config(
        tmp_path,
        bundle,
        write_pictures(tmp_path / "parts", [*good_parts(5), *broken_parts(2)]),  # with alerts, which are flushed
        mosquitto.port,
        camera={"playback": "realtime", "frames_per_s": 50, "loop": True},
        trigger={"source": "command"},
        plc={"deadline_ms": DEADLINE_MS},
        state_dir=str(small_disk / "state"),
    )
    outbox = small_disk / "state" / "outbox.sqlite"
    line = Line(mosquitto.port, listener)
    with Agent(config, wrapper=FAILING_DISK.format(folder=str(tmp_path))) as agent:
        listener.wait_for(lambda heard: any(one["state"] == "running" for one in heard.on("/status")), 60)
        line.run("warm-up", 2)
        for name, fault in FAULTS.items():
            with fault(outbox):
                part_ids = line.run(name, LASTS_S)
            answers = [line.answers()[part_id] for part_id in part_ids]
            latencies_ms = [latency_ms for _, latency_ms in answers]
            p50, p99 = np.percentile(latencies_ms, (50, 99))
            valid = sum(is_valid for is_valid, _ in answers)
            print(f"{name}: plc p50 {p50:.0f} ms, p99 {p99:.0f} ms, {valid} of {len(answers)} valid")  # noqa: T201
            assert p99 < DEADLINE_MS, agent.log
            assert valid >= 0.98 * len(answers), agent.log
            since = len(listener.on("/result"))
            line.run(f"after {name}", 1)
            listener.wait_for_more("/result", since)
        listener.wait_for(lambda heard: heard.on("/status")[-1]["state"] == "running", 20)
        total = len(line.sent_ms)

        def stored_or_counted() -> int:
            dropped: dict[str, int] = listener.on("/health")[-1]["dropped"]
            lost = sum(count for reason, count in dropped.items() if reason.startswith("outbox_"))
            return len({one["partId"] for one in listener.on("/result")}) + lost

        listener.wait_for(lambda _: stored_or_counted() >= total, 30)
    line.close()
    dropped = listener.on("/health")[-1]["dropped"]
    print(f"{total} parts, {len(listener.on('/result'))} results, dropped {dropped}")  # noqa: T201 - with pytest -s
