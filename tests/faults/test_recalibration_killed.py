"""SIGKILL at any moment of a recalibration: the station comes back with a valid bundle, and no result is lost.

Ten kills; a hundred with SHIFTWATCH_SOAK=full. PyTorch cannot be imported in the agent or in its worker.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from books import Ledger

from agent.commands.control_socket import NAME, ask_station
from agent.errors import StationUnreachableError
from agent.zones.versions import Versions
from calibration.bundle.bundle import open_bundle
from tests.support.stations import Agent, closed_port, good_parts, kept_records, until, write_config, write_pictures

if TYPE_CHECKING:
    import pytest

    from agent.messages.records import Payload

KILLS = 100 if os.environ.get("SHIFTWATCH_SOAK") == "full" else 10
LONGEST_S = 2.5
"""A recalibration of so few parts takes about two seconds."""


def recalibrate(state: Path, number: int, told: list[Payload]) -> None:
    command = {"command": "recalibrate", "commandId": f"kill-{number}", "args": {"parts": 25, "mode": "mean"}}
    with suppress(StationUnreachableError):  # it was killed
        told.extend(ask_station(state, command))


def workers() -> set[int]:
    found = set()
    for command in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if b"recalibration.worker" in command.read_bytes():
                found.add(int(command.parent.name))
    return found


def test_a_recalibration_that_is_killed_leaves_a_valid_bundle_and_loses_no_result(
    tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("torch", "timm"):
        (tmp_path / "blocked" / name).mkdir(parents=True)
        (tmp_path / "blocked" / name / "__init__.py").write_text("raise ImportError('not on a device')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "blocked"), *filter(None, sys.path)]))
    config = write_config(
        tmp_path,
        bundle,
        write_pictures(tmp_path / "parts", good_parts(40)),
        closed_port(),
        camera={"playback": "realtime", "frames_per_s": 100, "loop": True},
        decision={},
        recalibration={"shadow_parts": 10, "keep_bundles": 2},
    )
    state = tmp_path / "state"
    random = np.random.default_rng(0)
    others = workers()
    done = 0
    with Ledger(tmp_path / "ledger") as ledger:
        for number in range(KILLS):
            (state / NAME).unlink(missing_ok=True)
            with Agent(config, wrapper=ledger.wrapper) as agent:
                until((state / NAME).exists, 60)
                told: list[Payload] = []
                commander = threading.Thread(target=recalibrate, args=(state, number, told), daemon=True)
                commander.start()
                commander.join(LONGEST_S * random.random() if number else 60)  # the first is left alone
                agent.end(signal.SIGKILL)
                commander.join(60)
                done += any(answer["progress"] == 1 and answer["accepted"] for answer in told)
            served = Versions(state / "versions.json", open_bundle(bundle).identity).served[-1]
            assert open_bundle(Path(served.path)).identity == served.identity
        until(lambda: not workers() - others, 60)  # they end with their agents
        (state / NAME).unlink(missing_ok=True)
        with Agent(config, wrapper=ledger.wrapper) as agent:
            until((state / NAME).exists, 60)
            assert not list((state / "bundles").glob(".*"))
            agent.end(signal.SIGTERM)
        ledger.read()
    assert done
    assert "torch" not in agent.log
    assert "does not serve" not in agent.log
    assert len(list((state / "bundles").iterdir())) <= 2 + KILLS
    kept = {record.record_id for record in kept_records(tmp_path)}
    assert set(ledger.ids) <= kept
    assert len(kept) - len(ledger.ids) <= KILLS  # a kill may come between the outbox and the ledger
