"""Images arrive in BGR whatever the camera sends; the oracle is made by hand from single pixels."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.camera.genicam.pixel_formats import bgr_from, name_of
from agent.errors import CameraError


def raw(values: object, kind: str = "u1") -> np.ndarray[tuple[int], np.dtype[np.uint8]]:
    return np.frombuffer(np.asarray(values, kind).tobytes(), np.uint8)


@pytest.mark.parametrize(("pixel_format", "bits"), [("Mono10", 10), ("Mono12", 12), ("Mono14", 14), ("Mono16", 16)])
def test_of_more_than_eight_bits_the_highest_are_kept(pixel_format: str, bits: int) -> None:
    levels = [[0, 1 << (bits - 8), (1 << bits) - 1], [(1 << bits) // 2, 3 << (bits - 8), 5 << (bits - 8)]]
    image = bgr_from(raw(levels, "<u2"), pixel_format, 2, 3)
    assert image is not None
    assert image.tolist() == [[[level] * 3 for level in row] for row in ([0, 1, 255], [128, 3, 5])]


@pytest.mark.parametrize(
    ("pixel_format", "pixel"),
    [("RGB8", [1, 2, 3]), ("BGR8", [3, 2, 1]), ("RGBa8", [1, 2, 3, 9]), ("BGRa8", [3, 2, 1, 9])],
)
def test_colours_have_their_places(pixel_format: str, pixel: list[int]) -> None:
    image = bgr_from(raw([[pixel, pixel]]), pixel_format, 1, 2)
    assert image is not None
    assert image.tolist() == [[[3, 2, 1]] * 2]


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("order", ["RG", "GR", "GB", "BG"])
@pytest.mark.parametrize("colour", ["R", "G", "B"])
def test_the_colour_of_a_mosaic_is_that_of_its_pixels(order: str, bits: int, colour: str) -> None:
    tile = {"RG": "RGGB", "GR": "GRBG", "GB": "GBRG", "BG": "BGGR"}[order]
    lit = np.array([each == colour for each in tile]).reshape(2, 2)
    mosaic = np.tile(lit, (4, 4)) * ((1 << bits) - 1)
    image = bgr_from(raw(mosaic, "u1" if bits == 8 else "<u2"), f"Bayer{order}{bits}", 8, 8)
    assert image is not None
    inner = image[2:-2, 2:-2].reshape(-1, 3)
    assert [int(level) for level in inner.max(axis=0)] == [255 * (each == colour) for each in "BGR"]


@pytest.mark.parametrize("pixel_format", ["YUV422_8", "YUV422_8_UYVY"])
def test_grey_in_yuv_stays_grey(pixel_format: str) -> None:
    pair = [126, 128, 126, 128] if pixel_format == "YUV422_8" else [128, 126, 128, 126]
    image = bgr_from(raw([pair * 2] * 2), pixel_format, 2, 4)
    assert image is not None
    assert image.shape == (2, 4, 3)
    assert int(image.max()) - int(image.min()) <= 1


@given(st.integers(1, 7), st.integers(1, 7), st.integers(0, 5))
def test_padding_at_the_end_of_rows_is_left_out(rows: int, columns: int, padding: int) -> None:
    sent = np.full((rows, columns + padding), 255, np.uint8)
    sent[:, :columns] = np.arange(rows * columns).reshape(rows, columns)
    image = bgr_from(sent.ravel(), "Mono8", rows, columns)
    assert image is not None
    assert np.array_equal(image[:, :, 0], sent[:, :columns])


def test_the_image_is_a_copy() -> None:
    for pixel_format in ("Mono8", "BGR8"):
        sent = np.zeros(12, np.uint8)
        image = bgr_from(sent, pixel_format, 2, 2)
        sent += 1
        assert image is not None
        assert image.max() == 0


def test_too_few_bytes_are_no_image() -> None:
    assert bgr_from(np.zeros(11, np.uint8), "Mono8", 3, 4) is None
    assert bgr_from(np.zeros(12, np.uint8), "Mono16", 3, 4) is None
    assert bgr_from(np.zeros(0, np.uint8), "Mono8", 0, 0) is None


def test_a_format_that_cannot_be_read_is_named_with_those_that_can() -> None:
    with pytest.raises(CameraError) as refused:
        bgr_from(np.zeros(12, np.uint8), name_of(0x010C0006), 2, 2)
    assert refused.value.what == "the camera sends pixels as 0x010c0006"
    assert "Mono8, Mono10" in refused.value.remedy


def test_codes_have_the_names_of_the_convention() -> None:
    codes = {0x01080001: "Mono8", 0x01100007: "Mono16", 0x01080008: "BayerGR8", 0x01080009: "BayerRG8"}
    codes |= {0x0110000F: "BayerBG10", 0x01100012: "BayerGB12", 0x02180014: "RGB8", 0x02180015: "BGR8"}
    assert {code: name_of(code) for code in codes} == codes
