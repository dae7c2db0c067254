"""A frame carries its thumbnail, and stays what the camera gave."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from agent.archive.thumbnail import LONGEST_SIDE_PX, thumbnail_in, with_thumbnail

if TYPE_CHECKING:
    from pathlib import Path

    from calibration.imaging.preprocess import Image

FRAME: Image = np.random.default_rng(0).integers(0, 255, (30, 40, 3), np.uint8)


def png(image: Image = FRAME) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def decoded(content: bytes) -> Image:
    return np.asarray(cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED), np.uint8)


def test_a_frame_with_a_thumbnail_has_the_same_pixels() -> None:
    np.testing.assert_array_equal(decoded(with_thumbnail(png(), FRAME)), FRAME)


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((480, 640), (240, 320)), ((2000, 500), (320, 80)), ((30, 40), (30, 40)), ((4000, 1), (320, 1))],
)
def test_it_shows_what_it_is_given_no_larger_than_a_gallery_needs(
    tmp_path: Path, shape: tuple[int, int], expected: tuple[int, int]
) -> None:
    path = tmp_path / "frame.png"
    path.write_bytes(with_thumbnail(png(), np.full((*shape, 3), 200, np.uint8)))
    found = thumbnail_in(path)
    assert found is not None
    image = decoded(found)
    assert image.shape[:2] == expected
    assert max(image.shape) <= LONGEST_SIDE_PX
    assert abs(image.astype(int) - 200).max() <= 2


def test_a_frame_without_one_or_with_a_damaged_one_has_none(tmp_path: Path) -> None:
    whole = with_thumbnail(png(), FRAME)
    flipped = whole[:100] + bytes([whole[100] ^ 1]) + whole[101:]
    too_long = whole[:33] + b"\xff\xff\xff\xff" + whole[37:]
    for number, content in enumerate((png(), flipped, too_long, whole[:60], b"")):
        path = tmp_path / f"{number}.png"
        path.write_bytes(content)
        assert thumbnail_in(path) is None
