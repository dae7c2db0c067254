"""A camera whose frames are parts: sizes, counts, numbers, and what happens when the camera is lost."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent.belt.part_camera import PartCamera, PartFrame, crop_around
from agent.belt.passing_part import PassingPart, Problem
from agent.camera import Frame
from agent.messages.records import ResultCode

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from typing_extensions import Self

    from agent.camera import CameraState
    from agent.camera.contract import Stamp


def frame(seq: int, stamp: Stamp | None = None) -> Frame:
    return Frame(seq, np.full((60, 80, 3), seq, np.uint8), 1000 + seq, 1_000_000 * seq, stamp=stamp)


def part(taken: Frame, problem: Problem = Problem.NONE, *, is_turned: bool = False) -> PassingPart:
    return PassingPart(taken, (40.0, 30.0), 10.0, (20.0, 11.0), 123.456, problem, None, is_turned)


class Listed:
    """A camera that gives these frames; after a None it is lost."""

    refused_settings: Sequence[str] = ()
    reason = ""

    def __init__(self, frames: Sequence[Frame | None]) -> None:
        self.frames = frames
        self.state: CameraState = "running"
        self.triggered = 0
        self.is_open = False

    @property
    def captured(self) -> int:
        return sum(each is not None for each in self.frames)

    @property
    def dropped(self) -> dict[str, int]:
        return {}

    def __enter__(self) -> Self:
        self.is_open = True
        return self

    def __iter__(self) -> Iterator[Frame | None]:
        for each in self.frames:
            self.state = "lost" if each is None else "running"
            yield each

    def trigger(self) -> None:
        self.triggered += 1

    def stop(self) -> None:
        self.frames = ()

    def __exit__(self, *_: object) -> None:
        self.is_open = False


class Passing:
    """Finds in each frame what the table says."""

    def __init__(self, found: dict[int, list[Problem]], *, is_turned: bool = False) -> None:
        self.found = found
        self.is_turned = is_turned
        self.resets = 0

    def __call__(self, taken: Frame) -> list[PassingPart]:
        return [part(taken, problem, is_turned=self.is_turned) for problem in self.found.get(taken.seq, [])]

    def reset(self) -> None:
        self.resets += 1


def watched(
    frames: Sequence[Frame | None], passing: Passing, crop_px: tuple[int, int] | None
) -> tuple[PartCamera, list[PartFrame | None]]:
    with PartCamera(Listed(frames), passing, crop_px) as camera:  # type: ignore[arg-type]
        return camera, list(camera)


def test_each_part_is_a_frame_of_its_own_with_the_time_of_its_best_place() -> None:
    found = {1: [Problem.NONE, Problem.TOUCHING], 3: [Problem.CUT_OFF], 4: [Problem.UNCLEAR]}
    _, frames = watched([frame(seq) for seq in range(6)], Passing(found), (24, 16))
    parts = [each for each in frames if each is not None]
    assert [each.code for each in parts] == [
        ResultCode.NONE,
        ResultCode.TOUCHING,
        ResultCode.CUT_OFF,
        ResultCode.UNCLEAR,
    ]
    assert {each.image.shape for each in parts} == {(16, 24, 3)}
    assert [each.captured_at_ms for each in parts] == [1001, 1001, 1003, 1004]
    assert {each.speed_px_s for each in parts} == {123.5}
    assert frames.count(None) == 6  # the loop beats with each frame of the belt


def test_frames_and_parts_are_counted_and_no_number_comes_twice() -> None:
    found = {seq: [Problem.NONE] * (seq % 3) for seq in range(20)}
    camera, frames = watched([frame(seq) for seq in range(20)], Passing(found), (24, 16))
    numbers = [each.seq for each in frames if each is not None]
    assert numbers == sorted(set(numbers))
    assert camera.captured == len(numbers) + sum(camera.dropped.values())
    assert Counter(camera.dropped) == {"untriggered": 20}
    assert max(numbers) < camera.captured


@pytest.mark.parametrize(("is_turned", "size"), [(False, (24, 24)), (True, (16, 24))])
@pytest.mark.parametrize("count", [1, 9, 10, 12])
def test_an_unknown_size_is_measured_at_the_first_parts_and_none_of_them_is_lost(
    count: int,
    size: tuple[int, int],
    is_turned: bool,  # noqa: FBT001 - a table
) -> None:
    found = {seq: [Problem.NONE] for seq in range(count)}
    found[0] = [Problem.TOUCHING, Problem.NONE]  # of which no size is taken
    camera, frames = watched([frame(seq) for seq in range(count)], Passing(found, is_turned=is_turned), None)
    parts = [each for each in frames if each is not None]
    assert camera.crop_px == size
    assert [each.captured_at_ms for each in parts] == [1000 + seq for seq in range(count)]
    assert {each.image.shape for each in parts} == {(size[1], size[0], 3)}


def test_without_any_part_there_is_no_size() -> None:
    camera, frames = watched([frame(0)], Passing({}), None)
    assert (camera.crop_px, frames) == (None, [None])


def test_the_largest_of_the_parts_has_room_and_a_margin() -> None:
    parts = [part(frame(0)), PassingPart(frame(0), (0, 0), 0.0, (100.0, 50.0), 1.0, Problem.NONE)]
    width, height = crop_around(parts)
    assert (width, height) == (height, width)
    assert 100 < width < 140
    assert width % 8 == 0


def test_a_camera_that_is_lost_makes_the_belt_unknown_again_and_every_frame_is_shown() -> None:
    passing = Passing({})
    shown: list[Frame] = []
    with PartCamera(Listed([frame(0), None, frame(1)]), passing, (8, 8)) as camera:  # type: ignore[arg-type]
        camera.show = shown.append
        assert list(camera) == [None, None, None]
    assert passing.resets == 1
    assert [each.seq for each in shown] == [0, 1]


def test_the_camera_itself_is_triggered_stopped_and_closed() -> None:
    inner = Listed([frame(0)])
    with PartCamera(inner, Passing({}), (8, 8)) as camera:  # type: ignore[arg-type]
        assert inner.is_open
        camera.trigger()
        camera.stop()
        assert list(camera) == []
        assert (camera.state, camera.reason, camera.refused_settings) == ("running", "", ())
    assert (inner.triggered, inner.is_open) == (1, False)
