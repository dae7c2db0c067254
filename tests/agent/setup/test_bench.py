"""The camera of a set-up: live figures, parts counted and collected, and words where something is in the way."""

from __future__ import annotations

import queue
import threading
import time
from itertools import count
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from agent import from_config
from agent.camera import Frame
from agent.errors import CameraError
from agent.setup import bench as bench_module
from agent.setup import tray as tray_module
from agent.setup.bench import Bench
from agent.setup.draft import Drafts
from agent.setup.tray import Tray
from calibration.errors import DatasetError
from tests.support.fakes import FakeCamera
from tests.support.stations import until
from tests.support.washers import save, washer

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from typing_extensions import Self

    from agent.config.camera import CameraConfig
    from calibration.imaging.preprocess import Image

FRAME_NS = 33_000_000
EMPTY = np.full((96, 128, 3), 90, np.uint8)
MOTION = {"source": "motion", "settled_ms": 100}


def bare(number: int = 0) -> Image:
    noise = np.random.default_rng(number).normal(0, 1, EMPTY.shape)
    return np.clip(EMPTY + noise, 0, 255).astype(np.uint8)


def passing(number: int) -> list[Image]:
    """A part comes, stands and goes; then the place is empty."""
    images = [bare(1000 * number + each) for each in range(30)]
    for image, x_px in zip(images, (-40, -10, 20, *[44] * 10, 70, 100), strict=False):
        cv2.rectangle(image, (x_px, 30), (x_px + 40, 70), (200, 210, 220), -1)
    return images


class FedCamera(FakeCamera):
    """Gives what a test puts into it; each camera that is opened is another one."""

    def __init__(self) -> None:
        self.queue: queue.Queue[Frame] = queue.Queue()
        self.is_open = False
        self.triggered = 0
        self._is_stopped = threading.Event()
        self._seq = count()
        self._now_ns = time.monotonic_ns()

    def put(self, images: Sequence[Image], *, damaged: bool = False) -> None:
        """Frames 33 ms from each other, at once; wait until they were looked at."""
        for image in images:
            self._now_ns = max(self._now_ns + FRAME_NS, time.monotonic_ns())
            seq = next(self._seq)
            self.queue.put(Frame(seq, image, 1_700_000_000_000 + seq * 33, self._now_ns, is_damaged=damaged))
        until(self.queue.empty)

    def trigger(self) -> None:
        self.triggered += 1

    def __enter__(self) -> Self:
        self.is_open = True
        return self

    def __exit__(self, *_: object) -> None:
        self.is_open = False

    def __iter__(self) -> Iterator[Frame | None]:
        while not self._is_stopped.is_set():
            yield self._next()

    def _next(self) -> Frame | None:
        try:
            return self.queue.get(timeout=0.01)
        except queue.Empty:
            return None

    def stop(self) -> None:
        self._is_stopped.set()


class World:
    """A bench whose cameras are fed by the test."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.cameras: list[FedCamera] = []
        self.asked: list[tuple[Any, ...]] = []
        self.collected = 0
        self.drafts = Drafts(folder / "draft.yaml", folder, {})
        self.tray = Tray(folder / "good")
        self.empty = folder / "empty.png"
        self.bench = Bench(self.drafts, self.tray, self.empty, self._count)
        self.drafts.changed = self._follow
        monkeypatch.setattr(from_config, "open_camera", self._open)
        monkeypatch.setattr(bench_module, "_AGAIN_AFTER_S", 0.01)

    @property
    def state(self) -> dict[str, Any]:
        return self.bench.state()

    @property
    def camera(self) -> FedCamera:
        return self.cameras[-1]

    def use(self, source: object = 0, **more: object) -> FedCamera:
        """Choose a camera, and wait until it runs."""
        cameras = len(self.cameras)
        self.drafts.change(camera={"source": source, **more})
        until(lambda: len(self.cameras) > cameras and self.camera.is_open)
        self.camera.put([bare()])
        until(lambda: self.state["isLive"])
        return self.camera

    def _open(self, *asked: object, **_: object) -> FedCamera:
        self.asked.append(asked)
        self.cameras.append(FedCamera())
        return self.cameras[-1]

    def _count(self) -> None:
        self.collected += 1

    def _follow(self, changed: set[str]) -> None:
        if "camera" in changed:
            self.bench.open_again()
        else:
            self.bench.select_again()


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path, monkeypatch)
    with world.bench:
        yield world
    assert not any(camera.is_open for camera in world.cameras)


def test_without_a_camera_there_is_no_picture_and_no_problem(world: World) -> None:
    assert (world.state["source"], world.state["isLive"], world.state["problem"]) == (None, False, "")
    assert world.bench.picture_after(-1, 0.01) is None
    with pytest.raises(DatasetError, match="the camera gives no picture"):
        world.bench.newest()


def test_the_newest_picture_comes_once(world: World) -> None:
    camera = world.use()
    first = world.bench.picture_after(-1, 5.0)
    assert first is not None
    assert world.bench.picture_after(first[0], 0.01) is None
    camera.put([washer(1)])
    second = world.bench.picture_after(first[0], 5.0)
    assert second is not None
    image = cv2.imdecode(np.frombuffer(second[1], np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert image.shape == washer(1).shape
    assert np.array_equal(world.bench.newest(), washer(1))
    assert world.state["size"] == [64, 64]


def test_parts_that_come_stand_still_and_go_are_counted_and_collected(world: World) -> None:
    assert cv2.imwrite(str(world.empty), EMPTY)
    world.drafts.change(trigger=MOTION)
    camera = world.use()
    camera.put([bare(each) for each in range(10)])
    camera.put(passing(1))
    until(lambda: world.state["parts"] == 1)
    assert world.tray.names == []
    world.bench.collect(is_on=True)
    for number in (2, 3):
        camera.put(passing(number))
    until(lambda: world.state["parts"] == 3)
    until(lambda: len(world.tray.names) == world.collected == 2)
    world.bench.collect(is_on=False)
    camera.put(passing(4))
    until(lambda: world.state["parts"] == 4)
    assert len(world.tray.names) == 2
    for name in world.tray.names:
        assert world.tray.image(name)[50, 60].mean() > 150  # the part, and not the empty place


def test_without_an_image_of_it_the_empty_place_counts_until_it_is_known(world: World) -> None:
    world.drafts.change(trigger=MOTION)
    camera = world.use()
    camera.put([bare(each) for each in range(10)])
    camera.put(passing(1))
    until(lambda: world.state["parts"] == 2)
    assert cv2.imwrite(str(world.empty), EMPTY)
    world.bench.select_again()
    camera.put([bare(each) for each in range(10)])
    camera.put(passing(2))
    until(lambda: world.state["parts"] == 1)


def test_where_each_frame_is_a_part_two_a_second_are_collected(world: World) -> None:
    camera = world.use()
    world.bench.collect(is_on=True)
    before = len(world.tray.names)
    camera.put([bare(each) for each in range(78)])  # two and a half seconds
    until(lambda: len(world.tray.names) - before >= 4)
    assert len(world.tray.names) - before <= 5


def test_where_the_line_triggers_the_next_frame_after_a_request_is_a_part(world: World) -> None:
    world.drafts.change(trigger={"source": "command"})
    camera = world.use()
    world.bench.collect(is_on=True)
    camera.put([bare(1), bare(2)])
    assert world.state["parts"] == 0
    time_before_ns = camera._now_ns
    until(lambda: time.monotonic_ns() > time_before_ns)
    world.bench.take_one()
    camera.put([washer(3), bare(4), bare(5)])
    until(lambda: len(world.tray.names) == 1)
    assert np.array_equal(world.tray.image(world.tray.names[0]), washer(3))
    assert camera.triggered == 1  # one that waits for that takes its image now


def test_damaged_frames_are_passed_over(world: World) -> None:
    camera = world.use()
    camera.put([washer(9)], damaged=True)
    camera.put([washer(1)])
    until(lambda: np.array_equal(world.bench.newest(), washer(1)))
    assert world.state["problem"] == ""


def test_a_region_outside_the_frame_is_reported_until_it_fits(world: World) -> None:
    world.drafts.change(trigger=MOTION, zones=[{"region": [100, 0, 64, 64]}])
    camera = world.use()
    camera.put([bare(1)])
    until(lambda: "128" in world.state["problem"])
    assert world.state["isLive"]
    world.drafts.change(zones=[{"region": [0, 0, 64, 64]}])
    camera.put([bare(2)])
    until(lambda: world.state["problem"] == "")


def test_an_image_of_the_empty_place_that_cannot_be_read_is_reported_until_it_is_replaced(world: World) -> None:
    world.empty.write_bytes(b"no image")
    world.drafts.change(trigger=MOTION)
    camera = world.use()
    for number in range(2):
        camera.put([bare(number)])
        until(lambda: str(world.empty) in world.state["problem"])
    world.empty.unlink()
    camera.put([bare(3)])
    until(lambda: world.state["problem"] == "")


def test_a_tray_that_is_full_ends_collecting_in_words_and_the_picture_stays(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tray_module, "_MOST_IMAGES", 1)
    camera = world.use()
    world.bench.collect(is_on=True)
    camera.put([bare(each) for each in range(60)])
    until(lambda: not world.bench.is_collecting)
    assert "1 images are in the tray, and that is enough" in world.state["problem"]
    camera.put([washer(1)])
    assert (world.state["isLive"], len(world.cameras), len(world.tray.names)) == (True, 1, 1)
    monkeypatch.setattr(tray_module, "_MOST_IMAGES", 9)
    world.bench.collect(is_on=True)
    assert world.state["problem"] == ""


def test_another_camera_takes_the_place_of_the_first(world: World) -> None:
    first = world.use(0)
    second = world.use("rtsp://user:secret@camera/1")
    assert (first.is_open, second.is_open) == (False, True)
    assert [asked[0] for asked in world.asked] == [0, "rtsp://user:secret@camera/1"]
    assert world.state["source"] == "rtsp://***@camera/1"
    assert "secret" not in str(world.state)


def test_a_camera_that_does_not_open_is_tried_again_and_says_why(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    attempts: list[CameraConfig] = []

    def refuse(*_: object, **__: object) -> None:
        attempts.append(world.drafts.draft.camera)  # type: ignore[arg-type]
        raise CameraError(what="camera 0 does not open", remedy="check the cable")

    with monkeypatch.context() as patch:
        patch.setattr(from_config, "open_camera", refuse)
        world.drafts.change(camera={"source": 0})
        until(lambda: len(attempts) > 2)
        until(lambda: world.state["problem"] == "camera 0 does not open; check the cable")
        assert not world.state["isLive"]
    until(lambda: world.cameras)
    world.camera.put([bare()])
    until(lambda: world.state["isLive"])
    assert world.state["problem"] == ""


def test_an_unexpected_error_is_shown_and_does_not_end_the_set_up(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError

    with monkeypatch.context() as patch:
        patch.setattr(from_config, "open_camera", broken)
        world.drafts.change(camera={"source": 0})
        until(lambda: world.state["problem"] == "RuntimeError: ")
    until(lambda: world.cameras)


def test_a_real_folder_is_played_again_and_again(tmp_path: Path) -> None:
    source = save(tmp_path / "belt", [washer(number) for number in range(3)])
    drafts = Drafts(tmp_path / "draft.yaml", tmp_path, {"camera": {"source": str(source), "frames_per_s": 100}})
    tray = Tray(tmp_path / "good")
    with Bench(drafts, tray, tmp_path / "empty.png", lambda: None) as bench:
        until(lambda: bench.state()["figures"])
        first = bench.picture_after(-1, 5.0)
        assert first is not None
        until(lambda: (bench.picture_after(-1, 5.0) or first)[0] > first[0] + 5)
        assert bench.state()["figures"]["focus"] > 0.5
