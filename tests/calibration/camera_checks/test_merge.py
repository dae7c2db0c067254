"""Merged reference statistics: exact values, and the laxest limits."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from agent.frame_checks.camera_checks import FrameChecks
from agent.messages.records import ResultCode
from calibration.camera_checks.merge import merged_reference
from calibration.camera_checks.reference import ReferenceStatistics
from calibration.imaging.preprocess import Preprocess

if TYPE_CHECKING:
    from calibration.imaging.preprocess import Image

Arrays = dict[str, NDArray[Any]]
SIDE = 112


def views(count: int, seed: int, light: float = 1.0, scene: int = 0) -> list[Image]:
    """Frames of a static scene, with noise and a slight change of light."""
    still = cv2.GaussianBlur(np.random.default_rng(scene).uniform(0, 255, (SIDE, SIDE, 3)), (0, 0), 3)
    still = 128 + 6 * (still - still.mean())
    random = np.random.default_rng(seed)
    frames = [light * random.normal(1, 0.02) * still + random.normal(0, 3, still.shape) for _ in range(count)]
    return [np.clip(frame, 0, 255).astype(np.uint8) for frame in frames]


def reference_of(frames: list[Image], *, sequential: bool = False) -> Arrays:
    statistics = ReferenceStatistics()
    for frame in frames:
        statistics.update(frame, frame, frame.shape[:2])
    return statistics.arrays(sequential=sequential)


def limits(reference: Arrays) -> dict[str, float]:
    return dict(zip(reference["check_names"].tolist(), reference["check_limits"].tolist(), strict=True))


def notes(reference: Arrays) -> dict[str, str]:
    return dict(zip(reference["check_names"].tolist(), reference["check_notes"].tolist(), strict=True))


def codes(reference: Arrays, frames: list[Image]) -> set[ResultCode | None]:
    """The result codes that the agent gives these frames."""
    preprocess = Preprocess(SIDE, SIDE)
    checks = FrameChecks(reference, preprocess, frozen_after=None)
    found = [checks.of_frame(each) or checks.of_input(each, preprocess.locate(each)) for each in frames]
    return {each.code if each else None for each in found}


@pytest.fixture(scope="module")
def day() -> list[Image]:
    return views(20, seed=1)


@pytest.fixture(scope="module")
def night() -> list[Image]:
    return views(30, seed=2, light=0.55)


def test_merged_arrays_are_those_of_all_frames_together(day: list[Image], night: list[Image]) -> None:
    merged = merged_reference([reference_of(day), reference_of(night)], [day[0], night[0]])
    once = reference_of([*day, *night])
    for name in ("brightness", "sharpness", "blocks_least", "blocks_most", "frame_size", "small_frames"):
        np.testing.assert_array_equal(merged[name], once[name])
    for name in ("thumbnail_mean", "thumbnail_std", "structure"):
        np.testing.assert_allclose(merged[name], once[name], rtol=1e-5, atol=1e-5)
    assert set(merged) == set(once)


def test_only_the_light_of_one_of_the_bundles_is_trusted(day: list[Image], night: list[Image]) -> None:
    one, other = reference_of(day), reference_of(night)
    merged = merged_reference([one, other], [*day[:9], *night[:9]])
    new_day, new_night = views(5, seed=3), views(5, seed=4, light=0.55)
    assert codes(one, new_night) != {None}
    assert codes(other, new_day) != {None}
    assert codes(merged, [*new_day, *new_night]) == {None}
    assert codes(merged, views(5, seed=5, light=0.02)) == {ResultCode.DARK}
    for name, limit in limits(merged).items():
        parts = [limits(part)[name] for part in (one, other)]
        if name in {"dark", "frozen", "blurred_detail", "blurred_edges"}:
            assert limit == min(parts)
        else:
            assert limit >= max(parts)


def test_a_moved_camera_is_noticed_if_all_bundles_show_the_same_view(day: list[Image], night: list[Image]) -> None:
    merged = merged_reference([reference_of(day), reference_of(night)], [*day[:9], *night[:9]])
    shifted = [np.roll(frame, 12, axis=1) for frame in views(5, seed=6)]
    assert codes(merged, shifted) == {ResultCode.MOVED}


def test_bundles_of_different_views_report_no_moved_camera(day: list[Image]) -> None:
    elsewhere = [np.roll(frame, (9, 15), (0, 1)) for frame in views(20, seed=7)]
    parts = [reference_of(day), reference_of(elsewhere)]
    assert not any(math.isnan(limits(part)["moved"]) for part in parts)
    merged = merged_reference(parts, [*day[:9], *elsewhere[:9]])
    assert math.isnan(limits(merged)["moved"])
    assert notes(merged)["moved"] == "the bundles do not show the same view"
    assert codes(merged, [*day, *elsewhere]) == {None}


def test_a_check_that_is_off_in_one_is_off(day: list[Image]) -> None:
    part = reference_of(day)
    place = part["check_names"].tolist().index("blocked")
    off = {name: array.copy() for name, array in part.items()}
    off["check_limits"][place] = math.nan
    off["check_notes"] = off["check_notes"].astype(np.str_)
    off["check_notes"][place] = "because"[: off["check_notes"].dtype.itemsize // 4]
    merged = merged_reference([part, off], day[:3])
    assert math.isnan(limits(merged)["blocked"])
    assert notes(merged)["blocked"] == off["check_notes"][place]


def test_checks_that_an_older_bundle_lacks_are_off(day: list[Image]) -> None:
    part = reference_of(day)
    older = {name: part[name] for name in ("brightness", "sharpness", "thumbnail_mean", "thumbnail_std")}
    merged = merged_reference([part, older], day[:3])
    assert set(limits(merged)) == set(limits(part))
    assert all(math.isnan(limit) for limit in limits(merged).values())
    assert merged_reference([older, part], day[:3])["check_names"].size == 0


def test_frames_of_another_size_and_stills_of_a_video_are_allowed(day: list[Image]) -> None:
    video = reference_of([*day[:10], *[day[9]] * 4], sequential=True)
    other = {**reference_of(day), "frame_size": np.array((50, 60))}
    merged = merged_reference([video, other], day[:3])
    assert math.isnan(limits(merged)["resolution"])
    assert notes(merged)["resolution"] == "the good frames have several sizes"
    assert int(merged["still_at_most"]) == 4
