"""Kill the agent and the broker, cut the line between them, and count what arrives.

    python tests/faults/chaos.py [--short] [--seed N]

Two books are kept, neither of them the outbox: the agent's process writes down each identity after the outbox has
taken the record, and a listener with a persistent session of its own writes down what the broker gives it. Prints the
counts; exit code 1 when something was lost, changed, doubled or out of order.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from bad_line import BadLine
from books import Arrivals, Ledger, problems

from tests.support.real_broker import Mosquitto, mosquitto_binary
from tests.support.stations import (
    Agent,
    broken_parts,
    counted_results,
    good_parts,
    kept_records,
    teach,
    until,
    write_config,
    write_pictures,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

KEEPALIVE_S = 5
_PARTS_FOR_AN_ALERT = 36
_PARTS_PER_S = 300.0
_PATIENCE_S = 120.0


@dataclass(frozen=True)
class Plan:
    """How much is recorded, and what happens meanwhile."""

    results: int
    alerts: int
    agent_kills: int
    broker_kills: int
    cuts: int


FULL = Plan(results=20_000, alerts=500, agent_kills=30, broker_kills=10, cuts=5)
SHORT = Plan(results=2_000, alerts=50, agent_kills=3, broker_kills=2, cuts=1)


@dataclass(frozen=True)
class Outcome:
    """What the books say at the end."""

    counts: dict[str, int | float]
    problems: list[str]


def durable(broker: Mosquitto) -> list[str]:
    """A broker that is killed should not lose what it has acknowledged: all of it on disk after every change."""
    location = f"persistence_location {broker.folder}/"
    return ["persistence true", location, "autosave_on_changes true", "autosave_interval 1", "max_inflight_messages 0"]


class Chaos:
    """One station and everything that happens to it."""

    def __init__(  # noqa: PLR0913, PLR0917 - all that can break, and both books
        self,
        plan: Plan,
        seed: int,
        config: Path,
        ledger: Ledger,
        arrivals: Arrivals,
        broker: Mosquitto,
        line: BadLine,
    ) -> None:
        self._plan = plan
        self._random = random.Random(seed)  # noqa: S311 - faults, not secrets
        self._config = config
        self._ledger = ledger
        self._arrivals = arrivals
        self._made_at_fault = 0
        self._broker = broker
        self._line = line
        self._heal_at_s = float("inf")
        self._last_fault: Callable[[], None] | None = None
        self._agent = Agent(config, wrapper=ledger.wrapper)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._agent.__exit__()

    def run(self) -> None:
        """Until everything was recorded and every fault has happened; then the agent is told to stop."""
        faults: list[Callable[[], None]] = [
            *[self._kill_agent] * self._plan.agent_kills,
            *[self._kill_broker] * self._plan.broker_kills,
            *[self._cut_line] * self._plan.cuts,
        ]
        self._random.shuffle(faults)
        gaps = [self._random.randrange(2 * self._plan.results // len(faults)) for _ in faults]
        while faults or self._wants_more():
            if faults and self._has_come_through(gaps[-1]):
                time.sleep(self._random.uniform(0, 0.05))  # else each would come just after a record was made
                gaps.pop()
                self._last_fault = faults.pop()
                self._last_fault()
                self._ledger.read()
                self._made_at_fault = len(self._ledger.ids)
            if time.monotonic() >= self._heal_at_s:
                self._heal()
            assert self._agent.process.poll() is None, self._agent.log
            time.sleep(0.002)
            self._ledger.read()
        self._heal()
        self._agent.end(signal.SIGTERM)

    def _has_come_through(self, records: int) -> bool:
        """So many records were made since the last fault; unless that one cut the line, the first of them is there."""
        made = self._ledger.ids[self._made_at_fault :]
        return len(made) > records and (self._last_fault == self._cut_line or made[0] in self._arrivals.first)

    def _wants_more(self) -> bool:
        return self._ledger.results < self._plan.results or self._ledger.new_alerts < self._plan.alerts

    def _kill_agent(self) -> None:
        self._agent.end(signal.SIGKILL)
        self._agent = Agent(self._config, wrapper=self._ledger.wrapper)

    def _kill_broker(self) -> None:
        self._broker.kill()
        time.sleep(self._random.uniform(0, 1))
        self._broker.start(*durable(self._broker))

    def _cut_line(self) -> None:
        self._line.cut()
        self._heal_at_s = time.monotonic() + self._random.uniform(0, 2 * KEEPALIVE_S)

    def _heal(self) -> None:
        self._line.heal()
        self._heal_at_s = float("inf")


def run_chaos(plan: Plan, seed: int, folder: Path, bundle: Path, broker: Mosquitto) -> Outcome:
    """The whole run, in an empty folder, with a broker that is not started yet."""
    began_s = time.monotonic()
    broker.start(*durable(broker))
    parts = write_pictures(folder / "parts", [*broken_parts(1), *good_parts(_PARTS_FOR_AN_ALERT - 1)])
    with ExitStack() as stack:
        ledger = stack.enter_context(Ledger(folder / "ledger"))
        arrivals = stack.enter_context(Arrivals(broker.port))
        line = stack.enter_context(BadLine(broker.port))
        mqtt = {"host": "127.0.0.1", "port": line.port, "keepalive_s": KEEPALIVE_S}

        def station(**camera: object) -> Path:
            camera = {"playback": "realtime", "loop": True, **camera}
            return write_config(folder, bundle, parts, line.port, camera=camera, mqtt=mqtt)

        with Chaos(plan, seed, station(frames_per_s=_PARTS_PER_S), ledger, arrivals, broker, line) as chaos:
            chaos.run()
        _drain(station(frames_per_s=5.0), ledger, arrivals)
        ledger.read()
        first = arrivals.first
        log = (folder / "station.log").read_text()
    results = sum("alertId" not in content for content in first.values())
    counted = counted_results(folder)
    counts = {
        "recorded": len(ledger.ids),
        "results published": results,
        "results counted": counted,
        "of these results": ledger.results,
        "alerts begun": ledger.new_alerts,
        "delivered": len(first),
        "not in the ledger": len(set(first) - set(ledger.ids)),
        "duplicates removed": len(arrivals.heard) - len(first),
        "historical": sum(content["historical"] for content in first.values()),
        "agent killed": plan.agent_kills,
        "broker killed": plan.broker_kills,
        "line half-open": plan.cuts,
        "connections": log.count(" connected to "),
        "waiting at the end": len(kept_records(folder)),
        "seconds": round(time.monotonic() - began_s, 1),
    }
    miscounted = [f"{results} results were published, {counted} counted"] if results != counted else []
    return Outcome(counts, [*problems(ledger, arrivals, plan.agent_kills), *miscounted])


def _drain(calm_station: Path, ledger: Ledger, arrivals: Arrivals) -> None:
    """Calm agents send what waits; a record that never comes ends the wait, and stands among the problems."""
    deadline_s = time.monotonic() + _PATIENCE_S

    def has_all(at_least: int) -> bool:
        ledger.read()
        is_complete = len(ledger.ids) >= at_least and arrivals.first.keys() >= set(ledger.ids)
        return is_complete or time.monotonic() > deadline_s

    while kept_records(calm_station.parent) and time.monotonic() < deadline_s:
        with Agent(calm_station, wrapper=ledger.wrapper) as agent:
            until(partial(has_all, len(ledger.ids) + 1), 2 * _PATIENCE_S)
            agent.end(signal.SIGTERM)
    until(lambda: has_all(0), 2 * _PATIENCE_S)


def main() -> int:
    """Run, print the table, say how it went."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--short", action="store_true", help="as much as the tests run by default")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))  # noqa: S311 - printed, no secret
    given = parser.parse_args()
    binary = mosquitto_binary()
    if binary is None:
        print("mosquitto is not installed: apt-get install mosquitto")  # noqa: T201 - a program
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "broker").mkdir()
        broker = Mosquitto(binary, folder / "broker")
        try:
            outcome = run_chaos(SHORT if given.short else FULL, given.seed, folder, teach(folder / "bundle"), broker)
        finally:
            broker.stop()
    for name, count in {"seed": given.seed, **outcome.counts}.items():
        print(f"{name:<20}{count:>10}")  # noqa: T201 - a program
    print("\n".join(outcome.problems) or "nothing lost, nothing changed, all in order")  # noqa: T201 - a program
    return 1 if outcome.problems else 0


if __name__ == "__main__":
    sys.exit(main())
