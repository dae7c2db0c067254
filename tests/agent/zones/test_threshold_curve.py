"""The curve that a shift leader sees behind the threshold."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from agent.config.model import load
from agent.station.bundle_loader import BundleLoader
from agent.zones.threshold_curve import threshold_curve
from calibration.bundle.bundle import open_bundle
from calibration.deployment.backends import choose_backend
from calibration.statistics.forecast import Forecast
from calibration.statistics.threshold import highest_of_few, working_point
from tests.support.stations import THRESHOLD, write_config

if TYPE_CHECKING:
    from pathlib import Path

    from agent.messages.records import Payload
    from calibration.bundle.bundle import Bundle

GOOD = np.random.default_rng(0).lognormal(0.0, 0.3, 200)
SIDES = np.repeat([4, 8, 16, 32, 64], 10)
FORECAST = Forecast(
    np.repeat("crack", 50),
    SIDES,
    np.random.default_rng(1).lognormal(0.0, 0.8, 50) * SIDES / 8,
    GOOD,
    working_point(GOOD, 0.01),
)


@pytest.mark.parametrize("rate", [0.2, 0.01, 0.002])
def test_its_middle_is_the_threshold_with_the_shares_of_the_forecast(rate: float) -> None:
    threshold = working_point(GOOD, rate).threshold
    (expected,) = FORECAST.curve([rate])
    middle = threshold_curve(FORECAST, threshold, 0.5)["points"][20]
    largest = FORECAST.found(sizes=[64], threshold=threshold)
    assert middle == pytest.approx([threshold, rate, expected.found, largest], rel=1e-5, abs=1 / 201)


def test_it_spans_all_that_a_command_may_set_and_falls() -> None:
    points = np.array(threshold_curve(FORECAST, 3.0, 0.5)["points"])
    assert points[[0, -1], 0] == pytest.approx([0.3, 30.0])
    assert np.diff(np.log(points[:, 0])) == pytest.approx(np.log(10) / 20, abs=1e-5)
    for shares in points[:, 1:].T:
        assert (np.diff(shares) <= 0).all()
        assert shares[0] > shares[-1]
    assert points[-1, 1] == FORECAST.lowest_rate


def test_of_a_handful_of_good_images_it_says_only_what_is_found() -> None:
    few = replace(FORECAST, point=highest_of_few(GOOD[:3], 3))
    points = threshold_curve(few, 3.0, 0.5)["points"]
    assert {rejected for _, rejected, *_ in points} == {None}
    assert points[0][2] > points[-1][2]


def curve_of(bundle: Bundle, folder: Path, **web: object) -> Payload | None:
    config = load(write_config(folder, bundle.path, folder / "frames", 1883, web=web))
    active = BundleLoader(config, choose_backend("onnxruntime"), threading.Event()).load(bundle, "")
    active.close()
    assert active.with_threshold(2 * THRESHOLD).curve is active.curve
    return active.curve


def test_a_bundle_is_loaded_with_the_curve_around_the_configured_threshold(bundle: Path, tmp_path: Path) -> None:
    opened = open_bundle(bundle)
    forecast = opened.forecast
    assert forecast is not None
    assert curve_of(opened, tmp_path, enabled=True) == threshold_curve(forecast, THRESHOLD, 0.5)


def test_there_is_none_without_a_page_or_of_a_bundle_without_drawn_defects(bundle: Path, tmp_path: Path) -> None:
    opened = open_bundle(bundle)
    assert curve_of(opened, tmp_path) is None
    older = replace(opened, manifest=opened.manifest.model_copy(update={"forecast": None}))
    assert curve_of(older, tmp_path, enabled=True) is None
