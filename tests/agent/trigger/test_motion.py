"""Parts that come, stand still and go, before a camera with noise and a lamp that flickers."""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from agent.alerts.defect import Rules
from agent.camera import Frame
from agent.config.model import load
from agent.demo import conveyor
from agent.demo.flange import SIZE_PX, Flange, draw_flange
from agent.doctor.network_probe import network
from agent.errors import ConfigError
from agent.frame_checks.camera_checks import FrameChecks
from agent.frame_checks.empty_place import EmptyPlace
from agent.from_config import empty_place_of
from agent.inspection.score import score_frame
from agent.messages.records import ResultCode
from agent.station.run import Stop, run_station
from agent.trigger.motion import OnMotion
from agent.trigger.part import Part
from agent.trigger.plc_handshake import Handshake
from agent.zones.recipe import Recipe
from calibration.backbones.backbone import filterbank_backbone
from calibration.bundle.bundle import open_bundle
from calibration.camera_checks.reference import ReferenceStatistics
from calibration.imaging.preprocess import Preprocess, Region
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings
from tests.support.fakes import FakeEngine
from tests.support.stations import closed_port, kept_records, part, write_config, write_pictures
from tests.support.washers import Drawn

if TYPE_CHECKING:
    from collections.abc import Iterable

    from calibration.imaging.preprocess import Image

pytestmark = pytest.mark.slow

FRAME_MS = 33
SETTLED_MS = 200
SETTLED_FRAMES = 7
FAR_PX = 560
TOP, LEFT = (conveyor.HEIGHT_PX - SIZE_PX) // 2, (conveyor.WIDTH_PX - SIZE_PX) // 2
SCENE = Preprocess(384, 384, conveyor.REGION)


class Belt:
    """Flanges on the demo's belt, which stops and goes; each move is a list of pictures."""

    def __init__(self, noise: float = 1.0, flicker: float = 0.0) -> None:
        self._noise, self._flicker = noise, flicker
        self._chance = np.random.default_rng(3)
        self._way_px = 0.0
        self._number = 0
        self.flange: Flange | None = None

    def stand(self, count: int = 12) -> list[Image]:
        return [self._picture(0, None) for _ in range(count)]

    def index(self, *, to: bool = True, count: int = 10) -> list[Image]:
        """The next flange comes (or the bare belt), the one that is there goes."""
        before, self.flange = self.flange, draw_flange(self._chance) if to else None
        return [self._picture(FAR_PX * number / count, before, FAR_PX / count) for number in range(1, count + 1)]

    def hand(self, count: int = 12) -> list[Image]:
        pictures = self.stand(count)
        for number, picture in enumerate(pictures):
            place = (-100 + 840 * (number + 1) // count, 300)
            cv2.ellipse(picture, place, (70, 220), 20, 0, 360, (120, 150, 200), -1)
        return pictures

    def _picture(self, gone_px: float, before: Flange | None, step_px: float = 0.0) -> Image:
        self._way_px += step_px
        self._number += 1
        x = int(self._way_px) % 1700
        scene = conveyor._belt()[6 : 6 + conveyor.HEIGHT_PX, x : x + conveyor.WIDTH_PX].copy()
        if gone_px and before is not None:
            _lay(scene, before, gone_px)
        if self.flange is not None:
            _lay(scene, self.flange, gone_px - FAR_PX if gone_px else 0)
        light = 1 + self._flicker * np.sin(2 * np.pi * 0.31 * self._number)
        y, x = self._chance.integers(256, size=2)
        grains = conveyor._noise()[y : y + conveyor.HEIGHT_PX, x : x + conveyor.WIDTH_PX] * np.float32(self._noise)
        return np.asarray(cv2.add(scene * conveyor._light() * np.float32(light), grains, dtype=cv2.CV_8U))


def _lay(scene: np.ndarray, flange: Flange, off_px: float) -> None:
    start = LEFT + round(off_px)
    left, right = max(0, start), min(conveyor.WIDTH_PX, start + SIZE_PX)
    if left < right:
        window, piece = scene[TOP : TOP + SIZE_PX, left:right], np.s_[:, left - start : right - start]
        window += flange.cover[piece][..., np.newaxis] * (flange.colour[piece] - window)


@cache
def empty_place() -> EmptyPlace:
    learnt = ReferenceStatistics()
    for one in conveyor.parts(12, seed=1):
        learnt.update(SCENE(one.image), SCENE.region_of_interest(one.image), one.image.shape[:2])
    return EmptyPlace(Belt().stand(1)[0], SCENE, learnt.arrays(sequential=False))


@dataclass
class Watched:
    trigger: OnMotion
    handshake: Handshake
    parts: list[tuple[int, Part]]

    @property
    def numbers(self) -> list[int]:
        return [number for number, _ in self.parts]


def watch(
    pictures: Iterable[Image],
    place: EmptyPlace | None = None,
    unsettled_ms: float = 60_000,
    preprocess: Preprocess = SCENE,
    checks: FrameChecks | None = None,
) -> Watched:
    """The numbers of the pictures that are parts, each of one frame."""
    recipe = Recipe(preprocess, FakeEngine(), Rules(threshold=1.0), (2, 2), checks, place)
    handshake = Handshake(0, lambda: ResultCode.TOO_LATE)
    trigger = OnMotion(handshake, lambda: (recipe,), SETTLED_MS, unsettled_ms)
    parts, captured = [], 0
    for number, picture in enumerate(pictures):
        captured += 1
        shown = trigger(Frame(number, picture, 1000 + number, number * FRAME_MS * 1_000_000))
        if shown is not None:
            parts.append((number, shown))
        elif checks is not None:
            checks.pass_over(picture)
    assert captured == len(parts) + trigger.dropped.total()
    return Watched(trigger, handshake, parts)


@pytest.mark.parametrize(("noise", "flicker"), [(1.0, 0.0), (3.0, 0.15), (0.0, 0.0)])
def test_each_part_that_settles_is_checked_once_and_at_once(noise: float, flicker: float) -> None:
    belt = Belt(noise, flicker)
    clip = [("empty", belt.stand()), ("in", belt.index()), ("part", belt.stand()), ("index", belt.index())]
    clip += [("part", belt.stand()), ("index", belt.index()), ("part", belt.stand()), ("out", belt.index(to=False))]
    clip += [("empty", belt.stand()), ("hand", belt.hand()), ("empty", belt.stand()), ("in", belt.index())]
    clip += [("part", belt.stand())]
    watched = watch([picture for _, pictures in clip for picture in pictures], empty_place())
    began, expected = 0, []
    for name, pictures in clip:
        if name == "part":
            expected.append(began)
        began += len(pictures)
    assert [
        range(first, first + SETTLED_FRAMES + 2).count(number)
        for first, number in zip(expected, watched.numbers, strict=True)
    ] == [1] * 4
    assert watched.trigger.dropped["empty"] == 2


def test_without_an_image_of_the_empty_place_all_that_settles_is_a_part() -> None:
    belt = Belt()
    pictures = [*belt.stand(), *belt.index(), *belt.stand(), *belt.index(to=False), *belt.stand()]
    assert len(watch(pictures).parts) == 2


def test_nothing_is_a_part_before_something_has_moved() -> None:
    belt = Belt(3.0, 0.15)
    belt.index()
    watched = watch(belt.stand(40))
    assert watched.parts == []
    assert watched.trigger.dropped == {"untriggered": 40}


def test_a_part_that_something_has_passed_before_is_checked_again() -> None:
    """It cannot be told from the next one: those that are alike must not pass unseen."""
    belt = Belt()
    pictures = [*belt.stand(4), *belt.index(), *belt.stand(), *belt.hand(), *belt.stand()]
    assert len(watch(pictures, empty_place()).parts) == 2


def test_a_damaged_frame_is_no_part_and_no_motion() -> None:
    recipe = Recipe(SCENE, FakeEngine(), Rules(threshold=1.0), (2, 2))
    trigger = OnMotion(Handshake(0, lambda: ResultCode.TOO_LATE), lambda: (recipe,), SETTLED_MS, 60_000)
    frames = [Frame(number, picture, 0, number) for number, picture in enumerate(Belt().stand(4))]
    damaged = replace(frames[-1], image=np.zeros_like(frames[-1].image), is_damaged=True)
    assert [trigger(frame) for frame in (*frames, damaged)] == [None] * 5
    assert trigger.dropped == {"untriggered": 4, "unreadable": 1}
    part = Part(None, 0, 0)
    assert trigger(damaged, part) is part


def test_a_part_that_creeps_does_not_settle() -> None:
    belt = Belt()
    pictures = [*belt.stand(4), *belt.index(count=8)]
    belt.stand(1)
    assert belt.flange is not None
    creeping = belt.flange
    for number in range(60):
        belt.flange = replace(
            creeping, colour=moved(creeping.colour, 0.2 * number), cover=moved(creeping.cover, 0.2 * number)
        )
        pictures += belt.stand(1)
    watched = watch(pictures)
    assert watched.parts == []
    assert watched.trigger.dropped["moving"] > 60


def test_key_frames_of_a_video_are_no_parts() -> None:
    pictures = Belt(0.5).stand(100)
    again = np.random.default_rng(1).normal(0, 4.0, (conveyor.HEIGHT_PX // 8, conveyor.WIDTH_PX // 8, 3))
    blocks = cv2.resize(again, (conveyor.WIDTH_PX, conveyor.HEIGHT_PX), interpolation=cv2.INTER_NEAREST)
    for number in range(0, 100, 20):
        pictures[number : number + 10] = [
            np.clip(picture + blocks, 0, 255).astype(np.uint8) for picture in pictures[number : number + 10]
        ]
    watched = watch(pictures)
    assert watched.parts == []


def test_a_start_in_the_middle_of_a_motion_misses_no_part() -> None:
    belt = Belt()
    pictures = [*belt.index()[4:], *belt.stand(25)]
    assert len(watch(pictures).parts) == 1


def moved(field: np.ndarray, px: float) -> np.ndarray:
    return np.asarray(cv2.warpAffine(field, np.array([[1, 0, px], [0, 1, 0]]), (SIZE_PX, SIZE_PX)), np.float32)


def test_whatever_is_strange_is_no_empty_place() -> None:
    empty, place = Belt().stand(1)[0], empty_place()
    assert place(empty)
    assert place(np.clip(empty * 1.25, 0, 255).astype(np.uint8))
    assert not any(place(strange) for strange in (np.zeros_like(empty), np.full_like(empty, 255), empty // 4))
    defective = [one.image for one in conveyor.parts(10, seed=5, defect_every=5)]
    assert not any(place(image) for image in defective)
    half = defective[0].copy()
    half[:, : conveyor.WIDTH_PX // 2] = empty[:, : conveyor.WIDTH_PX // 2]
    assert not place(half)


def test_what_never_settles_is_reported_and_recorded_once_and_checked_when_it_does(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "agent.trigger.motion")
    belt = Belt()
    pictures = [*belt.stand(4)] + [picture for _ in range(5) for picture in belt.index()]
    watched = watch(pictures, unsettled_ms=1000)
    assert watched.parts == []
    assert watched.trigger.dropped["unsettled"] > 15
    overdue = watched.handshake.overdue()
    (said,) = watched.handshake.take()
    assert (said["valid"], said["resultCode"], said["partId"]) == (False, 3, None)
    assert watched.trigger.withdraw(overdue) == overdue
    assert len(overdue) == 1
    assert watched.trigger.withdraw(overdue) == []
    assert len(watch([*pictures, *belt.stand()], unsettled_ms=1000).parts) == 1
    messages = [record.message for record in caplog.records]
    assert [message.split(" 1.")[0] for message in messages] == [
        "what is before the camera has not stood still for",
        "what is before the camera has not stood still for",
        "what is before the camera stands still again",
    ]


def test_a_pause_in_the_middle_of_a_motion_is_no_motion() -> None:
    belt = Belt()
    first, then = belt.stand(4) + belt.index()[:5], belt.index() + belt.stand()
    recipe = Recipe(SCENE, FakeEngine(), Rules(threshold=1.0), (2, 2))
    trigger = OnMotion(Handshake(0, lambda: ResultCode.TOO_LATE), lambda: (recipe,), SETTLED_MS, 1000)
    for start_ms, pictures in ((0, first), (60_000, then)):
        parts = [
            trigger(Frame(number, picture, 0, (start_ms + number * FRAME_MS) * 1_000_000))
            for number, picture in enumerate(pictures)
        ]
    assert sum(part is not None for part in parts) == 1
    assert trigger.dropped["unsettled"] == 0


def test_a_part_stays_current_until_it_moves() -> None:
    belt = Belt()
    pictures = [*belt.stand(4), *belt.index(), *belt.stand(9), *belt.index()]
    recipe = Recipe(SCENE, FakeEngine(), Rules(threshold=1.0), (2, 2))
    trigger = OnMotion(Handshake(0, lambda: ResultCode.TOO_LATE), lambda: (recipe,), SETTLED_MS, 60_000)
    current, frames = None, 0
    for number, picture in enumerate(pictures):
        current = trigger(Frame(number, picture, 0, number * FRAME_MS * 1_000_000), current)
        frames += current is not None
    assert current is None
    assert 2 <= frames <= 4


def test_a_camera_that_freezes_is_checked_once() -> None:
    belt = Belt()
    checks = FrameChecks({"thumbnail_mean": np.zeros((32, 32))}, SCENE, frozen_after=5)
    picture = belt.stand(1)[0]
    watched = watch([*belt.stand(5), *[picture] * 20], preprocess=SCENE, checks=checks)
    assert len(watched.parts) == 1
    assert checks.is_frozen


def test_frames_of_another_resolution_are_checked_which_says_so() -> None:
    small = np.zeros((100, 100, 3), np.uint8)
    watched = watch([small] * 3)
    assert watched.numbers == [0, 1, 2]
    recipe = Recipe(SCENE, FakeEngine(), Rules(threshold=1.0), (2, 2))
    assert score_frame(Frame(0, small, 0, 0), watched.parts[0][1], recipe).code is ResultCode.FRAME_UNUSABLE


def test_a_real_belt_that_stops_gives_one_part() -> None:
    folder = Path(os.environ.get("SHIFTWATCH_DATA", "../shared/data"), "conveyor")
    if not folder.is_dir():
        pytest.skip(f"no {folder}")
    video = cv2.VideoCapture(str(folder / "bolt-multi-size-detection.gif"))
    pictures = []
    while (frame := video.read())[0]:
        pictures.append(np.asarray(frame[1], np.uint8))
    video.release()
    rows, columns = pictures[0].shape[:2]
    watched = watch(pictures, preprocess=Preprocess(rows, columns))
    assert len(pictures) == 37
    (number,) = watched.numbers
    assert number > 24  # it runs until then


def bright_places(*columns: int | None) -> list[Image]:
    """A disc at these columns of the stations' scene; none where it is empty."""
    bare = part(7).copy()
    cv2.circle(bare, (48, 36), 24, (60, 70, 65), -1)
    pictures = []
    for number, column in enumerate(columns):
        noise = np.random.default_rng(number).normal(0, 2, bare.shape)
        picture = bare.copy() if column is None else np.roll(part(7), column, axis=1)
        pictures.append(np.clip(picture + noise, 0, 255).astype(np.uint8))
    return pictures


def test_a_whole_station_gives_one_result_for_each_part_that_stops(bundle: Path, tmp_path: Path) -> None:
    coming, there, gone = (-40, -25, -12), (0,) * 6, (15, 30, 40)
    places = (*(None,) * 5, *coming, *there, *gone, *(None,) * 5, *coming, *there)
    pictures = write_pictures(tmp_path / "parts", bright_places(*places))
    write_pictures(tmp_path / "empty", bright_places(None))
    trigger = {"source": "motion", "settled_ms": 0, "empty": "empty/0000.png", "frames_per_part": 3}
    config = write_config(tmp_path, bundle, pictures, closed_port(), trigger=trigger, checks={"enabled": False})
    done = run_station(load(config), Stop())
    assert (done.captured, done.results) == (len(places), 2)
    assert done.captured == done.results + sum(done.dropped.values())
    assert done.dropped["combined"] == 4
    results = [record.payload for record in kept_records(tmp_path) if record.kind == "result"]
    assert len(results) == 2
    assert all('"frames":3' in result and '"resultEvaluation":1' in result for result in results)


def test_a_whole_station_gives_dark_parts_on_a_dark_place_a_result_too(tmp_path: Path) -> None:
    chance = np.random.default_rng(4)

    def scene(grey: int = 45, column: int = 0) -> Image:
        picture = np.full((72, 96, 3), 45, np.uint8)
        cv2.rectangle(picture, (10 + column, 4), (86 + column, 68), (grey, grey, grey), -1)
        return np.clip(picture + chance.normal(0, 1, picture.shape), 0, 255).astype(np.uint8)

    good, tried = range(70, 220, 4), (210, 150, 100, 80, 71, 190)
    taught = Drawn([scene(grey) for grey in good])
    settings = Settings(Preprocess(64, 64, Region(20, 8, 56, 56)), threads=1)
    bundle = calibrate(taught, filterbank_backbone(64, 64), settings, tmp_path / "bundle", lambda *_: None).path
    write_pictures(tmp_path / "empty", [scene()])
    frames = [scene() for _ in range(5)]
    for grey in tried:
        frames += [scene(grey, column) for column in (-90, -60, -30, *(0,) * 6, 30, 60, 90)]
        frames += [scene() for _ in range(5)]
    pictures = write_pictures(tmp_path / "parts", frames)
    trigger = {"source": "motion", "settled_ms": 0, "empty": "empty/0000.png"}
    config = write_config(tmp_path, bundle, pictures, closed_port(), trigger=trigger, checks={"enabled": False})
    done = run_station(load(config), Stop())
    assert (done.results, done.dropped["empty"]) == (len(tried), len(tried))
    (told,) = (each for each in network(str(config)) if each.name == "empty place")
    assert (told.level, told.found.partition(" are ")[0]) == ("ok", f"{len(good)} good images")


def test_an_image_of_a_part_instead_of_the_empty_place_is_named_at_the_start_and_by_the_doctor(
    bundle: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    pictures = write_pictures(tmp_path / "parts", [part(7)])
    trigger = {"source": "motion", "empty": "parts/0000.png"}
    config = write_config(tmp_path, bundle, pictures, closed_port(), trigger=trigger)
    run_station(load(config), Stop())
    doubt = "30 of the 30 good images differ from the empty place by less than 4 grey levels: "
    assert sum(text.startswith(doubt) for text in caplog.messages) == 1
    (told,) = (each for each in network(str(config)) if each.name == "empty place")
    assert (told.level, told.found.startswith(doubt)) == ("warning", True)
    assert told.remedy.startswith("give the empty place another colour or light than every part has")


@pytest.mark.parametrize(
    ("name", "problem"),
    [("small.png", "calibration saw frames of 96x72"), ("none.png", "cannot be read as an image")],
)
def test_an_image_of_the_empty_place_that_cannot_be_one_is_refused(
    bundle: Path, tmp_path: Path, name: str, problem: str
) -> None:
    cv2.imwrite(str(tmp_path / "small.png"), np.zeros((9, 9, 3), np.uint8))
    trigger = {"source": "motion", "empty": name}
    config = load(write_config(tmp_path, bundle, tmp_path, closed_port(), trigger=trigger))
    with pytest.raises(ConfigError, match=problem):
        empty_place_of(config, open_bundle(bundle))
