from __future__ import annotations

import math
from typing import TYPE_CHECKING

import cv2
import numpy as np
import pytest

from agent.alerts.defect import Rules, State
from agent.camera import Frame
from agent.config.model import load
from agent.frame_checks.camera_checks import FrameChecks, alert_cause, without_measurement
from agent.from_config import frame_checks_of, rules_of
from agent.inspection.loop import inspect
from agent.inspection.score import score_frame
from agent.messages.records import Evaluation, ResultCode
from agent.station.bundle_loader import _disabled_checks
from agent.trigger.part import Part
from agent.trigger.plc_handshake import Handshake
from agent.trigger.trigger import EveryFrame
from agent.zones.recipe import Recipe
from calibration.bundle.bundle import open_bundle
from calibration.camera_checks.reference import ReferenceStatistics
from calibration.engine.contract import Inference
from calibration.errors import DatasetError
from calibration.imaging.preprocess import Preprocess, Region
from tests.support.fakes import FakeCamera, FakeEngine
from tests.support.stations import REGION, part, write_config

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from agent.frame_checks.camera_checks import FrameFault
    from agent.inspection.score import PartInspection
    from calibration.imaging.preprocess import Image

PREPROCESS = Preprocess(64, 64, REGION)


def scene(number: int, *, right: int = 0, down: int = 0) -> Image:
    """A disc before a rail and a post, which stand still; each number has its own noise and place of the disc."""
    random = np.random.default_rng(number)
    picture = np.full((240, 320, 3), (90, 95, 100), np.uint8)
    cv2.rectangle(picture, (30 + right, 20 + down), (290 + right, 32 + down), (40, 45, 50), -1)
    cv2.rectangle(picture, (60 + right, down), (72 + right, 240), (150, 150, 140), -1)
    centre = (150 + right + int(random.integers(0, 60)), 130 + down)
    cv2.circle(picture, centre, 30, (170, 175, 180), -1, cv2.LINE_AA)
    return np.clip(picture + random.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)


SCENE = Preprocess(112, 112, Region(20, 10, 280, 210))


def reference_of(images: Iterable[Image], preprocess: Preprocess, *, sequential: bool = False) -> dict[str, np.ndarray]:
    statistics = ReferenceStatistics()
    for image in images:
        statistics.update(preprocess(image), preprocess.region_of_interest(image), image.shape[:2])
    return statistics.arrays(sequential=sequential)


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    return reference_of((scene(number) for number in range(100)), SCENE)


@pytest.fixture
def checks(reference: dict[str, np.ndarray]) -> FrameChecks:
    return FrameChecks(reference, SCENE, frozen_after=3)


def found(checks: FrameChecks, image: Image, preprocess: Preprocess = SCENE) -> FrameFault | None:
    return checks.of_frame(image) or checks.of_input(preprocess(image), preprocess.locate(image))


def code_of(checks: FrameChecks, image: Image, preprocess: Preprocess = SCENE) -> ResultCode:
    distrust = found(checks, image, preprocess)
    return ResultCode.NONE if distrust is None else distrust.code


@pytest.mark.slow
def test_good_frames_that_were_not_learned_are_trusted(checks: FrameChecks) -> None:
    assert checks.off == {}
    assert [code_of(checks, scene(1000 + number)) for number in range(200)] == [ResultCode.NONE] * 200


def test_each_fault_has_its_own_code(checks: FrameChecks) -> None:
    good = scene(1)
    covered = good.copy()
    covered[:, 150:] = (180, 120, 60)
    seen = {
        name: code_of(checks, image)
        for name, image in {
            "black": np.zeros_like(good),
            "dim": (good * 0.2).astype(np.uint8),
            "white": np.full_like(good, 255),
            "glaring": np.clip(good * 3.0, 0, 255).astype(np.uint8),
            "covered": covered,
            "soft": cv2.GaussianBlur(good, (0, 0), 5),
            "shifted": scene(1, right=20, down=0),
            "small": cv2.resize(good, (160, 120)),
        }.items()
    }
    assert seen == {
        "black": ResultCode.DARK,
        "dim": ResultCode.DARK,
        "white": ResultCode.OVER_EXPOSED,
        "glaring": ResultCode.OVER_EXPOSED,
        "covered": ResultCode.BLOCKED,
        "soft": ResultCode.BLURRED,
        "shifted": ResultCode.MOVED,
        "small": ResultCode.FRAME_UNUSABLE,
    }


def test_what_lasts_of_a_fault_is_the_same_in_every_frame(checks: FrameChecks) -> None:
    lasting = set[str]()
    for number in range(12):
        good = scene(number)
        covered = good.copy()
        covered[:, 120 + 5 * number :] = (180, 120, 60)
        for image in ((good * 0.01 * number).astype(np.uint8), covered, scene(number, right=20 + number, down=0), good):
            for fault in (found(checks, image), found(checks, image), found(checks, image), found(checks, image)):
                lasting |= set() if fault is None else {without_measurement(*fault)}
    assert lasting == {
        "the frame is dark",
        "the view is blocked",
        "the camera has moved",
        "the camera is frozen",
    }


@pytest.mark.parametrize(("right", "down"), [(20, 0), (-20, 0), (0, 15), (0, -15), (15, 12)])
def test_a_displacement_is_reported_in_pixels_of_the_frame(checks: FrameChecks, right: int, down: int) -> None:
    distrust = found(checks, scene(5, right=right, down=down))
    assert distrust is not None
    assert distrust.code is ResultCode.MOVED
    told = [int(word.strip(",")) for word in distrust.fault.split() if word[0] in "+-"]
    assert told == pytest.approx([right, down], abs=4)


def test_a_part_that_is_absent_or_elsewhere_is_no_moved_camera(checks: FrameChecks) -> None:
    without = scene(3)
    without[95:165, 110:250] = without[200, 200]
    assert code_of(checks, without) is ResultCode.NONE


def test_a_card_before_the_lens_is_no_moved_camera_though_chance_likeness_is_found_elsewhere(
    checks: FrameChecks,
) -> None:
    codes = set()
    for number in range(60):
        random = np.random.default_rng(number)
        uneven = cv2.resize(random.normal(0, 25, (12, 16, 3)), (320, 240), interpolation=cv2.INTER_CUBIC)
        codes.add(code_of(checks, np.clip(uneven + np.array((190, 120, 60)), 0, 255).astype(np.uint8)))
    assert codes == {ResultCode.BLOCKED}


def test_a_quarter_of_what_good_frames_show_must_be_found_elsewhere(reference: dict[str, np.ndarray]) -> None:
    assert 0.2 < float(reference["moved_recognised"]) < 0.26, "good frames show nearly all that stands still"


def test_on_a_belt_where_everything_moves_the_check_for_a_moved_camera_is_off() -> None:
    random = np.random.default_rng(0)
    noise = random.integers(0, 255, (240, 4000, 3)).astype(np.uint8)
    belt = np.asarray(cv2.GaussianBlur(noise, (0, 0), 4), np.uint8)
    frames = [belt[:, start : start + 320] for start in range(0, 3600, 40)]
    checks = FrameChecks(reference_of(frames, SCENE, sequential=True), SCENE, frozen_after=3)
    assert "moved" in checks.off


def test_a_frame_of_another_size_is_reported_with_both(checks: FrameChecks) -> None:
    distrust = checks.of_frame(np.zeros((480, 640, 3), np.uint8))
    assert distrust is not None
    assert "640x480" in distrust.fault
    assert "320x240" in distrust.fault


def test_good_images_of_several_sizes_leave_the_size_open() -> None:
    preprocess = Preprocess(64, 64)
    frames = [np.asarray(cv2.resize(part(number), (96 + number % 2, 72)), np.uint8) for number in range(20)]
    checks = FrameChecks(reference_of(frames, preprocess), preprocess, frozen_after=None)
    assert "resolution" in checks.off
    assert checks.of_frame(np.zeros((400, 500, 3), np.uint8)) is None


def test_the_same_frame_again_and_again_is_a_frozen_camera_until_it_changes(checks: FrameChecks) -> None:
    codes = [code_of(checks, scene(number)) for number in (1, 1, 1, 1, 1, 2, 2, 2, 2)]
    frozen = [code is ResultCode.FROZEN for code in codes]
    assert frozen == [False, False, False, True, True, False, False, False, True]


def test_frames_without_a_part_count_toward_a_frozen_camera(checks: FrameChecks) -> None:
    for _ in range(3):
        checks.pass_over(scene(1))
    assert code_of(checks, scene(1)) is ResultCode.FROZEN


def test_a_frame_too_small_for_the_region_is_passed_over_in_silence(checks: FrameChecks) -> None:
    checks.pass_over(np.zeros((8, 8, 3), np.uint8))


def test_a_lens_cap_is_dark_though_black_has_no_noise(checks: FrameChecks) -> None:
    assert {code_of(checks, np.zeros((240, 320, 3), np.uint8)) for _ in range(10)} == {ResultCode.DARK}


def test_a_silhouette_before_a_lamp_has_no_noise_and_is_not_frozen() -> None:
    silhouette = np.full((240, 320, 3), 255, np.uint8)
    cv2.circle(silhouette, (160, 120), 40, (0, 0, 0), -1)
    checks = FrameChecks(reference_of([silhouette] * 20, SCENE), SCENE, frozen_after=3)
    assert {code_of(checks, silhouette) for _ in range(20)} == {ResultCode.NONE}


def test_a_camera_whose_good_frames_stood_still_is_frozen_when_that_lasts_longer() -> None:
    frames = [scene(number // 6) for number in range(60)]  # a codec that sends nothing while nothing moves
    checks = FrameChecks(reference_of(frames, SCENE, sequential=True), SCENE, frozen_after=3)
    codes = [code_of(checks, scene(77)) for _ in range(12)]
    assert codes == [ResultCode.NONE] * 10 + [ResultCode.FROZEN] * 2


def test_files_may_repeat_themselves(reference: dict[str, np.ndarray]) -> None:
    checks = FrameChecks(reference, SCENE, frozen_after=None)
    assert {code_of(checks, scene(1)) for _ in range(20)} == {ResultCode.NONE}


@pytest.mark.slow
def test_noise_that_is_far_too_small_is_a_frozen_camera_where_a_video_was_learned() -> None:
    video = reference_of((scene(number) for number in range(100)), SCENE, sequential=True)
    stills = reference_of((scene(number) for number in range(100)), SCENE)
    still = scene(1)
    for reference, expected in ((video, ResultCode.FROZEN), (stills, ResultCode.NONE)):
        checks = FrameChecks(reference, SCENE, frozen_after=3)
        codes = []
        for number in range(6):
            image = still.copy()
            image[number::50, ::7] ^= 1
            codes.append(code_of(checks, image))
        assert codes[-1] is expected


def test_a_bundle_made_before_there_were_checks_opens_and_says_which_are_off(
    reference: dict[str, np.ndarray],
) -> None:
    old = {name: reference[name] for name in ("brightness", "sharpness", "thumbnail_mean", "thumbnail_std")}
    checks = FrameChecks(old, SCENE, frozen_after=3)
    assert set(checks.off) == {
        "resolution", "dark", "over_exposed", "moved", "blocked", "blurred_detail", "blurred_edges",
    }  # fmt: skip
    assert all("before" in why for why in checks.off.values())
    assert code_of(checks, np.zeros((240, 320, 3), np.uint8)) is ResultCode.NONE
    assert [code_of(checks, scene(1)) for _ in range(5)][-1] is ResultCode.FROZEN, "identical frames need no reference"


def test_the_log_says_once_which_checks_are_off_and_why(reference: dict[str, np.ndarray]) -> None:
    assert list(_disabled_checks(FrameChecks(reference, SCENE, frozen_after=3), None)) == []
    (line,) = _disabled_checks(FrameChecks({}, SCENE, frozen_after=3), None)
    assert "resolution, dark, over_exposed" in line
    assert line.count("was made before") == 1
    (line,) = _disabled_checks(None, None)
    assert "checks.enabled is false" in line


def test_a_region_outside_the_frame_is_reported_as_ever(reference: dict[str, np.ndarray]) -> None:
    sizes = {**reference, "check_limits": np.full_like(reference["check_limits"], math.nan)}
    with pytest.raises(DatasetError, match="does not fit"):
        FrameChecks(sizes, SCENE, frozen_after=3).of_frame(np.zeros((8, 8, 3), np.uint8))


class ConfidentEngine(FakeEngine):
    """Finds every frame good, or every frame bad."""

    def __init__(self, score: float) -> None:
        self.asked = 0
        self._score = score

    def __call__(self, frame: Image) -> Inference:
        del frame
        self.asked += 1
        return Inference(self._score, np.zeros((2, 2), np.float32))


class Listed(FakeCamera):
    def __init__(self, images: Sequence[Image]) -> None:
        self._images = images

    def __iter__(self) -> Iterator[Frame]:
        return (Frame(seq, image, 1000 * seq, seq) for seq, image in enumerate(self._images))


def run(
    images: Sequence[Image], checks: FrameChecks, score: float, *without_part: int
) -> tuple[list[PartInspection], State]:
    """One frame a second."""
    seen: list[PartInspection] = []
    recipe = Recipe(SCENE, ConfidentEngine(score), Rules(threshold=100.0), (2, 2), checks)

    class Trigger(EveryFrame):
        def __call__(self, frame: Frame, current: Part | None = None) -> Part | None:
            return None if frame.seq in without_part else super().__call__(frame, current)

    handshake = Handshake(100, lambda: ResultCode.TOO_LATE)
    state = inspect(Listed(images), Trigger(handshake), lambda: (recipe,), seen.append, lambda _: None)
    return seen, state


@pytest.mark.parametrize("score", [1.0, 1000.0])
def test_a_part_on_a_frame_that_cannot_be_trusted_is_neither_ok_nor_scored(checks: FrameChecks, score: float) -> None:
    (seen,), _ = run([np.zeros((240, 320, 3), np.uint8)], checks, score)
    assert seen.decision.verdict.evaluation is Evaluation.NOT_DECIDABLE
    assert (seen.code, seen.inference) == (ResultCode.DARK, None)
    assert seen.fault is not None
    assert "dark" in seen.fault
    assert seen.times_ms["checks"] > 0


def test_a_frame_of_another_size_reaches_neither_preprocessing_nor_network(checks: FrameChecks) -> None:
    engine = ConfidentEngine(1.0)
    image = np.zeros((480, 640, 3), np.uint8)
    recipe = Recipe(SCENE, engine, Rules(threshold=100.0), (2, 2), checks)
    seen = score_frame(Frame(0, image, 0, 0), Part(None, 0, 0), recipe)
    assert seen.code is ResultCode.FRAME_UNUSABLE
    assert engine.asked == 0


def test_a_dark_camera_raises_an_alert_after_two_seconds_and_ends_it_with_the_first_good_frame(
    checks: FrameChecks,
) -> None:
    dark = np.zeros((240, 320, 3), np.uint8)
    seen, state = run([scene(1), dark, dark + 1, dark + 2, dark + 3, scene(2), scene(3)], checks, 1.0)
    events = [one.decision.camera_event for one in seen]
    assert [event and (event.type, event.cause, event.severity) for event in events] == [
        None, None, None, ("new", "camera dark", 800), None, ("end", "camera dark", 800), None,
    ]  # fmt: skip
    assert events[3] is not None
    assert events[5] is not None
    assert (events[3].started_at_ms, events[5].ended_at_ms) == (1000, 5000)
    assert events[3].alert_id == events[5].alert_id
    assert state.camera.alert is None


def test_a_lasting_defect_alert_is_neither_updated_nor_ended_by_frames_that_cannot_be_trusted(
    checks: FrameChecks,
) -> None:
    dark = np.zeros((240, 320, 3), np.uint8)
    seen, state = run([scene(1), *(dark + number for number in range(20)), scene(2)], checks, 1000.0)
    events = [(index, one.decision.event.type) for index, one in enumerate(seen) if one.decision.event is not None]
    assert events == [(0, "new"), (21, "update")]
    assert state.alert is not None


def test_the_loop_shows_the_checks_frames_without_a_part(checks: FrameChecks) -> None:
    seen, _ = run([scene(1)] * 5, checks, 1.0, 1, 2, 3)
    assert [one.code for one in seen] == [ResultCode.NONE, ResultCode.FROZEN]


def test_every_camera_fault_has_a_cause_of_its_own_and_nothing_else_has_one() -> None:
    causes = {code: alert_cause(code) for code in ResultCode}
    named = [cause for cause in causes.values() if cause is not None]
    assert len(named) == len(set(named)) == 8
    assert {code for code, cause in causes.items() if cause is None} == {
        ResultCode.NONE,
        ResultCode.ENGINE_FAULT,
        ResultCode.TOO_LATE,
        ResultCode.CAMERA_LOST,
        ResultCode.PAUSED,
        ResultCode.NOT_TAUGHT,
        ResultCode.TOUCHING,
        ResultCode.CUT_OFF,
        ResultCode.UNCLEAR,
    }


def test_a_station_checks_its_frames_unless_configured_otherwise(bundle: Path, tmp_path: Path) -> None:
    config = load(write_config(tmp_path, bundle, 0, 1883))
    checks = frame_checks_of(config, open_bundle(bundle))
    assert checks is not None
    good = part(5)
    codes = [code_of(checks, good, PREPROCESS) for _ in range(11)]
    assert codes == [ResultCode.NONE] * 10 + [ResultCode.FROZEN], "a live camera may not freeze"
    assert rules_of(config, open_bundle(bundle)).untrusted_after_ms == 2000
    without = write_config(tmp_path, bundle, 0, 1883, checks={"enabled": False, "alert_after_s": 0.5})
    assert frame_checks_of(load(without), open_bundle(bundle)) is None
    assert rules_of(load(without), open_bundle(bundle)).untrusted_after_ms == 500


def test_the_station_of_the_other_tests_is_trusted(bundle: Path) -> None:
    checks = FrameChecks(open_bundle(bundle).reference(), PREPROCESS, frozen_after=None)
    shown = [part(number, broken=broken) for number in range(500, 600) for broken in (False, True)]
    assert [found(checks, image, PREPROCESS) for image in shown] == [None] * 200


def test_what_changes_slowly_is_checked_now_and_then_and_holds_meanwhile(reference: dict[str, np.ndarray]) -> None:
    now_ms = 1000
    checks = FrameChecks(reference, SCENE, frozen_after=None, recheck_ms=100, clock_ns=lambda: now_ms * 1_000_000)

    def code_of(image: Image) -> ResultCode | None:
        found = checks.of_frame(image) or checks.of_input(SCENE(image), SCENE.locate(image))
        return found and found.code

    soft = np.asarray(cv2.GaussianBlur(scene(1), (0, 0), 6), np.uint8)
    assert code_of(scene(0)) is None
    now_ms += 99
    assert code_of(soft) is None
    assert code_of(scene(2) // 12) is ResultCode.DARK  # light is looked at each time
    now_ms += 1
    assert code_of(soft) is ResultCode.BLURRED
    now_ms += 99
    assert code_of(scene(3)) is ResultCode.BLURRED
    now_ms += 1
    assert code_of(scene(3)) is None
