"""Patch SVDD against the oracle of its paper: on features of two grids, and from pixels on through the preset."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest

from calibration.detectors.contract import Folds
from calibration.detectors.patch_svdd import COARSE, FINE, PatchSvdd, PatchSvddHead, split_levels
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.preprocess import Preprocess
from calibration.progress import silent
from calibration.workstation.fit.backbone_choice import FILTERBANK
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.presets import PRESETS
from calibration.workstation.settings import Settings
from tests.calibration.detectors.test_patch_svdd import pictures, through_onnx_runtime
from tests.calibration.papers import oracle_patch_svdd
from tests.support.stored import stored
from tests.support.washers import SIDE, Drawn, washer

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    Float64 = NDArray[np.float64]


def oracle(vectors: Sequence[tuple[Float64, Float64]], size: tuple[int, int]) -> Float64:
    """Map in pixels of one image, from the vectors (1, rows, columns, d) of both sizes and those of good images."""
    maps = [
        oracle_patch_svdd.pixel_map(
            oracle_patch_svdd.patch_scores(tested, good)[0], size, side=field.side, stride=field.stride
        )
        for field, (tested, good) in zip((FINE, COARSE), vectors, strict=True)
    ]
    return oracle_patch_svdd.anomaly_map(maps)


def in_pixels(score_map: NDArray[np.float32]) -> NDArray[np.float32]:
    """The map of cells as it covers the frame."""
    return score_map.repeat(FINE.stride, axis=0).repeat(FINE.stride, axis=1)


@pytest.mark.parametrize("frame", [(64, 112), (128, 80)])
def test_map_and_score_are_those_of_the_paper(tmp_path: Path, frame: tuple[int, int]) -> None:
    good, tested = pictures(1, 5, frame), pictures(2, 1, frame)
    with stored(good, tmp_path) as store:
        detector = PRESETS["patch_svdd2020"].detector
        head = detector.fit(store, Folds([range(len(good))]), [good.shape[1]] * 2).head
    assert isinstance(head, PatchSvddHead)
    levels = (
        [part.astype(np.float64).transpose(0, 2, 3, 1) for part in split_levels(features)]
        for features in (tested, good)
    )
    expected = oracle(list(zip(*levels, strict=True)), frame)
    in_numpy = head.scores(tested)
    in_graph = through_onnx_runtime(head, tested[0])
    for score, score_map in ((float(in_numpy.score[0]), in_numpy.map[0]), in_graph):
        np.testing.assert_allclose(in_pixels(score_map), expected, rtol=1e-4)
        assert score == pytest.approx(oracle_patch_svdd.image_score(expected), rel=1e-4)


@pytest.mark.slow
def test_the_preset_gives_the_map_of_the_paper_from_pixels_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The encoders learn fast: as they begin, patches differ in digits that float32 does not have."""
    torch = pytest.importorskip("torch", reason="torch is an extra: pip install --editable '.[fit]'")
    from calibration.workstation.torch_models.patch_svdd import training  # noqa: PLC0415 - it imports torch
    from calibration.workstation.torch_models.patch_svdd.checkpoint import Checkpoint  # noqa: PLC0415 - as above

    monkeypatch.setattr(training, "_LEARNING_RATE", 1e-2)
    preset = PRESETS["patch_svdd2020"].detector
    assert isinstance(preset, PatchSvdd)
    detector, size = replace(preset, steps=2, batch=2), (SIDE, SIDE)
    good = [washer(number) for number in range(10)]
    tested = washer(300, scratched=True)
    settings = Settings(Preprocess(*size), detector, false_reject_rate=0.1, threads=1)
    bundle = calibrate(Drawn(good), FILTERBANK, settings, tmp_path / "bundle", silent)

    frames, _ = training.training_frames(Drawn(good), settings, silent, mean_image=True)
    with training._threads(settings.threads):  # as before, since another number of threads sums in another order
        encoders = training.train(frames, detector, Checkpoint(tmp_path / "again.pt", {}), silent).double()
    images = np.stack([*good, tested])[..., ::-1].astype(np.float64) / 255
    centred = (images - images[:-1].mean(axis=0)).transpose(0, 3, 1, 2)

    def vector(patch: Float64) -> Float64:
        encode = encoders.small if patch.shape[1] == FINE.side else encoders.large
        with torch.no_grad():
            return np.asarray(encode(torch.from_numpy(patch[None]))[0].numpy(), np.float64)

    with training._threads(settings.threads):
        embedded = [oracle_patch_svdd.embed(centred, vector, field.side, field.stride) for field in (FINE, COARSE)]
    expected = oracle([(vectors[-1:], vectors[:-1]) for vectors in embedded], size)
    with OnnxRuntimeEngine(bundle.network, 1) as engine:
        seen = engine(tested)
    np.testing.assert_allclose(in_pixels(seen.map), expected, rtol=1e-4)
    assert seen.score == pytest.approx(oracle_patch_svdd.image_score(expected), rel=1e-4)
