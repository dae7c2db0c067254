"""Where images come from."""

from __future__ import annotations

from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from calibration.errors import DatasetError, SettingError
from calibration.workstation.dataset import frame_range, good_images
from tests.support.washers import save, washer

if TYPE_CHECKING:
    from pathlib import Path

FRAMES = 30
SPACING = 8


@pytest.fixture(scope="session")
def video(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of which frame i is of brightness 8 i."""
    path = tmp_path_factory.mktemp("video") / "line.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 10, (96, 64))
    for number in range(FRAMES):
        writer.write(np.full((64, 96, 3), SPACING * number, np.uint8))
    writer.release()
    return path


def names(path: Path, frames: str = ":") -> list[str]:
    return [name.removeprefix(str(path)) for name, _ in good_images(path, frame_range(frames))]


@pytest.mark.parametrize("inside", ["", "good", "train/good"])
def test_good_images_are_found_in_all_layouts(tmp_path: Path, inside: str) -> None:
    save(tmp_path / inside, [washer(number) for number in range(3)])
    images = good_images(tmp_path)
    assert len(images) == 3
    assert not images.sequential
    for number, (name, picture) in enumerate(images):
        assert name == str(tmp_path / inside / f"{number:03}.png")
        np.testing.assert_array_equal(picture, washer(number))


def test_of_an_mvtec_layout_only_the_good_training_images_are_taken(tmp_path: Path) -> None:
    for folder in ("train/good", "test/good", "test/scratch", "good"):
        save(tmp_path / folder, [washer(0)])
    assert names(tmp_path) == ["/train/good/000.png"]


def test_images_of_all_kinds_and_sizes_can_be_mixed(tmp_path: Path) -> None:
    pictures: list[np.ndarray] = [
        washer(0),
        washer(1, side=100),
        washer(2)[..., 0],
        washer(3).astype(np.uint16) * 257,
        np.dstack([washer(4), washer(4)[..., 0]]),
    ]
    for number, picture in enumerate(pictures):
        cv2.imwrite(str(tmp_path / f"{number}.png"), picture)
    read = [picture for _, picture in good_images(tmp_path)]
    assert {(picture.dtype, picture.shape[2]) for picture in read} == {(np.dtype(np.uint8), 3)}
    np.testing.assert_array_equal(read[3], washer(3))


def test_damaged_images_are_skipped_counted_and_named(tmp_path: Path, data: Path) -> None:
    whole = sorted((data / "hazelnut/train/good").glob("*.jpg"))[:3]
    for path in whole:
        (tmp_path / path.name).write_bytes(path.read_bytes())
    content = whole[0].read_bytes()
    damaged = {"half.jpg": content[: len(content) // 2], "head.jpg": content[:100], "empty.jpg": b""}
    damaged |= {"torn.jpg": bytes(400) + content[400:], "text.png": b"not a picture"}
    for name, part in damaged.items():
        (tmp_path / name).write_bytes(part)
    images = good_images(tmp_path)
    assert len(images) == 8
    for _ in range(2):
        assert [name for name, _ in images] == [str(tmp_path / path.name) for path in whole]
        assert len(images.skipped) == 5
        assert all(any(name in reason for reason in images.skipped) for name in damaged)


def test_some_of_the_sorted_images_can_be_chosen(tmp_path: Path) -> None:
    save(tmp_path, [washer(number) for number in range(6)])
    assert names(tmp_path, "1:5:2") == ["/001.png", "/003.png"]


def test_a_choice_of_no_images_is_refused(tmp_path: Path) -> None:
    save(tmp_path, [washer(0)])
    with pytest.raises(DatasetError, match="no images chosen from the 1 in"):
        good_images(tmp_path, slice(5, 9))


def test_an_empty_folder_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match=r"no images in .*\.jpg"):
        good_images(tmp_path)


def test_a_folder_of_folders_is_refused_and_they_are_named(tmp_path: Path) -> None:
    save(tmp_path / "monday", [washer(0)])
    with pytest.raises(DatasetError, match="it has the folders monday"):
        good_images(tmp_path)


def test_a_path_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="nowhere does not exist"):
        good_images(tmp_path / "nowhere")


def test_a_file_that_is_no_video_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("washers")
    with pytest.raises(DatasetError, match=r"notes\.txt is neither a folder nor a video"):
        good_images(path)


def test_a_single_image_is_refused(tmp_path: Path) -> None:
    save(tmp_path, [washer(0), washer(1)])
    with pytest.raises(DatasetError, match=r"000\.png is a single image"):
        good_images(tmp_path / "000.png")


@pytest.mark.parametrize(
    ("frames", "chosen"),
    [(":", range(FRAMES)), ("2:12:3", range(2, 12, 3)), ("-3:", range(27, 30)), ("25:99", range(25, 30))],
)
def test_the_frames_asked_for_are_taken_from_a_video(video: Path, frames: str, chosen: range) -> None:
    images = good_images(video, frame_range(frames))
    assert images.sequential
    assert len(images) == len(chosen)
    seen = {name: picture for name, picture in images}  # noqa: C416 - a protocol with __iter__ only
    assert list(seen) == [f"{video}#{index}" for index in chosen]
    for picture, index in zip(seen.values(), chosen, strict=True):
        assert abs(picture.mean() - SPACING * index) < SPACING / 2
    assert images.skipped == []


def test_a_video_can_be_read_again(video: Path) -> None:
    images = good_images(video, slice(0, 4))
    assert [name for name, _ in images] == [name for name, _ in images]


def test_a_video_cut_short_gives_what_there_is_and_reports_it(video: Path, tmp_path: Path) -> None:
    content = video.read_bytes()
    damaged = tmp_path / "cut.avi"
    damaged.write_bytes(content[: len(content) * 6 // 10])
    images = good_images(damaged)
    read = list(images)
    assert 0 < len(read) < FRAMES
    assert images.skipped == [f"{damaged} ends before frame {len(read)}; it may be truncated"]


def test_a_video_that_does_not_state_its_length_is_read_to_its_end(tmp_path: Path) -> None:
    path = tmp_path / "line.mjpeg"
    path.write_bytes(b"".join(cv2.imencode(".jpg", washer(number))[1].tobytes() for number in range(7)))
    images = good_images(path)
    assert len(images) == len(list(images)) == 7
    assert images.skipped == []
    assert names(path, "-2:") == ["#5", "#6"]


def test_a_damaged_frame_of_a_video_is_skipped_and_named(tmp_path: Path) -> None:
    path, whole = tmp_path / "line.mjpeg", cv2.imencode(".jpg", washer(0))[1].tobytes()
    path.write_bytes(whole + whole[: len(whole) // 2] + whole)
    images = good_images(path)
    assert [name for name, _ in images] == [f"{path}#0", f"{path}#2"]
    assert images.skipped == [f"frame 1 of {path}: the frame is truncated"]


def test_frames_beyond_the_video_are_refused(video: Path) -> None:
    with pytest.raises(DatasetError, match=f"no frames chosen from the {FRAMES} of"):
        good_images(video, slice(50, 60))


def test_real_camera_streams_are_read(data: Path) -> None:
    assert len(list(good_images(data / "conveyor/bolt-multi-size-detection.gif"))) == 37
    assert len(list(good_images(data / "conveyor/bottle-detection.mp4", slice(0, 90, 30)))) == 3


@pytest.mark.parametrize("text", ["", "5", "a:b", "1:2:3:4", "0:9:0", "0:9:-1", "1.5:3", "0-9"])
def test_ranges_of_another_form_are_refused(text: str) -> None:
    with pytest.raises(SettingError, match="is not a range"):
        frame_range(text)


def test_ranges_are_those_of_python() -> None:
    assert frame_range("2:10:3") == slice(2, 10, 3)
    assert frame_range(":") == slice(None, None)
    assert frame_range("-5::2") == slice(-5, None, 2)
