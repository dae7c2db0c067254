"""The rendered line: repeatable, honest about its defects, and the same from the first frame to the last."""

from __future__ import annotations

import resource
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.demo import conveyor
from agent.demo.conveyor import CLOSEST_DEFECTS, DEFECTS, HEIGHT_PX, REGION, WIDTH_PX, Part, parts, write_video
from calibration.errors import StorageError
from calibration.imaging.preprocess import Preprocess

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.slow

LARGEST_DEFECT_PX = 140


@pytest.fixture(scope="module")
def defective_and_good() -> list[tuple[Part, Part]]:
    """Each kind of defect several times, beside the good part it was made from."""
    both = zip(parts(100, seed=4, defect_every=6), parts(100, seed=4), strict=True)
    return list(both)


def test_the_same_seed_gives_the_same_frames() -> None:
    for first, second in zip(parts(12, seed=9, defect_every=5), parts(12, seed=9, defect_every=5), strict=True):
        assert first.defect == second.defect
        np.testing.assert_array_equal(first.image, second.image)


def test_a_shorter_stream_is_the_beginning_of_a_longer_one() -> None:
    longer = parts(30, seed=2, defect_every=7)
    for short, long in zip(parts(15, seed=2, defect_every=7), longer, strict=False):
        assert short.defect == long.defect
        np.testing.assert_array_equal(short.image, long.image)


def test_another_seed_gives_other_frames() -> None:
    first, second = next(parts(1, seed=0)), next(parts(1, seed=1))
    assert not np.array_equal(first.image, second.image)


def test_frames_have_the_stated_shape_and_hold_the_region() -> None:
    part = next(parts(1, seed=0))
    assert part.image.shape == (HEIGHT_PX, WIDTH_PX, 3)
    assert part.image.dtype == np.uint8
    assert Preprocess(224, 224, REGION)(part.image).shape == (224, 224, 3)


def test_frames_are_not_over_or_under_exposed() -> None:
    for part in parts(20, seed=6):
        assert np.mean(part.image == 255) < 0.02
        assert np.mean(part.image == 0) < 0.02


def test_parts_without_a_defect_equal_those_of_the_good_stream(defective_and_good: list[tuple[Part, Part]]) -> None:
    unharmed = [(maybe, good) for maybe, good in defective_and_good if maybe.defect is None]
    assert unharmed
    for maybe, good in unharmed:
        np.testing.assert_array_equal(maybe.image, good.image)


@pytest.mark.parametrize("kind", DEFECTS)
def test_a_defect_changes_the_image_clearly_and_only_around_itself(
    kind: str, defective_and_good: list[tuple[Part, Part]]
) -> None:
    pairs = [(bad, good) for bad, good in defective_and_good if bad.defect == kind]
    assert len(pairs) >= 3
    for bad, good in pairs:
        change = cv2.absdiff(bad.image, good.image).max(axis=2)
        rows, columns = np.nonzero(change)
        assert change.max() > 25
        assert np.count_nonzero(change > 8) > 40
        assert np.ptp(rows) < LARGEST_DEFECT_PX
        assert np.ptp(columns) < LARGEST_DEFECT_PX
        assert REGION.y <= rows.min()
        assert rows.max() < REGION.y + REGION.height
        assert REGION.x <= columns.min()
        assert columns.max() < REGION.x + REGION.width


def test_two_defects_of_a_kind_differ(defective_and_good: list[tuple[Part, Part]]) -> None:
    for kind in DEFECTS:
        first, second = [cv2.absdiff(bad.image, good.image) for bad, good in defective_and_good if bad.defect == kind][
            :2
        ]
        assert not np.array_equal(first, second)


def test_all_parts_are_good_unless_defects_are_asked_for() -> None:
    assert all(part.defect is None for part in parts(20, seed=3))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 2**32), st.integers(CLOSEST_DEFECTS, 60), st.integers(0, 2000))
def test_defects_keep_their_distance_and_take_turns(seed: int, every: int, count: int) -> None:
    defects = conveyor._defects(count, np.random.default_rng(seed), every)
    indices = list(defects)
    assert all(0 <= index < count for index in indices)
    assert all(gap >= CLOSEST_DEFECTS for gap in np.diff(indices))
    assert list(defects.values()) == [DEFECTS[turn % len(DEFECTS)] for turn in range(len(indices))]


@pytest.mark.parametrize("every", [5, 6, 9, 25])
def test_about_every_nth_part_is_defective(every: int) -> None:
    count = 400 * every
    defects = conveyor._defects(count, np.random.default_rng(1), every)
    assert len(defects) == pytest.approx(400, rel=0.05)


def test_distances_between_defects_vary() -> None:
    indices = list(conveyor._defects(600, np.random.default_rng(1), 12))
    assert len(set(np.diff(indices))) > 5


def test_the_lamp_varies_but_never_beyond_eight_percent_and_does_not_wander_off() -> None:
    rail = [float(part.image[2:6].mean()) for part in parts(240, seed=8)]
    relative = np.array(rail) / np.mean(rail)
    assert 0.015 < relative.std() < 0.08
    assert relative.max() / relative.min() < 1.09 / 0.91
    assert abs(relative[:120].mean() - relative[120:].mean()) < 0.05


def test_a_video_holds_every_frame_and_its_truth(tmp_path: Path) -> None:
    made = list(parts(12, seed=5, defect_every=5))
    truth = write_video(tmp_path / "line.avi", made, frames_per_s=10)
    assert truth == [part.defect for part in made]
    assert any(truth)
    capture = cv2.VideoCapture(str(tmp_path / "line.avi"))
    assert capture.get(cv2.CAP_PROP_FPS) == pytest.approx(10)
    for part in made:
        readable, frame = capture.read()
        assert readable
        assert float(cv2.absdiff(frame, part.image).mean()) < 3
    assert not capture.read()[0]
    capture.release()


def test_a_video_that_cannot_be_created_is_refused_with_its_path(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "line.avi"
    with pytest.raises(StorageError, match=r"line\.avi"):
        write_video(path, parts(1, seed=0), frames_per_s=10)


def test_a_video_cut_short_by_a_full_disk_is_reported(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))
    try:
        with pytest.raises(StorageError, match=r"line\.avi holds \d+ of 12 frames"):
            write_video(tmp_path / "line.avi", parts(12, seed=0), frames_per_s=10)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_video_without_parts_is_empty(tmp_path: Path) -> None:
    assert write_video(tmp_path / "line.avi", [], frames_per_s=10) == []
