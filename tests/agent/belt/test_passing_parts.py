"""Each part on a belt is reported once, in order, whatever belt, speed and direction; with what cannot be decided."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, cast, get_args

import cv2
import numpy as np
import pytest

from agent.belt.passing_part import PassingPart, Problem
from agent.belt.passing_parts import PassingParts
from agent.camera import Frame
from tests.support.passing_belt import Direction, Hand, PassingBelt, Thing, random_things

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

pytestmark = pytest.mark.slow

DIRECTIONS = get_args(Direction)


def things(parts: int, *, seed: int, touching: float = 0.0, defective: int = 0) -> list[Thing]:
    return random_things(
        parts, seed=seed, touching=touching, defective=defective, size_px=30.0, height=240, apart_px=(50, 110)
    )


def belt(lying: list[Thing], direction: str = "right", speed_px_s: float = 300.0) -> PassingBelt:
    return PassingBelt(
        lying, direction=cast("Direction", direction), speed_px_s=speed_px_s, width=320, height=240, size_px=30.0
    )


@dataclass
class Passed:
    """What was reported, by the group of parts that it belongs to.

    Attributes:
        groups: Of each report of a part, in the order of the reports.
        problems: Of each such report.
        others: Reports far from any part.
    """

    groups: list[int]
    problems: list[Problem]
    others: list[PassingPart]

    def problems_of(self, groups: Iterable[int]) -> list[Problem]:
        chosen = set(groups)
        return [problem for group, problem in zip(self.groups, self.problems, strict=True) if group in chosen]


def true_place(seen: PassingBelt, part: PassingPart) -> tuple[float, float]:
    """(along, across) in the belt's own picture, in which it runs to the right."""
    x, y = part.middle
    along_x = {"right": x, "left": seen.width - 1 - x, "down": y, "up": seen.width - 1 - y}
    across_y = {"right": y, "left": seen.height - 1 - y, "down": seen.height - 1 - x, "up": x}
    return along_x[seen.direction], across_y[seen.direction]


def watch(seen: PassingBelt, frames: Iterable[Frame] | None = None, parts: PassingParts | None = None) -> Passed:
    parts = PassingParts() if parts is None else parts
    passed = Passed([], [], [])
    for frame in seen.frames() if frames is None else frames:
        for part in parts(frame):
            way = seen.way_at(part.frame)
            along, across = true_place(seen, part)
            distance, group = min(
                (math.hypot(seen.width / 2 + way - thing.at_px - along, thing.across_px - across), thing.group)
                for thing in seen.things
                if thing.kind == "part"
            )
            is_hand = part.problem is Problem.UNCLEAR and part.size_px[0] > 2.5 * seen.size_px  # with what is under it
            if distance < seen.size_px and not is_hand:
                passed.groups.append(group)
                passed.problems.append(part.problem)
            else:
                passed.others.append(part)
    return passed


def single_and_touching(lying: list[Thing]) -> tuple[list[int], list[int]]:
    groups = [thing.group for thing in lying if thing.kind == "part"]
    return [g for g in sorted(set(groups)) if groups.count(g) == 1], [g for g in set(groups) if groups.count(g) > 1]


@pytest.mark.parametrize(("speed_px_s", "direction"), [(700.0, "right"), (1000.0, "up"), (1400.0, "left")])
def test_each_of_many_parts_is_reported_once_in_order(speed_px_s: float, direction: str) -> None:
    lying = things(170, seed=round(speed_px_s), touching=0.06, defective=9)
    singles, touching = single_and_touching(lying)
    seen = belt(lying, direction, speed_px_s)
    middles_s = [(lying[index].at_px + 160) / speed_px_s for index in (50, 110)]
    seen.hands = [Hand(second - 0.5, second + 0.7, 160.0, 60.0) for second in middles_s]
    passed = watch(seen)
    under = {thing.group for thing in lying for hand in seen.hands if is_near(thing, hand, speed_px_s)}
    assert len(lying) == 170
    assert touching
    assert passed.groups == sorted([*singles, *touching])
    assert set(passed.problems_of(set(singles) - under)) == {Problem.NONE}
    assert Problem.NONE not in passed.problems_of(touching)
    assert [part.problem for part in passed.others] == [Problem.UNCLEAR] * len(passed.others)
    assert len(passed.others) <= 2


def is_near(thing: Thing, hand: Hand, speed_px_s: float) -> bool:
    """Whether the hand may be over the part while that is near the middle."""
    passes_s = (thing.at_px + 160) / speed_px_s
    near_s = 60 / speed_px_s + 0.15  # parts are found again a moment later
    return hand.from_s - near_s < passes_s < hand.until_s + near_s and thing.across_px > 130


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_place_time_and_speed_let_a_gate_count(direction: str) -> None:
    lying = things(8, seed=2)
    seen = belt(lying, direction)
    found = [part for parts in map(PassingParts(), seen.frames()) for part in parts]
    assert len(found) == 8
    for part, thing in zip(found, lying, strict=True):
        along, across = true_place(seen, part)
        assert along == pytest.approx(160 + seen.way_at(part.frame) - thing.at_px, abs=2)
        assert across == pytest.approx(thing.across_px, abs=2)
        assert abs(along - 160) <= 300 / 30 / 2 + 2  # no other frame was nearer to the middle
        assert part.speed_px_s == pytest.approx(300, rel=0.05)


@pytest.mark.parametrize(("shape", "scales"), [("bar", (1.0,)), ("disc", (0.6, 1.0, 1.7)), ("bar", (0.7, 1.0, 1.6))])
def test_parts_of_several_sizes_are_not_taken_for_touching_ones(shape: str, scales: tuple[float, ...]) -> None:
    lying = random_things(12, seed=4, size_px=30, height=240, apart_px=(75, 130), scales=scales)
    seen = belt(lying)
    seen.shape = shape
    passed = watch(seen)
    assert passed.groups == list(range(12))
    assert set(passed.problems) == {Problem.NONE}


@pytest.mark.parametrize(("belt_grey", "part_grey"), [(160.0, 70.0), (160.0, 105.0), (40.0, 200.0)])
def test_dark_and_bright_parts_are_found_in_the_first_frame_too(belt_grey: float, part_grey: float) -> None:
    lying = things(12, seed=6)
    seen = belt(lying)
    seen.belt_grey, seen.part_grey = belt_grey, part_grey
    seen.start_px = lying[0].at_px - 40  # the first parts lie in view, before the middle
    passed = watch(seen)
    assert passed.groups == list(range(12))
    assert set(passed.problems) == {Problem.NONE}


def test_shadows_stains_and_an_empty_belt_are_no_parts() -> None:
    seen = belt(things(10, seed=8))
    marks = [(130, "shadow"), (330, "stain"), (520, "shadow"), (720, "stain"), (1330, "stain")]
    seen.things += [Thing(at, 60 + at % 120, 30, -1, kind) for at, kind in marks]
    passed = watch(seen)
    assert passed.groups == list(range(10))
    assert passed.others == []
    bare = belt([])
    bare.grain = 12
    parts = PassingParts()
    assert [part for frame in bare.frames(until_s=2) for part in parts(frame)] == []


def test_a_hand_is_reported_once_and_parts_near_it_are_inspected() -> None:
    lying = [Thing(200 + 90 * number, 70, 20 * number, number) for number in range(14)]
    seen = belt(lying)
    seen.hands = [Hand(1.2, 2.4, 100.0, 90.0), Hand(3.6, 4.9, 220.0, 100.0)]
    passed = watch(seen)
    assert passed.groups == list(range(14))
    assert set(passed.problems) == {Problem.NONE}
    assert [part.problem for part in passed.others] == [Problem.UNCLEAR] * 2


def test_a_part_under_a_hand_is_unclear() -> None:
    lying = [Thing(200 + 90 * number, 120, 20 * number, number) for number in range(12)]
    seen = belt(lying)
    seen.hands = [Hand(2.4, 3.6, 160.0, 170.0)]
    passed = watch(seen)
    assert passed.groups == list(range(12))
    assert Problem.UNCLEAR in passed.problems
    assert passed.problems.count(Problem.NONE) >= 8


def test_parts_are_followed_over_lost_and_damaged_frames() -> None:
    lying = things(14, seed=10)
    seen = belt(lying)
    seen.drop = 0.3

    def frames() -> Iterator[Frame]:
        for frame in seen.frames():
            yield frame
            if frame.seq % 5 == 0:
                black = np.zeros_like(frame.image)
                yield replace(frame, image=black, captured_ns=frame.captured_ns + 1, is_damaged=True)

    passed = watch(seen, frames())
    assert passed.groups == list(range(14))
    assert set(passed.problems) == {Problem.NONE}


def test_a_belt_that_stops_and_starts_again_reports_no_part_twice() -> None:
    lying = things(14, seed=12)
    seen = belt(lying, "left")
    seen.speed_px_s = lambda now: 0.0 if 2 < now < 5 else 300.0 if now < 6.5 else 150.0
    passed = watch(seen)
    assert passed.groups == list(range(14))
    assert set(passed.problems) == {Problem.NONE}


def test_a_part_that_the_side_of_the_picture_cuts_is_reported_as_such() -> None:
    lying = [Thing(200 + 100 * number, 236 if number == 3 else 120, 0, number) for number in range(6)]
    seen = belt(lying)
    seen.rails = False
    passed = watch(seen)
    assert passed.groups == list(range(6))
    assert passed.problems == [Problem.CUT_OFF if number == 3 else Problem.NONE for number in range(6)]


def test_sizes_from_teaching_tell_the_first_touching_parts() -> None:
    taught = PassingParts()
    watch(belt(things(12, seed=14)), parts=taught)
    assert taught.typical is not None
    pair = [Thing(200, 100, 0, 0), Thing(228, 100, 0, 0), Thing(330, 120, 0, 1)]
    passed = watch(belt(pair), parts=PassingParts(typical=taught.typical))
    assert passed.groups == [0, 1]
    assert passed.problems == [Problem.TOUCHING, Problem.NONE]


def test_of_two_views_the_sharp_one_is_taken() -> None:
    lying = things(6, seed=16)
    seen = belt(lying)

    def frames() -> Iterator[Frame]:
        for frame in seen.frames():
            is_near = any(abs(seen.way_at(frame) - thing.at_px) < 6 for thing in lying)
            yield replace(frame, image=np.asarray(cv2.blur(frame.image, (9, 9)), np.uint8)) if is_near else frame

    parts = PassingParts()
    found = [part for frame in frames() for part in parts(frame)]
    assert len(found) == 6
    for part, thing in zip(found, lying, strict=True):
        assert 6 <= abs(seen.way_at(part.frame) - thing.at_px) < 20


def test_after_a_reset_parts_in_view_are_found_again() -> None:
    seen = belt([Thing(200, 120, 0, 0), Thing(500, 100, 0, 1)])
    parts, found = PassingParts(), 0
    for frame in seen.frames():
        found += len(parts(frame))
        if frame.seq == 38:  # the first part has just been reported
            assert found == 1
            parts.reset()
    assert found == 3


def test_no_more_frames_are_kept_than_parts_are_followed() -> None:
    parts = PassingParts()
    most = 0
    for frame in belt(things(20, seed=18)).frames():
        parts(frame)
        kept = [track.best.frame for track in parts._tracks.followed if track.best is not None]
        most = max(most, len(kept))
        assert len(parts._tracks.followed) <= 32
    assert 1 <= most <= 10


@pytest.mark.parametrize(("clip", "count"), [("bolt-multi-size-detection", 1), ("fruit-and-vegetable-detection", 4)])
def test_real_belts_give_the_parts_counted_by_eye(clip: str, count: int, data: Path) -> None:
    """A bolt; an apple, a broccoli, a cauliflower and an orange."""
    video = cv2.VideoCapture(str(data / "conveyor" / f"{clip}.gif"))
    parts, found, number = PassingParts(), [], 0
    while (read := video.read())[0]:
        found += parts(Frame(number, np.asarray(read[1], np.uint8), number * 60, number * 60_000_000))
        number += 1
    video.release()
    assert number == {1: 37, 4: 101}[count]
    assert [part.problem for part in found] == [Problem.NONE] * count
    middles = [part.frame.seq for part in found]
    assert middles == sorted(middles)
