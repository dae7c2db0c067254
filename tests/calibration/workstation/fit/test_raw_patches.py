"""Patches without an encoder: means of the pixels that they cover."""

from __future__ import annotations

import numpy as np
import onnxruntime as ort
import pytest

from calibration.errors import SettingError
from calibration.workstation.fit.raw_patches import raw_patches


def test_each_patch_is_the_means_of_its_cells() -> None:
    image = np.random.default_rng(0).random((1, 3, 80, 112)).astype(np.float32)
    (graph,) = raw_patches(80, 112).graphs
    levels = ort.InferenceSession(graph.model.SerializeToString()).run(None, {"image": image})
    for level, side, stride in zip(levels, (32, 64), (4, 16), strict=True):
        assert level.shape == (1, 192, (80 - side) // stride + 1, (112 - side) // stride + 1)
        for row, column in np.ndindex(*level.shape[2:]):
            patch = image[0, :, row * stride : row * stride + side, column * stride : column * stride + side]
            means = patch.reshape(3, 8, side // 8, 8, side // 8).mean(axis=(2, 4))
            np.testing.assert_allclose(level[0, :, row, column], means.ravel(), rtol=1e-5)


def test_a_size_that_patches_do_not_fill_is_refused() -> None:
    with pytest.raises(SettingError, match="cannot take a network input of 80x100"):
        raw_patches(80, 100)
