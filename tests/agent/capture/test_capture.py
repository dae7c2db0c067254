"""``shiftwatch-agent capture``: which frames become files, and how it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from dataclasses import replace
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from agent.camera import Frame
from agent.capture import recording
from agent.capture.recording import Recording, record
from agent.capture.selection import AtIntervals, Settled
from agent.cli import main
from agent.errors import CameraError
from agent.state_lock import state_lock
from calibration.bundle.bundle import open_bundle
from calibration.errors import DatasetError, StorageError
from calibration.imaging.image_files import read_image
from calibration.imaging.region import Region
from calibration.workstation.cli import camera_images
from calibration.workstation.cli.main import main as calibrate
from tests.support.network_camera import NetworkCamera
from tests.support.stations import good_parts, until, write_config

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from calibration.imaging.preprocess import Image

FRAME_MS = 40
SETTLED_MS = 200
WAIT_S = 30.0


class Belt:
    """Bright parts that come from the left, stand and go to the right, before a camera with noise."""

    def __init__(self) -> None:
        self._chance = np.random.default_rng(0)

    def __call__(self, *x_px: int | None) -> list[Image]:
        return [self._image(x) for x in x_px]

    def _image(self, x_px: int | None) -> Image:
        image = np.full((96, 128, 3), 90, np.uint8)
        if x_px is not None:
            cv2.rectangle(image, (x_px, 30), (x_px + 40, 70), (200, 210, 220), -1)
        return np.clip(image + self._chance.normal(0, 2, image.shape), 0, 255).astype(np.uint8)

    def part(self, *, stands: int = 12) -> list[Image]:
        return self(-40, -10, 20, *[44] * stands, 70, 100, 130)

    def empty(self, count: int = 12) -> list[Image]:
        return self(*[None] * count)


def frames_of(images: Sequence[Image], every_ms: int = FRAME_MS) -> list[Frame]:
    return [
        Frame(number, image, 1_000_000 + number * every_ms, number * every_ms * 1_000_000)
        for number, image in enumerate(images)
    ]


class Playing:
    """A camera that gives these frames, and None where it gives none."""

    def __init__(self, frames: Sequence[Frame | None], reason: str = "") -> None:
        self._frames = frames
        self.reason = reason

    def __iter__(self) -> Iterator[Frame | None]:
        return iter(self._frames)


def kept(selection: AtIntervals | Settled, frames: Sequence[Frame]) -> list[int]:
    return [frame.seq for frame in frames if selection(frame)]


def never(_: Recording) -> bool:
    return False


# Which frames


def test_at_intervals_the_first_frame_and_then_one_per_interval_is_kept() -> None:
    frames = frames_of(Belt().empty(101))
    assert kept(AtIntervals(1.0), frames) == [0, 25, 50, 75, 100]
    assert kept(AtIntervals(0), frames) == list(range(101))


def test_each_part_that_stands_still_is_kept_once_and_no_moving_one() -> None:
    belt = Belt()
    images = [*belt.empty(), *belt.part(), *belt.part(stands=40), *belt.part(stands=2), *belt.part()]
    empty = belt.empty(1)[0]
    found = kept(Settled(SETTLED_MS, empty=empty), frames_of(images))
    assert len(found) == 3
    first = 12 + 3  # where the first part begins to stand
    assert first + 5 <= found[0] < first + 12
    assert all(np.array_equal(images[each][40:60, 50:80] > 150, np.ones((20, 30, 3), bool)) for each in found)


def test_the_place_without_a_part_is_kept_unless_its_image_is_given() -> None:
    belt = Belt()
    images = [*belt.empty(), *belt.part(), *belt.empty(20), *belt.part(), *belt.empty(20)]
    assert len(kept(Settled(SETTLED_MS, empty=belt.empty(1)[0]), frames_of(images))) == 2
    assert len(kept(Settled(SETTLED_MS), frames_of(images))) == 4


def test_what_moves_outside_the_region_does_not_matter() -> None:
    belt = Belt()
    frames = frames_of([*belt.empty(), *belt.part(), *belt.part()])
    for frame in frames:
        frame.image[:20] = 40 * (frame.seq % 6)
    assert kept(Settled(SETTLED_MS), frames) == []
    assert len(kept(Settled(SETTLED_MS, Region(0, 24, 128, 60), belt.empty(1)[0]), frames)) == 2


def test_a_region_outside_the_frame_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="does not fit into a frame"):
        record(Playing(frames_of(Belt().empty(2))), Settled(0, Region(100, 0, 100, 10)), tmp_path, never)  # type: ignore[arg-type]


# Files


def test_images_are_written_as_the_camera_gave_them_in_the_order_of_time(tmp_path: Path) -> None:
    frames = frames_of(Belt().part())
    done = record(Playing([None, *frames, None]), AtIntervals(0), tmp_path / "a" / "b", never)  # type: ignore[arg-type]
    paths = sorted((tmp_path / "a" / "b").iterdir())
    assert (done.kept, done.frames, done.damaged) == (len(frames), len(frames), 0)
    assert all(np.array_equal(read_image(path), frame.image) for path, frame in zip(paths, frames, strict=True))


def test_nothing_is_overwritten_and_a_folder_is_continued(tmp_path: Path) -> None:
    frames = frames_of(Belt().empty(3), every_ms=0)  # all at the same moment
    for total in (3, 6):
        assert record(Playing(frames), AtIntervals(0), tmp_path, never).kept == total  # type: ignore[arg-type]
    assert len(list(tmp_path.iterdir())) == 6
    assert record(Playing(frames), AtIntervals(0), tmp_path, lambda done: done.kept >= 6).frames == 0  # type: ignore[arg-type]


def test_damaged_frames_are_counted_and_not_kept(tmp_path: Path) -> None:
    frames = frames_of(Belt().empty(4))
    frames[2] = replace(frames[2], is_damaged=True)
    done = record(Playing(frames), AtIntervals(0), tmp_path, never)  # type: ignore[arg-type]
    assert (done.kept, done.frames, done.damaged) == (3, 4, 1)


def test_a_camera_that_gives_nothing_ends_with_its_reason_and_one_that_is_lost_later_is_awaited(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "_FIRST_FRAME_S", 0.0)
    with pytest.raises(CameraError, match=r"no frame within .*: the cable is out"):
        record(Playing([None], "the cable is out"), AtIntervals(0), tmp_path, never)  # type: ignore[arg-type]
    seen: list[str] = []
    frames = frames_of(Belt().empty(2))
    playing = Playing([frames[0], None, frames[1]], "the cable is out")
    record(playing, AtIntervals(0), tmp_path, lambda done: bool(seen.append(done.lost)))  # type: ignore[arg-type, func-returns-value]
    assert seen == ["", "", "the cable is out", ""]


def test_an_interrupt_right_after_a_file_was_written_leaves_no_image_uncounted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, seen = recording.write_frame, Recording(0)

    def interrupted(folder: Path, frame: Frame) -> None:
        write(folder, frame)
        raise KeyboardInterrupt

    def is_enough(done: Recording) -> bool:
        nonlocal seen
        seen = done
        return False

    monkeypatch.setattr(recording, "write_frame", interrupted)
    with pytest.raises(KeyboardInterrupt):
        record(Playing(frames_of(Belt().empty(2))), AtIntervals(0), tmp_path, is_enough)  # type: ignore[arg-type]
    assert seen.kept == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StorageError, match=r"cannot write .*file"):
        record(Playing([]), AtIntervals(0), tmp_path / "file", never)  # type: ignore[arg-type]


# The command


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, str, str]]:
    """Runs ``shiftwatch-agent capture``; gives exit code, output and errors."""

    def run(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["shiftwatch-agent", "capture", *map(str, arguments)])
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
        with pytest.raises(SystemExit) as ended:
            main()
        for number, handler in handlers.items():
            signal.signal(number, handler)
        return (int(ended.value.code or 0), *capfd.readouterr())

    return run


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A folder that stands for a camera."""
    folder = tmp_path / "belt"
    folder.mkdir()
    for number, image in enumerate([*Belt().empty(), *Belt().part(), *Belt().part()]):
        cv2.imwrite(str(folder / f"{number:03}.png"), image)
    return folder


def test_the_camera_and_the_trigger_of_a_station_are_used(
    command: Callable[..., tuple[int, str, str]], images: Path, tmp_path: Path
) -> None:
    config = write_config(
        tmp_path, tmp_path / "no-bundle-yet", images, 1883, trigger={"source": "motion", "settled_ms": 0}
    )
    code, out, _ = command(tmp_path / "settled", "--config", config)
    assert code == 0
    settled = len(list((tmp_path / "settled").iterdir()))
    assert 1 <= settled <= 4
    assert f"{settled} image" in out
    assert "shiftwatch-calibrate fit" in out
    assert command(tmp_path / "all", "--config", config, "--all", "--interval-s", 0, "--count", 7)[0] == 0
    assert len(list((tmp_path / "all").iterdir())) == 7


def test_what_does_not_go_together_is_refused(
    command: Callable[..., tuple[int, str, str]], images: Path, tmp_path: Path
) -> None:
    config = write_config(tmp_path, tmp_path / "bundle", images, 1883)
    for options, words in (
        (("--camera", 0, "--config", config), "both --camera and --config"),
        (("--config", config, "--roi", "1,2,3,4"), "go with --settled"),
        (("--config", config, "--passing", "--roi", "1,2,3,4"), "go with --settled"),
        (("--config", config, "--passing", "--settled"), "both --passing and --settled"),
        (("--config", config, "--turn"), "--turn goes with --passing"),
        (("--config", config, "--settled", "--roi", "1,2,3"), "--roi 1,2,3 is not a region"),
        (("--config", config, "--settled", "--empty", tmp_path / "none.png"), "none.png"),
    ):
        code, _, err = command(tmp_path / "out", *options)
        assert (code, words in err) == (2, True), err
    assert not (tmp_path / "out").exists()


def test_a_live_camera_is_not_taken_from_a_running_agent(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    config = write_config(tmp_path, tmp_path / "bundle", "rtsp://127.0.0.1:9/x", 1883)
    with state_lock(tmp_path / "state"):
        code, _, err = command(tmp_path / "out", "--config", config)
    assert code == 2
    assert "used by the agent that is running" in err


@pytest.mark.slow
def test_a_network_camera_is_recorded_until_the_command_is_interrupted(tmp_path: Path) -> None:
    with NetworkCamera() as camera:
        command = [sys.executable, "-m", "agent", "capture", str(tmp_path / "out"), "--camera", camera.address]
        with subprocess.Popen([*command, "--interval-s", "0.1"], stdout=subprocess.PIPE, text=True) as process:  # noqa: S603
            until(lambda: len(list(tmp_path.glob("out/*.png"))) >= 3, WAIT_S)
            process.send_signal(signal.SIGTERM)
            out, _ = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0
    count = len(list(tmp_path.glob("out/*")))
    assert f": {count} images, from" in out


@pytest.mark.slow
def test_a_bundle_is_calibrated_from_a_camera_in_one_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "bundle"

    def fit(camera: str) -> int:
        arguments = ["fit", camera, "--out", out, "--images", "3", "--size", "64x64", "--detector", "patchcore"]
        monkeypatch.setattr(sys, "argv", ["shiftwatch-calibrate", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            calibrate()
        return int(ended.value.code or 0)

    with NetworkCamera(images=good_parts(7)) as camera:
        assert fit(camera.address) == 0, capfd.readouterr().err
        bundle = open_bundle(out)
        assert bundle.manifest.images.count == 3
        assert len(list(tmp_path.glob("bundle.images/*.png"))) == 3
        assert camera.address not in (out / "manifest.json").read_text()
        capfd.readouterr()
        assert fit(camera.address) == 2  # before anything is recorded
    assert "already exists" in capfd.readouterr().err


@pytest.mark.slow
def test_ctrl_c_ends_the_recording_and_calibration_begins(tmp_path: Path) -> None:
    calibrate_command = "from calibration.workstation.cli.main import main; main()"
    options = ["--out", tmp_path / "[b]undle", "--images", "1000", "--size", "64x64", "--detector", "patchcore"]
    with NetworkCamera(images=good_parts(7)) as camera:
        command = [sys.executable, "-c", calibrate_command, "fit", camera.address, *map(str, options)]
        with subprocess.Popen(  # noqa: S603 - our own program
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
        ) as process:
            until(lambda: len(list((tmp_path / "[b]undle.images").glob("*.png"))) >= 3, WAIT_S)
            os.killpg(process.pid, signal.SIGINT)  # as a terminal does
            out, _ = process.communicate(timeout=2 * WAIT_S)
    assert process.returncode == 0, out
    assert "[b]undle.images; Ctrl-C ends the recording" in out.replace("\n", "")
    assert open_bundle(tmp_path / "[b]undle").manifest.images.count >= 3


@pytest.mark.parametrize(
    ("source", "is_camera"),
    [
        ("0", True),
        ("/dev/video7", True),
        ("rtsp://cam/1", True),
        ("videotestsrc ! appsink", True),
        ("genicam:", True),
        ("basler:4001", True),
        ("photos", False),
        (f"videotestsrc pattern={'a' * 300} ! appsink", True),
    ],
)
def test_cameras_are_distinguished_from_files_by_their_form(*, source: str, is_camera: bool) -> None:
    assert camera_images._is_camera(source) == is_camera


def test_a_folder_named_like_a_device_number_is_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "0").mkdir()
    monkeypatch.chdir(tmp_path)
    assert not camera_images._is_camera("0")
