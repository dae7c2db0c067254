"""The chaos run as a test: short, or with SHIFTWATCH_CHAOS=full as long as it is meant."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from chaos import FULL, SHORT, run_chaos

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.real_broker import Mosquitto


def test_nothing_is_lost_however_often_agent_broker_and_line_fail(
    mosquitto: Mosquitto, bundle: Path, tmp_path: Path
) -> None:
    """Short: 2,000 results, 50 alerts, 3 agents and 2 brokers killed, 1 line half-open; full: see `chaos.FULL`."""
    plan = FULL if os.environ.get("SHIFTWATCH_CHAOS") == "full" else SHORT
    outcome = run_chaos(plan, 1, tmp_path, bundle, mosquitto)
    assert outcome.problems == [], outcome.counts
    assert outcome.counts["recorded"] >= plan.results + 2 * plan.alerts, outcome.counts
    assert outcome.counts["duplicates removed"] > 0, "nothing was sent twice: no fault hit anything"
    assert outcome.counts["waiting at the end"] == 0, outcome.counts
