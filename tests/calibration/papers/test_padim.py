"""PaDiM against an oracle written from the paper's equations: the formulas, and the network that is exported."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np
import pytest

from calibration.detectors.padim import Padim
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.preprocess import Preprocess
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.presets import PRESETS
from calibration.workstation.settings import Settings
from tests.calibration.papers import oracle_padim as oracle
from tests.support.levels import levels_of, two_levels, wide_levels
from tests.support.washers import SIDE, Drawn, washer

if TYPE_CHECKING:
    from pathlib import Path

    from calibration.backbones.backbone import Backbone
    from calibration.bundle.bundle import Bundle

PRESET = cast("Padim", PRESETS["padim2021"].detector)
GOOD = [washer(number) for number in range(24)]
TESTED = [washer(50), washer(51), washer(52, scratched=True)]
KINDS = {
    "some channels": (Padim(7), two_levels()),
    "all channels, smoothed": (Padim(None, smoothing=2), two_levels()),
    "padim2021": (PRESET, wide_levels()),
}


def fitted(detector: Padim, backbone: Backbone, path: Path, good: list[int]) -> Bundle:
    images = Drawn([GOOD[number] for number in good])
    return calibrate(images, backbone, Settings(Preprocess(SIDE, SIDE), detector, threads=1), path, lambda *_: None)


def channels(detector: Padim, total: int) -> list[int]:
    """Those that the detector draws, in the order of the levels."""
    if detector.dimensions is None:
        return list(range(total))
    drawn = np.random.default_rng(0).choice(total, detector.dimensions, replace=False)
    return sorted(drawn.tolist())


@pytest.mark.parametrize("kind", KINDS)
def test_score_and_map_are_those_of_the_equations(kind: str, tmp_path: Path) -> None:
    detector, backbone = KINDS[kind]
    bundle = fitted(detector, backbone, tmp_path / "b", list(range(len(GOOD))))
    good = levels_of(backbone, GOOD)
    kept = channels(detector, sum(level.shape[1] for level in good))
    distances = oracle.distance_map(
        oracle.embed(levels_of(backbone, TESTED), kept), oracle.fit(oracle.embed(good, kept))
    )
    maps = np.square(distances)
    if detector.smoothing is not None:
        maps = oracle.anomaly_map(distances, (SIDE, SIDE), detector.smoothing)
    with OnnxRuntimeEngine(bundle.network, 1) as engine:
        for number, frame in enumerate(TESTED):
            seen = engine(frame)
            np.testing.assert_allclose(seen.map, maps[number], rtol=1e-4)
            assert seen.score == pytest.approx(oracle.image_score(maps)[number], rel=1e-4)


def test_a_held_out_score_is_that_of_the_equations_without_the_image(tmp_path: Path) -> None:
    detector, backbone = KINDS["all channels, smoothed"]
    scores = fitted(detector, backbone, tmp_path / "b", list(range(12))).reference()["good_scores"]
    embedding = oracle.embed(levels_of(backbone, GOOD[:12]), channels(detector, 16))
    for number in (0, 7):
        others = oracle.fit(np.delete(embedding, number, axis=0))
        distances = oracle.distance_map(embedding[number : number + 1], others)
        expected = oracle.image_score(oracle.anomaly_map(distances, (SIDE, SIDE), 2))
        assert scores[number] == pytest.approx(expected[0], rel=1e-4)


def test_the_preset_has_the_sizes_of_the_paper() -> None:
    assert Padim(dimensions=100, smoothing=4) == PRESET
    assert PRESETS["padim2021"].size == (224, 224)
