"""A change before the camera is distinguished from defects, however many come in a row."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from agent.drift.sudden_change import ENDS_AFTER, ROW, SuddenChange
from calibration.imaging.region import to_grey

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

CELLS = (13, 13)
SIDE = 96
PLACE = np.s_[3:9, 2:7]
"""A sixth of the region: the defect, and as far as features reach."""


def picture(random: np.random.Generator) -> NDArray[np.uint8]:
    """A part with a bright and a dark half under a lamp that flickers by 2 %, (96, 96, 3)."""
    grey = np.repeat(np.linspace(60, 180, SIDE), SIDE).reshape(SIDE, SIDE) * random.normal(1.0, 0.02)
    return np.clip(grey[..., None] + random.normal(0, 3, (SIDE, SIDE, 3)), 0, 255).astype(np.uint8)


def reference_of(maps: NDArray[np.float32], random: np.random.Generator) -> dict[str, NDArray[Any]]:
    """As calibration writes it."""
    scores = maps.max(axis=(1, 2)).astype(np.float64)
    pictures = [picture(random) for _ in range(50)]
    thumbnails = [cv2.resize(to_grey(each), (32, 32), interpolation=cv2.INTER_AREA) for each in pictures]
    return {
        "good_scores": scores,
        "highest_maps": maps[np.argsort(-scores)[:6]],
        "brightness": np.stack([each.mean(axis=(0, 1)) for each in pictures]),
        "thumbnail_mean": np.mean(thumbnails, axis=0),
    }


def good_maps(count: int, random: np.random.Generator) -> NDArray[np.float32]:
    """Parts that differ in each cell, and as a whole (by lamp and steel), (count, 13, 13)."""
    logs = 4.0 + 0.4 * random.standard_normal((count, *CELLS)) + 0.25 * random.standard_normal((count, 1, 1))
    return np.asarray(np.exp(logs), np.float32)


class Line:
    """Parts with a threshold that one good part in a hundred exceeds."""

    def __init__(self, seed: int = 0) -> None:
        self.random = np.random.default_rng(seed)
        taught = good_maps(1000, self.random)
        self.threshold = float(np.quantile(taught.max(axis=(1, 2)), 0.99))
        self.watch = SuddenChange(reference_of(taught, self.random))
        self.usual = picture(self.random)
        self.parts = 0

    def show(self, maps: NDArray[np.float32], look: NDArray[np.uint8] | None = None) -> list[int | None]:
        """Since when all parts are rejected, after each part."""
        seen = []
        for each in maps:
            self.parts += 1
            if each.max() > self.threshold:
                self.watch.note_reject(float(each.max()), each, self.usual if look is None else look, self.parts)
            else:
                self.watch.note_ok()
            seen.append(self.watch.since_ms)
        return seen


def with_defects(maps: NDArray[np.float32]) -> NDArray[np.float32]:
    """The same defect at the same place."""
    maps = maps.copy()
    maps[:, PLACE[0], PLACE[1]] *= 30
    return maps


def test_a_change_that_lifts_all_places_is_named_after_twenty_parts_and_ends_once_when_parts_are_good() -> None:
    line = Line()
    quiet = line.show(np.minimum(good_maps(50, line.random), line.threshold))
    changed = line.show(8 * good_maps(60, line.random))
    assert set(quiet) == {None}
    assert changed == [None] * (ROW - 1) + [51] * (60 - ROW + 1)
    ended = line.show(np.minimum(good_maps(10, line.random), line.threshold))
    assert ended == [51] * (ENDS_AFTER - 1) + [None] * (10 - ENDS_AFTER + 1)


def test_one_ok_part_among_rejects_neither_ends_it_nor_lets_it_begin() -> None:
    line = Line()
    for _ in range(10):
        assert set(line.show(8 * good_maps(ROW - 1, line.random))) == {None}
        line.watch.note_ok()
    line.show(8 * good_maps(ROW, line.random))
    line.watch.note_ok()
    assert line.show(8 * good_maps(1, line.random)) != [None]


@pytest.mark.parametrize("seed", range(5))
def test_defects_at_one_place_in_each_of_two_thousand_parts_in_a_row_stay_defects(seed: int) -> None:
    line = Line(seed)
    assert set(line.show(with_defects(good_maps(2000, line.random)))) == {None}


@pytest.mark.parametrize("seed", range(3))
def test_defects_all_over_some_parts_and_not_at_the_same_places_stay_defects(seed: int) -> None:
    line = Line(seed)
    maps = good_maps(1000, line.random)
    rust = line.random.random(maps.shape) < line.random.uniform(0.1, 0.6, (len(maps), 1, 1))
    assert set(line.show(np.where(rust, 30 * maps, maps))) == {None}


@pytest.mark.parametrize("share", [0.01, 0.1, 0.3])
@pytest.mark.parametrize("run", [1, 40])
def test_streams_with_rejects_give_no_false_alarm_in_a_hundred_thousand_parts(share: float, run: int) -> None:
    line = Line(7)
    for is_bad, length in runs(100_000, share, run, line.random):
        if is_bad:
            line.show(with_defects(good_maps(length, line.random)))
        else:
            line.watch.note_ok()
        assert line.watch.since_ms is None


def runs(parts: int, share: float, mean_length: int, random: np.random.Generator) -> Iterator[tuple[bool, int]]:
    """Good and defective parts by turns, of which the defective ones are a share; lengths are geometric."""
    done = 0
    while done < parts:
        for is_bad, mean in ((False, mean_length * (1 - share) / share), (True, mean_length)):
            length = int(random.geometric(1 / max(1.0, mean)))
            yield is_bad, length
            done += length


def lit_from_one_side(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The light falls off to 60 %."""
    return (image * np.linspace(0.6, 1.0, SIDE)[None, :, None]).astype(np.uint8)


def painted(image: NDArray[np.uint8], colour: tuple[int, int, int]) -> NDArray[np.uint8]:
    """A square of a sixth of the picture in one colour, with a sharp edge."""
    return np.asarray(cv2.rectangle(image.copy(), (20, 20), (58, 58), colour, -1), np.uint8)


def test_light_that_falls_off_to_one_side_is_named_though_the_score_map_rises_there_alone() -> None:
    line = Line()
    maps = good_maps(ROW, line.random)
    maps[:, :, :5] *= 30
    assert set(line.show(maps)) == {None}
    assert line.show(maps, lit_from_one_side(line.usual))[-1] == 1, "the row began with its first reject"


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (20, 20, 200)])
def test_a_large_spot_in_any_colour_is_a_defect_whatever_it_does_to_the_whole_picture(
    colour: tuple[int, int, int],
) -> None:
    line = Line()
    assert set(line.show(with_defects(good_maps(100, line.random)), painted(line.usual, colour))) == {None}


def test_without_maps_or_in_coarse_ones_only_the_light_counts() -> None:
    random = np.random.default_rng(0)
    reference = reference_of(good_maps(100, random), random)
    coarse = np.full((6, 3, 3), 50.0, np.float32)
    del reference["highest_maps"]
    usual = picture(random)
    darker = (usual * 0.8).astype(np.uint8)
    for more in ({}, {"highest_maps": coarse}, {"highest_maps": coarse[:0]}):
        watch = SuddenChange(reference | more)
        for look, expected in ((usual, None), (darker, 3)):
            for _ in range(ROW):
                watch.note_reject(5000.0, np.full((3, 3), 5000.0, np.float32), look, 3)
            assert watch.since_ms == expected


def test_a_threshold_that_rejects_every_good_part_is_not_a_change() -> None:
    line = Line()
    line.threshold = 0.0
    assert set(line.show(good_maps(2000, line.random))) == {None}
