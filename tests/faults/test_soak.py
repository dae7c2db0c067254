from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from soak import Observed, soak

from calibration.backbones.backbone import filterbank_backbone

if TYPE_CHECKING:
    from pathlib import Path

    from tests.support.real_broker import Mosquitto

SIDE = 64
MINUTES, WARM_UP_S = (10.0 if os.environ.get("SHIFTWATCH_SOAK") == "full" else 0.1), 15.0


def test_a_station_at_work_needs_no_more_memory_and_handles_as_time_goes_by(
    mosquitto: Mosquitto, tmp_path: Path
) -> None:
    observed, health = soak(MINUTES, filterbank_backbone(SIDE, SIDE), tmp_path, mosquitto, WARM_UP_S)
    # The latency is for `python tests/faults/soak.py` on a machine of its own: neighbours triple it for a moment.
    assert [problem for problem in observed.problems() if "p99" not in problem] == []
    assert health["results"] > 0


@pytest.mark.parametrize(("slope_kib", "is_a_leak"), [(0.0, False), (4.0, False), (200.0, True)])
def test_a_leak_is_told_from_noise(slope_kib: float, *, is_a_leak: bool) -> None:
    at_s = [0.5 * number for number in range(120)]
    memory_kib = [100_000.0 + slope_kib * s + (7919 * number % 13) * 10 for number, s in enumerate(at_s)]
    observed = Observed(at_s, memory_kib, [20] * 120, [10.0] * 120)
    assert bool(observed.problems()) == is_a_leak


def test_handles_that_grow_and_late_frames_are_problems() -> None:
    observed = Observed([0.0, 1.0, 2.0, 3.0], [1.0] * 4, [20, 20, 21, 22], [10.0] * 90 + [30.0] * 10)
    assert len(observed.problems()) == 2
