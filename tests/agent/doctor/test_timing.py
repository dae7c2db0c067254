"""Times of a station that fit together, and those that do not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent.config.model import AgentConfig, load
from agent.doctor.timing import Pace, deadline_finding, timing_findings
from tests.support.stations import write_config

if TYPE_CHECKING:
    from pathlib import Path

FAST = Pace(frames_per_s=25.0, p50_ms=10.0, p99_ms=20.0)


def configured(folder: Path, **more: dict[str, Any]) -> AgentConfig:
    return load(write_config(folder, folder, 0, 1, **more))


@pytest.mark.parametrize(
    ("trigger", "deadline_ms", "takes", "level"),
    [
        ({"source": "every_frame"}, 21, "10 to 20", "ok"),
        ({"source": "every_frame"}, 20, "10 to 20", "warning"),
        ({"source": "motion", "frames_per_part": 3}, 101, "90 to 100", "ok"),
        ({"source": "motion", "frames_per_part": 3}, 90, "90 to 100", "warning"),
        ({"source": "command"}, 61, "10 to 60", "ok"),
        ({"source": "command", "delay_ms": 50}, 61, "60 to 110", "warning"),
        ({"source": "command", "delay_ms": 50}, 60, "60 to 110", "fault"),
        ({"source": "command", "frames_per_part": 3}, 90, "90 to 140", "fault"),
    ],
)
def test_the_time_to_a_verdict_is_compared_with_the_deadline(
    tmp_path: Path, trigger: dict[str, Any], deadline_ms: int, takes: str, level: str
) -> None:
    finding = deadline_finding(configured(tmp_path, trigger=trigger, plc={"deadline_ms": deadline_ms}), FAST)
    assert finding.found.startswith(f"a verdict takes about {takes} ms from the ")
    assert finding.found.endswith(f"a frame every 40 ms, network 10 to 20 ms); plc.deadline_ms is {deadline_ms}")
    assert finding.level == level
    most = takes.rsplit(maxsplit=1)[-1]
    assert (f"give plc.deadline_ms more than {most}" in finding.remedy) is (level != "ok")
    assert ("lower trigger.delay_ms" in finding.remedy) is ("delay_ms" in trigger)


def test_what_was_not_measured_is_named_and_counts_for_nothing(tmp_path: Path) -> None:
    trigger = {"source": "command", "delay_ms": 90}
    finding = deadline_finding(configured(tmp_path, trigger=trigger), Pace(None))
    assert finding.level == "ok"
    assert "90 ms from the trigger on (delay_ms 90, the camera's rate is unknown, the network was not" in finding.found


def test_a_camera_slower_than_its_timeout_is_a_fault(tmp_path: Path) -> None:
    slow = [each for each in timing_findings(configured(tmp_path), Pace(0.4)) if each.name == "camera timeout"]
    assert [(each.level, each.remedy.split(",")[0]) for each in slow] == [
        ("fault", "give camera.read_timeout_s more than 2.5")
    ]
    patient = configured(tmp_path, camera={"read_timeout_s": 2.6})
    assert "camera timeout" not in {each.name for each in timing_findings(patient, Pace(0.4))}


def test_parts_rarer_than_a_recalibration_waits_for_are_a_warning(tmp_path: Path) -> None:
    def warned(every: int) -> list[str]:
        config = configured(tmp_path, trigger={"every": every})
        return [each.found for each in timing_findings(config, FAST) if each.name == "recalibration"]

    assert warned(749) == []
    assert warned(750) == ["a part comes every 30 s, but a recalibration gives up after recalibration.quiet_s 30"]


def test_triggers_that_are_not_accepted_are_a_warning(tmp_path: Path) -> None:
    refusing = configured(tmp_path, trigger={"source": "command"}, commands={"accept": ["pause"]})
    (finding,) = [each for each in timing_findings(refusing, FAST) if each.name == "trigger"]
    assert (finding.level, finding.remedy) == ("warning", "add trigger to commands.accept")
    accepting = configured(tmp_path, trigger={"source": "command"})
    assert "trigger" not in {each.name for each in timing_findings(accepting, FAST)}
