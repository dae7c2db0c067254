"""Images from files: complete, upright and 8-bit BGR, or refused."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from calibration.errors import DatasetError
from calibration.imaging.image_files import _is_truncated, image_files_in, read_image
from calibration.imaging.preprocess import Preprocess, Region, as_bgr8, crop
from tests.support.washers import washer

if TYPE_CHECKING:
    from pathlib import Path

    from calibration.imaging.preprocess import Image

LOSSLESS = (".png", ".bmp", ".tif", ".ppm")
CUTS = pytest.mark.parametrize("share", [0.0, 0.001, 0.01, 0.1, 0.5, 0.9, 0.99, 0.9999])


def written(path: Path, picture: np.ndarray) -> Path:
    assert cv2.imwrite(str(path), picture)
    return path


def cut(source: Path, target: Path, share: float) -> Path:
    content = source.read_bytes()
    target.write_bytes(content[: int(len(content) * share)])
    return target


def with_orientation(jpeg: bytes, orientation: int) -> bytes:
    """The JPEG with an EXIF segment of only the orientation."""
    entry = struct.pack("<HHIHH", 0x0112, 3, 1, orientation, 0)
    exif = b"Exif\0\0II*\0" + struct.pack("<IH", 8, 1) + entry + struct.pack("<I", 0)
    return jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]


@pytest.mark.parametrize("suffix", LOSSLESS)
def test_lossless_images_are_read_exactly(tmp_path: Path, suffix: str) -> None:
    np.testing.assert_array_equal(read_image(written(tmp_path / f"a{suffix}", washer(0))), washer(0))


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_lossy_images_are_read_approximately(tmp_path: Path, suffix: str) -> None:
    read = read_image(written(tmp_path / f"a{suffix}", washer(0)))
    assert np.abs(read.astype(int) - washer(0)).mean() < 8


def test_a_grey_image_is_repeated_over_all_channels(tmp_path: Path) -> None:
    grey = washer(0)[..., 0]
    read = read_image(written(tmp_path / "grey.png", grey))
    np.testing.assert_array_equal(read, np.stack([grey] * 3, axis=2))


@pytest.mark.parametrize("channels", [1, 3])
def test_16_bit_images_keep_their_upper_8_bits(tmp_path: Path, channels: int) -> None:
    deep = np.random.default_rng(0).integers(0, 2**16, (20, 30, channels)).astype(np.uint16)
    read = read_image(written(tmp_path / "deep.png", deep))
    np.testing.assert_array_equal(read, np.broadcast_to(deep >> 8, (20, 30, 3)))


def test_alpha_is_dropped(tmp_path: Path) -> None:
    alpha = np.random.default_rng(0).integers(0, 256, (64, 64, 1)).astype(np.uint8)
    read = read_image(written(tmp_path / "alpha.png", np.concatenate([washer(0), alpha], axis=2)))
    np.testing.assert_array_equal(read, washer(0))


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda picture: picture),
        (3, lambda picture: picture[::-1, ::-1]),
        (6, lambda picture: np.rot90(picture, -1)),
        (8, np.rot90),
    ],
)
def test_images_are_turned_upright_by_their_exif_orientation(tmp_path: Path, orientation: int, upright: object) -> None:
    assert callable(upright)
    picture = np.ascontiguousarray(washer(0, side=96)[:64])
    picture[:16, :16] = 255
    plain = written(tmp_path / "plain.jpg", picture)
    turned = tmp_path / "turned.jpg"
    turned.write_bytes(with_orientation(plain.read_bytes(), orientation))
    np.testing.assert_array_equal(read_image(turned), upright(read_image(plain)))


@pytest.mark.parametrize("suffix", [*LOSSLESS, ".jpg", ".webp"])
@CUTS
def test_a_truncated_image_is_refused_by_name(tmp_path: Path, suffix: str, share: float) -> None:
    whole = written(tmp_path / f"whole{suffix}", washer(0, side=200))
    damaged = cut(whole, tmp_path / f"damaged{suffix}", share)
    with pytest.raises(DatasetError, match=r"damaged\.\w+ (is|:)"):
        read_image(damaged)


@CUTS
def test_a_truncated_photo_is_refused_by_name(tmp_path: Path, data: Path, share: float) -> None:
    for number, whole in enumerate(sorted((data / "hazelnut/train/good").glob("*.jpg"))[:4]):
        read_image(whole)
        with pytest.raises(DatasetError, match=rf"cut{number}\.jpg"):
            read_image(cut(whole, tmp_path / f"cut{number}.jpg", share))


@CUTS
def test_a_truncated_progressive_jpeg_is_refused(tmp_path: Path, share: float) -> None:
    whole = tmp_path / "whole.jpg"
    cv2.imwrite(str(whole), washer(0, side=200), [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])
    read_image(whole)
    with pytest.raises(DatasetError):
        read_image(cut(whole, tmp_path / "cut.jpg", share))


def test_a_png_whose_chunk_claims_gigabytes_is_refused_at_once(tmp_path: Path) -> None:
    content = bytearray(cv2.imencode(".png", washer(0))[1].tobytes())
    length = content.index(b"IDAT") - 4
    content[length : length + 4] = (0xCB000E35).to_bytes(4, "big")
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.png is truncated"):
        read_image(tmp_path / "a.png")


@CUTS
def test_a_truncated_png_photo_is_refused(tmp_path: Path, data: Path, share: float) -> None:
    whole = data / "photos/01.png"
    with pytest.raises(DatasetError, match=r"cut\.png"):
        read_image(cut(whole, tmp_path / "cut.png", share))


@CUTS
def test_a_truncated_jpeg_is_recognised_without_decoding_it(tmp_path: Path, share: float) -> None:
    """OpenCV 5 refuses such a file itself; OpenCV 4 fills the rest with grey."""
    content = written(tmp_path / "whole.jpg", washer(0, side=200)).read_bytes()
    assert not _is_truncated(content)
    assert not _is_truncated(content + bytes(100))
    part = content[: int(len(content) * share)]
    assert _is_truncated(part) == (not part or b"\xff\xda" in part)


def test_bytes_after_the_end_of_a_jpeg_are_ignored(tmp_path: Path) -> None:
    path = written(tmp_path / "a.jpg", washer(0))
    before = read_image(path)
    path.write_bytes(path.read_bytes() + bytes(100))
    np.testing.assert_array_equal(read_image(path), before)


# A video, a second image and padding, in all of which the markers of a JPEG may occur.
BEHIND = (b"\x00\x00\x00\x18ftypmp42" + b"\xff\xda\x00\x08" * 50, b"\xff\xd8\xff\xda" + bytes(9), b"\xff" * 64)


@pytest.mark.parametrize("behind", BEHIND)
def test_what_is_behind_the_end_of_a_jpeg_is_ignored_but_its_end_must_be_there(tmp_path: Path, behind: bytes) -> None:
    path = written(tmp_path / "a.jpg", washer(0, side=200))
    content, before = path.read_bytes(), read_image(path)
    path.write_bytes(content + behind)
    np.testing.assert_array_equal(read_image(path), before)
    path.write_bytes(content[: len(content) // 2] + behind)
    with pytest.raises(DatasetError, match=r"a\.jpg (is|:)"):
        read_image(path)


def test_the_end_of_an_embedded_thumbnail_is_not_the_end_of_the_image(tmp_path: Path) -> None:
    thumbnail = written(tmp_path / "thumbnail.jpg", washer(0)).read_bytes()
    content = written(tmp_path / "a.jpg", washer(0, side=200)).read_bytes()
    content = content[:2] + b"\xff\xe2" + struct.pack(">H", len(thumbnail) + 2) + thumbnail + content[2:]
    assert not _is_truncated(content)
    assert _is_truncated(content[:-1000])


@given(cut=st.integers(0, 4000), behind=st.binary(max_size=64))
def test_a_jpeg_is_truncated_wherever_its_image_data_is_cut(cut: int, behind: bytes) -> None:
    content = cv2.imencode(".jpg", washer(0))[1].tobytes()
    cut = min(cut, len(content) - content.index(b"\xff\xda") - 20)
    assert _is_truncated(content[: len(content) - cut]) == (cut > 0)
    assert not _is_truncated(content + behind)


@pytest.mark.parametrize("content", [b"", b"no picture", bytes(5000)])
def test_files_that_are_not_images_are_refused_by_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(content)
    with pytest.raises(DatasetError, match=r"a\.png"):
        read_image(path)


def test_an_image_of_floats_is_refused_by_name(tmp_path: Path) -> None:
    path = written(tmp_path / "floats.tif", np.zeros((8, 8, 3), np.float32))
    with pytest.raises(DatasetError, match=r"floats\.tif: cannot use an image of type float32"):
        read_image(path)


def test_a_missing_file_and_a_folder_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "missing.png", tmp_path):
        with pytest.raises(DatasetError, match="cannot read"):
            read_image(path)


def test_a_folder_gives_its_images_sorted_and_nothing_else(tmp_path: Path) -> None:
    for name in ("b.PNG", "a.jpeg", "c.txt", "d", ".e.json"):
        (tmp_path / name).touch()
    (tmp_path / "folder.png").mkdir()
    assert [path.name for path in image_files_in(tmp_path)] == ["a.jpeg", "b.PNG"]


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4)])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_any_camera_image_becomes_8_bit_bgr(shape: tuple[int, ...], kind: type[np.uint8 | np.uint16]) -> None:
    picture = as_bgr8(np.zeros(shape, kind))
    assert picture.shape == (4, 5, 3)
    assert picture.dtype == np.uint8
    assert picture.flags.c_contiguous


@pytest.mark.parametrize("picture", [np.zeros((4, 5, 2), np.uint8), np.zeros((4, 5, 3)), np.zeros(4, np.uint8)])
def test_images_of_other_types_are_refused(picture: np.ndarray) -> None:
    with pytest.raises(DatasetError, match="cannot use an image"):
        as_bgr8(picture)


def picture_of(rows: int, columns: int) -> Image:
    return np.random.default_rng(0).integers(0, 256, (rows, columns, 3)).astype(np.uint8)


@pytest.mark.parametrize("size", [(64, 64), (100, 50), (20, 300), (64, 65)])
def test_every_image_is_resized_to_the_network_input(size: tuple[int, int]) -> None:
    prepared = Preprocess(64, 64)(picture_of(*size))
    assert prepared.shape == (64, 64, 3)
    assert prepared.dtype == np.uint8


def test_shrinking_takes_the_mean_of_each_area() -> None:
    picture = picture_of(8, 12)
    expected = picture.reshape(4, 2, 6, 2, 3).astype(float).mean(axis=(1, 3))
    assert np.abs(Preprocess(4, 6)(picture) - expected).max() <= 0.5


def test_the_region_of_interest_is_cropped_first() -> None:
    picture = picture_of(20, 30)
    np.testing.assert_array_equal(Preprocess(4, 6, Region(5, 7, 6, 4))(picture), picture[7:11, 5:11])


def test_a_region_may_touch_all_edges() -> None:
    picture = picture_of(20, 30)
    np.testing.assert_array_equal(crop(picture, Region(0, 0, 30, 20)), picture)


@pytest.mark.parametrize(
    "region", [(-1, 0, 5, 5), (0, -1, 5, 5), (26, 0, 5, 5), (0, 16, 5, 5), (0, 0, 0, 5), (0, 0, 5, -1), (0, 0, 31, 20)]
)
def test_a_region_that_does_not_fit_is_refused_with_both_sizes(region: tuple[int, int, int, int]) -> None:
    with pytest.raises(DatasetError, match=f"{','.join(map(str, region))} .* 30x20 pixels"):
        crop(picture_of(20, 30), Region(*region))
