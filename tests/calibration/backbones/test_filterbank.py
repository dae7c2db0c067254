"""The filterbank."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
import onnxruntime as ort
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from calibration.backbones.backbone import filterbank_backbone
from calibration.backbones.filterbank import CHANNELS, ORIENTATIONS, filterbank, gabor_bank
from calibration.errors import SettingError
from calibration.imaging.image_files import read_image
from calibration.network.fusion import feature_shape

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

Float32 = NDArray[np.float32]
BRIGHTNESS = slice(0, 3)
ENERGIES = slice(3, 67)
CONTRASTS = slice(67, 79)


def runner(height: int, width: int) -> Callable[[Float32], Float32]:
    """From an RGB image in 0..1, (height, width, 3), to features (79, h, w)."""
    session = ort.InferenceSession(filterbank(height, width).SerializeToString(), providers=["CPUExecutionProvider"])
    return lambda picture: np.asarray(session.run(None, {"image": picture.transpose(2, 0, 1)[None]})[0][0])


@pytest.fixture(scope="module")
def features() -> Callable[[Float32], Float32]:
    return runner(224, 224)


@pytest.fixture(scope="module")
def texture() -> Float32:
    """Blobs of all colours and sizes with strong contrast, RGB, periodic."""
    noise = np.tile(np.random.default_rng(0).normal(size=(224, 224, 3)), (3, 3, 1))
    blobs = [cv2.GaussianBlur(noise, (0, 0), sigma)[224:448, 224:448] for sigma in (1, 2, 4, 8)]
    together = sum(blob / blob.std() for blob in blobs)
    return np.asarray(np.clip(0.5 + 0.12 * together, 0, 1), np.float32)


def naive(picture: Float32) -> Float32:
    """The filterbank with OpenCV's filters, loops and slices."""
    colour = picture @ np.array([[0.299, 0.587, 0.114], [1, -1, 0], [0.5, 0.5, -1]], np.float32).T
    brightness, energies, contrasts = cells(colour, 16, np.mean), [], []
    for level in range(4):
        if level:
            colour = cells(colour, 2, np.mean)
        luminance = np.ascontiguousarray(colour[..., 0])
        even, odd = (
            [cv2.filter2D(luminance, -1, kernel, borderType=cv2.BORDER_REFLECT_101) for kernel in half]
            for half in np.split(gabor_bank()[:, 0], 2)
        )
        energy = np.stack([np.hypot(*pair) for pair in zip(even, odd, strict=True)], axis=2)
        energy /= inner_mean(energy.mean(axis=2), 9)[..., None] + 0.01
        energies += [cells(energy, 16 >> level, reduce) for reduce in (np.mean, np.max)]
        surround = np.stack([inner_mean(colour[..., channel], 5) for channel in range(3)], axis=2)
        contrasts.append(cells(np.abs(colour - surround), 16 >> level, np.mean))
    logarithms = [np.log(np.concatenate(energies, 2) + 0.05), np.log(np.concatenate(contrasts, 2) + 0.01)]
    features: Float32 = np.concatenate([brightness, *logarithms], axis=2).transpose(2, 0, 1)
    return features


def cells(picture: Float32, side: int, reduce: Callable[..., Float32]) -> Float32:
    rows, columns, channels = picture.shape
    return reduce(picture.reshape(rows // side, side, columns // side, side, channels), axis=(1, 3))


def inner_mean(plane: Float32, window: int) -> Float32:
    """Mean over the part of the window that lies inside the image."""
    total, inside = (
        cv2.boxFilter(each, -1, (window, window), normalize=False, borderType=cv2.BORDER_CONSTANT)
        for each in (np.ascontiguousarray(plane), np.ones_like(plane))
    )
    return np.asarray(total / inside)


def test_features_agree_with_the_formulas(features: Callable[[Float32], Float32], texture: Float32) -> None:
    np.testing.assert_allclose(features(texture), naive(texture), atol=2e-4)


@given(st.integers(4, 10), st.integers(4, 10))
def test_79_channels_on_a_grid_of_a_sixteenth(rows: int, columns: int) -> None:
    shape = feature_shape(filterbank_backbone(16 * rows, 16 * columns))
    assert shape == (CHANNELS, rows, columns)
    assert CHANNELS == 79


def test_the_declared_shape_is_the_real_one(features: Callable[[Float32], Float32], texture: Float32) -> None:
    assert features(texture).shape == (79, 14, 14)
    assert runner(64, 96)(texture[:64, :96]).shape == (79, 4, 6)


@pytest.mark.parametrize(("height", "width"), [(60, 64), (64, 100), (48, 64), (64, 0)])
def test_other_sizes_are_refused(height: int, width: int) -> None:
    with pytest.raises(SettingError, match=f"{height}x{width}"):
        filterbank_backbone(height, width)


def test_gabor_filters_have_zero_mean_and_unit_l1_norm() -> None:
    bank = gabor_bank()
    assert bank.shape == (2 * ORIENTATIONS, 1, 9, 9)
    np.testing.assert_allclose(bank.sum(axis=(1, 2, 3)), 0, atol=1e-6)
    np.testing.assert_allclose(np.abs(bank).sum(axis=(1, 2, 3)), 1, rtol=1e-6)


def test_gabor_filters_are_those_of_the_design() -> None:
    """Sigma 2, wavelength 4.5, aspect 0.7, 8 orientations from 0 to 157.5 degrees; even ones first."""
    for number, kernel in enumerate(gabor_bank()[:, 0]):
        angle, odd = math.pi / 8 * (number % 8), number >= 8
        naive = np.empty((9, 9))
        for y, x in np.ndindex(9, 9):
            along = (x - 4) * math.cos(angle) + (y - 4) * math.sin(angle)
            across = (y - 4) * math.cos(angle) - (x - 4) * math.sin(angle)
            wave = -math.sin(2 * math.pi * along / 4.5) if odd else math.cos(2 * math.pi * along / 4.5)
            naive[y, x] = math.exp(-(along**2 + 0.49 * across**2) / 8) * wave
        naive -= naive.mean()
        np.testing.assert_allclose(kernel, naive / np.abs(naive).sum(), atol=1e-6)


def test_even_filters_are_even_and_odd_ones_are_odd() -> None:
    bank = gabor_bank()[:, 0]
    turned = bank[:, ::-1, ::-1]
    np.testing.assert_allclose(turned[:ORIENTATIONS], bank[:ORIENTATIONS], atol=1e-6)
    np.testing.assert_allclose(turned[ORIENTATIONS:], -bank[ORIENTATIONS:], atol=1e-6)


@pytest.mark.parametrize("grey", [0.0, 0.1, 0.5, 1.0])
def test_a_uniform_image_has_no_energy_and_no_contrast(features: Callable[[Float32], Float32], grey: float) -> None:
    seen = features(np.full((224, 224, 3), grey, np.float32))
    np.testing.assert_allclose(np.exp(seen[ENERGIES]) - 0.05, 0, atol=1e-3)
    np.testing.assert_allclose(np.exp(seen[CONTRASTS]) - 0.01, 0, atol=1e-5)
    np.testing.assert_allclose(seen[0], grey, atol=1e-5)


@pytest.mark.parametrize("light", [0.5, 0.7, 0.9])
def test_less_light_changes_energies_no_more_than_the_floor_allows(
    features: Callable[[Float32], Float32], texture: Float32, light: float
) -> None:
    bright, dim = (np.exp(features(picture)[ENERGIES]) - 0.05 for picture in (texture, light * texture))
    assert (dim / bright).max() <= 1.0 + 1e-3
    # s E / (s m + c) over E / (m + c) is (m + c) / (m + c / s); the mean response m to this texture is 0.015 or more.
    assert (dim / bright).min() >= (0.015 + 0.01) / (0.015 + 0.01 / light)


def test_brightness_channels_follow_the_light(features: Callable[[Float32], Float32], texture: Float32) -> None:
    np.testing.assert_allclose(
        features(0.5 * texture)[BRIGHTNESS], 0.5 * features(texture)[BRIGHTNESS], rtol=1e-4, atol=1e-6
    )


@pytest.mark.parametrize(("down", "right"), [(16, 0), (0, 16), (32, 16)])
def test_moving_the_image_by_a_cell_moves_the_features_by_a_cell(
    features: Callable[[Float32], Float32], texture: Float32, down: int, right: int
) -> None:
    still, moved = features(texture), features(np.roll(texture, (down, right), (0, 1)))
    rows, columns = down // 16, right // 16
    # The coarsest level sees 32 px around a cell for its filters and as much again for their mean.
    inside = still[:, 4:8, 4:8]
    np.testing.assert_allclose(moved[:, 4 + rows : 8 + rows, 4 + columns : 8 + columns], inside, atol=1e-4)
    assert np.abs(moved[:, 4:8, 4:8] - inside).max() > 0.1


def test_colour_alone_is_seen(features: Callable[[Float32], Float32]) -> None:
    """A patch of the same luminance and another colour."""
    picture = np.full((224, 224, 3), 0.5, np.float32)
    plain = features(picture)
    picture[96:112, 96:112] += np.array([0.2, -0.2 * 0.299 / 0.587, 0.0], np.float32)
    change = np.abs(features(picture) - plain)
    assert change[0].max() < 1e-3
    assert change[1, 6, 6] > 0.2
    assert change[2, 6, 6] > 0.02


def test_a_stripe_excites_its_own_orientation_most(features: Callable[[Float32], Float32]) -> None:
    wave = 0.5 + 0.4 * np.sin(2 * np.pi * np.arange(224) / 4.5)
    picture = np.broadcast_to(wave[None, :, None], (224, 224, 3)).astype(np.float32)
    finest = features(np.ascontiguousarray(picture))[3 : 3 + ORIENTATIONS, 4:10, 4:10].mean(axis=(1, 2))
    assert finest.argmax() == 0
    assert features(np.ascontiguousarray(picture.transpose(1, 0, 2)))[3:11, 7, 7].argmax() == ORIENTATIONS // 2


def test_real_photographs_give_finite_features(features: Callable[[Float32], Float32], data: Path) -> None:
    for path in sorted((data / "photos").glob("*.png"))[:6]:
        picture = cv2.cvtColor(cv2.resize(read_image(path), (224, 224)), cv2.COLOR_BGR2RGB)
        seen = features((picture / 255).astype(np.float32))
        assert np.isfinite(seen).all()
        assert seen[ENERGIES].std() > 0.1
