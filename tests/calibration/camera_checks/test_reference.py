from __future__ import annotations

import math

import numpy as np
import pytest

from calibration.camera_checks.reference import ReferenceStatistics
from calibration.imaging.preprocess import Preprocess
from calibration.workstation.report.rows import check_rows
from tests.support.washers import washer

PREPROCESS = Preprocess(64, 64)
CHECKS = ["resolution", "frozen", "dark", "over_exposed", "blurred_detail", "blurred_edges", "blocked", "moved"]


def reference_of(*images: np.ndarray, sequential: bool = False) -> dict[str, np.ndarray]:
    statistics = ReferenceStatistics()
    for image in images:
        statistics.update(PREPROCESS(image), image, image.shape[:2])
    return statistics.arrays(sequential=sequential)


def limits_of(reference: dict[str, np.ndarray]) -> dict[str, float]:
    return dict(zip(reference["check_names"].tolist(), reference["check_limits"].tolist(), strict=True))


def washers(count: int) -> list[np.ndarray]:
    return [washer(number) for number in range(count)]


@pytest.mark.parametrize("sequential", [True, False])
@pytest.mark.parametrize("count", [10, 40])
def test_every_check_has_a_limit_or_a_reason(count: int, sequential: bool) -> None:  # noqa: FBT001 - a parameter
    reference = reference_of(*washers(count), sequential=sequential)
    assert reference["check_names"].tolist() == CHECKS
    for limit, note in zip(reference["check_limits"], reference["check_notes"].tolist(), strict=True):
        assert math.isfinite(limit) or note


def test_good_frames_themselves_are_within_all_limits() -> None:
    reference = reference_of(*washers(40))
    limits, light = limits_of(reference), reference["brightness"].mean(axis=1)
    odds = np.log((light + 0.5) / (255.5 - light))
    assert limits["dark"] < odds.min()
    assert odds.max() < limits["over_exposed"]


def test_identical_good_frames_have_limits() -> None:
    still = washer(1)
    limits = limits_of(reference_of(*[still] * 20, sequential=True))
    assert limits["dark"] < limits["over_exposed"]
    assert limits["frozen"] == 0.0, "identical frames among the good ones"
    assert limits["blocked"] == pytest.approx(0.2)


def test_plain_images_have_no_limit_for_a_moved_camera() -> None:
    reference = reference_of(*[np.full((64, 64, 3), 90, np.uint8)] * 20)
    assert math.isnan(limits_of(reference)["moved"])
    assert (
        dict(zip(CHECKS, reference["check_notes"].tolist(), strict=True))["moved"]
        == "the good frames share no fixed structure"
    )


def test_good_frames_of_several_sizes_give_no_frame_size() -> None:
    reference = reference_of(*washers(10), np.zeros((90, 90, 3), np.uint8))
    assert math.isnan(limits_of(reference)["resolution"])
    assert reference["frame_size"].size == 0


def test_thumbnails_of_many_frames_are_thinned_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("calibration.camera_checks.reference.REMEMBERED", 16)
    statistics = ReferenceStatistics()
    for number in range(100):
        image = np.full((64, 64, 3), number, np.uint8)
        statistics.update(image, image, (64, 64))
    kept = [int(picture[0, 0]) for picture in statistics._thumbnails.images]
    assert kept == list(range(0, 100, 8))
    arrays = statistics.arrays(sequential=True)
    assert len(arrays["brightness"]) == 100
    assert arrays["small_frames"][:, 0, 0].tolist() == kept


def test_the_table_shows_the_state_and_limit_of_each_check() -> None:
    rows = dict(check_rows(reference_of(*washers(40)), (2.0, 3.0)))
    assert len(rows) == len(CHECKS)
    assert rows["Another resolution"] == "not 64 x 64 pixels"
    assert rows["Frozen"].startswith("a change of at most 0 grey levels")
    assert "only identical frames" in rows["Frozen"]
    assert rows["Dark"].startswith("mean brightness below")
    assert "pixels" in rows["Moved"] or rows["Moved"].startswith("off")


def test_a_displacement_is_shown_in_frame_pixels_and_invisible_directions_are_named() -> None:
    reference = {
        "check_names": np.array(["moved"]),
        "check_limits": np.array([0.05]),
        "check_notes": np.array(["few"]),
        "frame_size": np.array([]),
        "moved_seen_from": np.array([math.nan, 6.0]),
    }
    assert check_rows(reference, (2.0, 3.0)) == [("Moved", "unseen to the side, from 18 pixels up or down (few)")]


def test_a_bundle_without_checks_has_no_table() -> None:
    assert check_rows({}, (1.0, 1.0)) == []
