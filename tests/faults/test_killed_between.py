"""The agent is killed at the worst moments: between two things that belong together."""

from __future__ import annotations

import json
import signal
from typing import TYPE_CHECKING, Any

import pytest

from tests.support.stations import (
    Agent,
    broken_parts,
    closed_port,
    counted_results,
    good_parts,
    kept_records,
    write_config,
    write_pictures,
)

if TYPE_CHECKING:
    from pathlib import Path

# Dies in the call that it counts to, before or after what it does.
KILLED = """
import os, signal
from agent.alerts.store import ActiveAlerts
from agent.cli import main
from agent.outbox.outbox import Outbox

def dying(method, is_last):
    def call(self, *arguments):
        if is_last(arguments) and {before}:
            os.kill(os.getpid(), signal.SIGKILL)
        answer = method(self, *arguments)
        if is_last(arguments):
            os.kill(os.getpid(), signal.SIGKILL)
        return answer
    return call

{owner}.{method} = dying({owner}.{method}, lambda arguments: {when})
main()
"""
NEW = "arguments[0] == 'alert' and ':new:' in arguments[1]"
END = "arguments[0] == 'alert' and ':end:' in arguments[1]"


def test_a_result_that_was_recorded_is_counted_though_the_agent_dies_before_it_can_count(
    bundle: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, bundle, write_pictures(tmp_path / "parts", good_parts(3)), closed_port())
    wrapper = KILLED.format(owner="Outbox", method="put", when="arguments[0] == 'result'", before=False)
    for run in (1, 2):
        with Agent(config, wrapper=wrapper) as agent:
            assert agent.wait() == -signal.SIGKILL, agent.log
        assert len(kept_records(tmp_path)) == run
    with Agent(config) as agent:
        assert agent.wait() == 0, agent.log
    assert counted_results(tmp_path) == sum(record.kind == "result" for record in kept_records(tmp_path)) == 5


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(
    ("owner", "method", "when"),
    [
        ("Outbox", "put", NEW),
        ("Outbox", "put", END),
        ("ActiveAlerts", "note", "arguments[0].type == 'new'"),
        ("ActiveAlerts", "note", "arguments[0].type == 'end'"),
        ("ActiveAlerts", "forget", "True"),
    ],
    ids=["put new", "put end", "note new", "note end", "forget"],
)
def test_every_alert_that_began_ends_once(  # noqa: PLR0913 - a table
    bundle: Path, tmp_path: Path, owner: str, method: str, when: str, *, before: bool
) -> None:
    source = write_pictures(tmp_path / "parts", [*broken_parts(1), *good_parts(4)])
    config = write_config(tmp_path, bundle, source, closed_port())
    with Agent(config, wrapper=KILLED.format(owner=owner, method=method, when=when, before=before)) as agent:
        assert agent.wait() == -signal.SIGKILL, agent.log
    for name in source.iterdir():
        name.unlink()
    write_pictures(source / "good", good_parts(1))
    with Agent(write_config(tmp_path, bundle, source / "good", closed_port())) as agent:
        assert agent.wait() == 0, agent.log
    alerts: list[dict[str, Any]] = [json.loads(one.payload) for one in kept_records(tmp_path) if one.kind == "alert"]
    begun = [alert["alertId"] for alert in alerts if alert["type"] == "new"]
    ended = [alert["alertId"] for alert in alerts if alert["type"] == "end"]
    assert begun == [alert for alert in ended if alert in begun]
    assert not (tmp_path / "state" / "active_alert.json").exists()
