"""PatchCore against an oracle written from the paper's equations: the formulas, and the network that is exported."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from calibration.detectors.patchcore import PatchCore
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.errors import SettingError
from calibration.imaging.preprocess import Preprocess
from calibration.network.fusion import feature_network
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.presets import PRESETS
from calibration.workstation.settings import Settings
from tests.calibration.papers import oracle_patchcore as oracle
from tests.support.levels import levels_of, two_levels, wide_levels
from tests.support.washers import SIDE, Drawn, washer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from calibration.backbones.backbone import Backbone

    Float64 = NDArray[np.float64]

PRESET = cast("PatchCore", PRESETS["patchcore2022"].detector)
GOOD = [washer(number) for number in range(24)]
TESTED = [washer(50), washer(51), washer(52, scratched=True)]
KINDS = {
    "as it is": (PatchCore(coreset=0.05), two_levels()),
    "every second cell, five cells wide": (PatchCore(coreset=0.1, aggregation=5, stride=2, neighbours=3), two_levels()),
    "channels pooled": (PatchCore(coreset=0.05, dimensions=4), two_levels()),
    "channels pooled across": (PatchCore(coreset=0.05, dimensions=10), two_levels()),
    "more than there are channels": (PatchCore(coreset=0.05, dimensions=256), two_levels()),
    "smoothed": (PatchCore(coreset=0.05, smoothing=4), two_levels()),
    "all patches": (PatchCore(coreset=1.0, smoothing=2), two_levels()),
    "patchcore2022": (PRESET, wide_levels()),
}


def embedded(detector: PatchCore, backbone: Backbone, frames: Sequence[NDArray[np.uint8]]) -> Float64:
    """By the oracle."""
    each = None if detector.dimensions is None else 1024
    levels = levels_of(backbone, frames)
    return oracle.embed(levels, detector.aggregation, detector.stride, each, detector.dimensions)


def remembered(detector: PatchCore, good: Float64) -> Float64:
    """The bank by the oracle, whose coreset begins where ours does: nearest to the mean."""
    patches = oracle.memory_bank(good)
    count = max(detector.neighbours, round(detector.coreset * len(patches)))
    if count >= len(patches):
        return patches
    psi = None
    if patches.shape[1] > 128:
        psi = np.random.default_rng(0).standard_normal((patches.shape[1], 128)) / np.sqrt(128)
    centred = patches - patches.mean(axis=0)
    start = int(np.linalg.norm(centred if psi is None else centred @ psi, axis=1).argmin())
    return np.asarray(patches[oracle.coreset(centred, count, start, psi)])


@pytest.mark.parametrize("kind", KINDS)
def test_patches_bank_score_and_map_are_those_of_the_equations(kind: str, tmp_path: Path) -> None:
    detector, backbone = KINDS[kind]
    bundle = calibrate(
        Drawn(GOOD), backbone, Settings(Preprocess(SIDE, SIDE), detector, threads=1), tmp_path / "b", lambda *_: None
    )
    embedding = embedded(detector, backbone, TESTED)
    bank = remembered(detector, embedded(detector, backbone, GOOD))
    assert bundle.manifest.detector.parameters["bank"] == len(bank)
    maps = oracle.distance_map(embedding, bank)
    scores = oracle.image_score(embedding, bank, detector.neighbours)
    if detector.smoothing is not None:
        maps = oracle.segmentation(maps, (SIDE, SIDE), detector.smoothing)

    extractor = feature_network(backbone, detector, divide_brightness=False).SerializeToString()
    with OnnxRuntimeEngine(extractor, 1) as extract, OnnxRuntimeEngine(bundle.network, 1) as engine:
        for number, frame in enumerate(TESTED):
            np.testing.assert_allclose(extract.reduced(frame), embedding[number], rtol=1e-4, atol=1e-5)
            seen = engine(frame)
            assert seen.score == pytest.approx(scores[number], rel=1e-4)
            if detector.stride == 1:
                np.testing.assert_allclose(seen.map, maps[number], rtol=1e-4)


def test_an_ensemble_is_the_mean_of_its_members_each_in_the_usual_distance_of_its_bank(tmp_path: Path) -> None:
    """The paper scales by the largest score of the test set, which a bundle does not know."""
    members, scores, maps = (two_levels(), wide_levels()), [], []
    both = members[0] + members[1]
    for number, backbone in enumerate((*members, both)):
        detector = PatchCore(coreset=0.05, neighbours=4, banks="each", smoothing=4 if backbone is both else None)
        settings = Settings(Preprocess(SIDE, SIDE), detector, threads=1)
        bundle = calibrate(Drawn(GOOD), backbone, settings, tmp_path / str(number), lambda *_: None)
        with OnnxRuntimeEngine(bundle.network, 1) as engine:
            seen = [engine(frame) for frame in TESTED]
        if backbone is not both:
            arrays = {each.name: numpy_helper.to_array(each) for each in onnx.load(bundle.network).graph.initializer}
            bank = arrays["head.bank"].astype(np.float64)
            between = np.linalg.norm(bank[:, None] - bank[None], axis=2) + np.diag(np.full(len(bank), np.inf))
            usual = between.min(axis=1).mean()
            scores.append([each.score / usual for each in seen])
            maps.append([each.map / usual for each in seen])
    np.testing.assert_allclose([each.score for each in seen], np.mean(scores, axis=0), rtol=1e-4)
    expected = oracle.segmentation(np.mean(maps, axis=0), (SIDE, SIDE))
    np.testing.assert_allclose([each.map for each in seen], expected, rtol=1e-4)
    assert bundle.reference()["good_scores"].min() > 0


def test_the_preset_has_the_sizes_of_the_paper() -> None:
    assert replace(PRESET, dimensions=None) == PatchCore(coreset=0.01, neighbours=9, aggregation=3, smoothing=4)
    assert PRESET.dimensions == 1024
    assert PRESETS["patchcore2022"].size == (224, 224)


@pytest.mark.parametrize(
    ("detector", "message"),
    [
        (PatchCore(stride=3), "stride = 3 does not divide the 8x8 grid"),
        (PatchCore(dimensions=5), "2 levels cannot have an equal share of dimensions = 5"),
    ],
)
def test_what_the_levels_do_not_allow_is_refused(detector: PatchCore, message: str) -> None:
    with pytest.raises(SettingError, match=message):
        feature_network(two_levels(), detector, divide_brightness=False)
