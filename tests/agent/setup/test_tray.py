"""The tray holds what was collected, serves nothing else of the disk, and is bounded."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from agent.camera import Frame
from agent.errors import SetupError
from agent.setup import tray as tray_module
from agent.setup.tray import Tray
from calibration.errors import DatasetError, StorageError
from tests.support.washers import save, washer

if TYPE_CHECKING:
    from pathlib import Path


def frame(number: int, at_ms: int | None = None) -> Frame:
    return Frame(number, washer(number), 1_700_000_000_000 + number if at_ms is None else at_ms, number)


def decoded(content: bytes) -> tuple[int, ...]:
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    return tuple(image.shape)


def test_frames_are_kept_as_they_came_in_the_order_of_time_also_over_a_restart(tmp_path: Path) -> None:
    tray = Tray(tmp_path / "good")
    names = [tray.add(frame(number)) for number in range(3)]
    assert names == sorted(names) == tray.names == Tray(tmp_path / "good").names
    for number, name in enumerate(names):
        assert np.array_equal(tray.image(name), washer(number))


def test_two_frames_of_one_millisecond_are_two_images(tmp_path: Path) -> None:
    tray = Tray(tmp_path)
    assert len({tray.add(frame(number, at_ms=1_700_000_000_000)) for number in range(3)}) == 3


def test_images_that_were_put_there_by_hand_belong_to_it_and_other_files_do_not(tmp_path: Path) -> None:
    save(tmp_path, [washer(1)])
    save(tmp_path, [washer(2)], suffix=".JPG")
    (tmp_path / "notes.txt").write_text("x")
    (tmp_path / ".000.png.part").write_text("half")
    assert Tray(tmp_path).names == ["000.JPG", "000.png"]


@pytest.mark.parametrize(("size", "shape"), [("small", (240, 120, 3)), ("large", (1280, 640, 3))])
def test_an_image_is_shown_reduced(tmp_path: Path, size: str, shape: tuple[int, ...]) -> None:
    tray = Tray(tmp_path)
    name = tray.add(Frame(0, np.zeros((2000, 1000, 3), np.uint8), 0, 0))
    assert decoded(tray.jpeg(name, size)) == shape
    assert decoded(tray.jpeg(name, size)) == shape


@pytest.mark.parametrize(
    "name", ["", ".", "..", "../000.png", "/etc/passwd", "000.png/", "./000.png", "000.PNG", "000.png\0", "ö.png"]
)
def test_only_names_of_the_tray_are_opened(tmp_path: Path, name: str) -> None:
    save(tmp_path, [washer(9)])  # next to the tray
    tray = Tray(tmp_path / "good")
    save(tray.folder, [washer(1)])
    known = Tray(tray.folder)
    for each in (known.image, lambda name: known.jpeg(name, "small"), known.check):
        with pytest.raises(SetupError, match=r"there is no image .* in the tray\n  load the page again"):
            each(name)
    with pytest.raises(SetupError, match=r"there is no size '\.\./large'\n  there are: small, large"):
        known.jpeg("000.png", "../large")


def test_an_image_that_was_removed_by_hand_is_an_error_in_words(tmp_path: Path) -> None:
    tray = Tray(tmp_path)
    name = tray.add(frame(1))
    (tmp_path / name).unlink()
    with pytest.raises(DatasetError, match=name):
        tray.jpeg(name, "large")


def test_the_tray_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tray_module, "_MOST_IMAGES", 2)
    tray = Tray(tmp_path)
    names = [tray.add(frame(number)) for number in range(2)]
    with pytest.raises(SetupError, match="2 images are in the tray, and that is enough\n  teach with them"):
        tray.add(frame(2))
    assert tray.names == names
    assert len(list(tmp_path.iterdir())) == 2


def test_a_disk_that_takes_no_image_keeps_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    tray = Tray(tmp_path)
    monkeypatch.setattr("agent.capture.recording.replace_file", full)
    with pytest.raises(StorageError, match="No space left on device"):
        tray.add(frame(1))
    assert tray.names == []
