"""A belt that does not stop, from a video of good parts to verdicts on each part that passes."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import cv2
import pytest

from agent.messages.records import CODE_NAMES
from tests.support.passing_belt import PassingBelt, random_things
from tests.support.stations import Agent, write_config

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.support.passing_belt import Thing
    from tests.support.real_broker import Listener, Mosquitto

SIZE_PX, SPEED_PX_S, FRAMES_PER_S = 40.0, 300.0, 30.0
MOST_FALSE_REJECTS = 3  # of 70 good parts, with 1 % promised


def things_on(parts: int, *, seed: int, touching: float = 0.0, defective: int = 0) -> list[Thing]:
    apart = (80.0, 180.0)
    return random_things(
        parts, seed=seed, apart_px=apart, touching=touching, defective=defective, size_px=SIZE_PX, height=240
    )


def filmed(things: list[Thing], path: Path) -> Path:
    belt = PassingBelt(things, speed_px_s=SPEED_PX_S, size_px=SIZE_PX, width=320, height=240)
    video = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), FRAMES_PER_S, (belt.width, belt.height))
    video.set(cv2.VIDEOWRITER_PROP_QUALITY, 95)
    for frame in belt.frames():
        video.write(frame.image)
    video.release()
    return path


def truth_of(things: list[Thing]) -> list[str]:
    """What the line should hear of each part, or pair that touches, in the order of the belt."""
    groups = [list(group) for _, group in itertools.groupby(things, key=lambda thing: thing.group)]
    return ["touching" if len(group) > 1 else "defective" if group[0].is_defective else "good" for group in groups]


def said_of(result: dict[str, Any]) -> str:
    if result["resultCode"]:
        return CODE_NAMES[result["resultCode"]]
    return {1: "good", 2: "defective"}[result["resultEvaluation"]]


@pytest.mark.slow
def test_parts_on_a_belt_are_taught_from_a_video_and_each_has_one_verdict_in_order(
    mosquitto: Mosquitto, listen: Callable[[int], Listener], tmp_path: Path
) -> None:
    good = filmed(things_on(60, seed=1), tmp_path / "good.avi")
    things = things_on(80, seed=2, touching=0.08, defective=8)
    watched = filmed(things, tmp_path / "watched.avi")
    program = str(Path(sys.executable).with_name("shiftwatch-calibrate"))
    fit = [program, "fit", str(good), "--passing", "--images", "50", "--out", str(tmp_path / "bundle")]
    ended = subprocess.run([*fit, "--size", "64x64"], check=False, capture_output=True, text=True)  # noqa: S603 - our own program
    assert ended.returncode == 0, ended.stderr
    size = re.search(r"trigger\.part_px=\[(\d+), (\d+)\]", ended.stdout)
    assert size is not None
    mosquitto.start()
    listener = listen(mosquitto.port)
    config = write_config(
        tmp_path,
        tmp_path / "bundle",
        watched,
        mosquitto.port,
        trigger={"source": "passing", "part_px": [int(side) for side in size.groups()]},
        plc={"deadline_ms": 5000},
        decision={},
    )
    with Agent(config) as agent:
        assert agent.wait(120) == 0, agent.log
    results, truth = listener.on("/result"), truth_of(things)
    said = [said_of(each) for each in results]
    print(f"{Counter(truth)}, said {Counter(zip(truth, said, strict=False))}")  # noqa: T201
    assert len(said) == len(truth)
    wrong = [pair for pair in zip(truth, said, strict=True) if pair[0] != pair[1]]
    assert set(wrong) <= {("good", "defective")}
    assert len(wrong) <= MOST_FALSE_REJECTS
    numbers = [each["seq"] for each in results]
    assert numbers == sorted(set(numbers))
    answers = listener.on("/plc")
    assert len(answers) == len(truth)
    assert all(0.9 * SPEED_PX_S < each["speed"] < 1.1 * SPEED_PX_S for each in answers)
    assert f"{len(truth)} results" in agent.log
