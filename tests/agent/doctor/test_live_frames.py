"""Frames of a camera that are like the taught images, and those that are not: the cause is named."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import cv2
import numpy as np
import pytest

from agent.config.model import load
from agent.doctor.live_frames import kept_frames, live_findings
from calibration.backbones.backbone import filterbank_backbone
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.preprocess import Preprocess
from calibration.imaging.region import to_grey
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings
from tests.support.plates import FRAME_PX, REGION, plate
from tests.support.stations import write_config, write_pictures
from tests.support.washers import Drawn

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from agent.doctor.finding import Finding
    from calibration.bundle.bundle import Bundle
    from calibration.imaging.preprocess import Image

OTHER = "taught from other pictures than this camera gives"
ON_COMMAND = {"source": "command"}
COLOURED = np.array((0.8, 1.0, 1.15))
"""All plates here have it, so that red and blue differ."""


def view(number: int, *, scratched: bool = False) -> Image:
    """A plate, as sharp as a lens gives it."""
    seen = cv2.GaussianBlur(plate(number, scratched=scratched), (0, 0), 1.0)
    return np.asarray(np.clip(seen * COLOURED, 0, 255), np.uint8)


def empty(number: int) -> Image:
    """The place without a plate."""
    noise = np.random.default_rng(number).normal(0, 3, (FRAME_PX, FRAME_PX, 3))
    return np.asarray(np.clip((np.array((52, 60, 58)) + noise) * COLOURED, 0, 255), np.uint8)


@dataclass
class Doctor:
    """Asks about frames of a station with this bundle."""

    folder: Path
    bundle: Bundle
    engine: OnnxRuntimeEngine

    def about(self, frames: Sequence[Image], source: str | int | None = None, **more: Any) -> Finding:  # noqa: ANN401
        camera = self.folder if source is None else source
        config = load(write_config(self.folder, self.bundle.path, camera, 1, **{"decision": {}, **more}))
        (finding,) = live_findings(config, self.bundle, self.engine, frames)
        return finding


@contextmanager
def doctor_for(folder: Path, good: Sequence[Image]) -> Iterator[Doctor]:
    settings = Settings(Preprocess(112, 112, REGION), threads=1)
    bundle = calibrate(Drawn(good), filterbank_backbone(112, 112), settings, folder / "bundle", lambda *_: None)
    with OnnxRuntimeEngine(bundle.network, 1) as engine:
        yield Doctor(folder, bundle, engine)


@pytest.fixture(scope="module")
def doctor(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Doctor]:
    with doctor_for(tmp_path_factory.mktemp("plates"), [view(number) for number in range(40)]) as doctor:
        yield doctor


GOOD = [view(number) for number in range(100, 106)]
NOISE = np.random.default_rng(1).normal(0, 10, (FRAME_PX, FRAME_PX, 3))


@pytest.mark.parametrize("trigger", [{}, ON_COMMAND])
def test_good_frames_are_no_finding(doctor: Doctor, trigger: dict[str, Any]) -> None:
    finding = doctor.about(GOOD, trigger=trigger)
    assert finding.level == "ok", finding
    assert finding.found.startswith("6 of 6 look as taught; score 0.")


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (lambda frame: frame[..., ::-1].copy(), "red and blue are exchanged"),
        (lambda frame: frame[::-1, ::-1].copy(), "the image is upside down"),
        (lambda frame: frame[:, ::-1].copy(), "the image is mirrored left to right"),
        (lambda frame: np.rot90(frame, -1).copy(), "the image is turned a quarter to the right"),
        (lambda frame: np.rot90(frame).copy(), "the image is turned a quarter to the left"),
        (
            lambda frame: np.repeat(frame.mean(axis=2, keepdims=True).astype(np.uint8), 3, axis=2),
            "the camera gives grey images, and calibration saw colours",
        ),
        (lambda frame: (frame * np.array((0.6, 0.8, 1.0))).astype(np.uint8), "light or colour differ: mean red, "),
        (lambda frame: frame // 2, "light or colour differ: mean red, "),
        (lambda frame: (frame * 0.85).astype(np.uint8), "light or colour differ: mean red, "),
        (lambda frame: np.clip(frame + NOISE, 0, 255).astype(np.uint8), "the frames are noisier or sharper than "),
        (lambda frame: cv2.GaussianBlur(frame, (0, 0), 2), "the frame is blurred: "),
        (lambda frame: cv2.resize(frame, (240, 180)), "the frame has 240x180 pixels; calibration saw 160x160: "),
    ],
)
def test_the_cause_of_frames_unlike_the_taught_ones_is_named(
    doctor: Doctor, change: Callable[[Image], Image], cause: str
) -> None:
    finding = doctor.about([change(frame) for frame in GOOD])
    assert finding.level == "fault"
    assert finding.found.startswith("0 of 6 look as taught; score ")
    assert f"{OTHER}: {cause}" in finding.found
    assert finding.remedy


def greyed(frame: Image) -> Image:
    return np.repeat(to_grey(frame)[..., np.newaxis], 3, axis=2)


def test_grey_images_and_a_camera_with_colours_are_a_cause(tmp_path: Path) -> None:
    with doctor_for(tmp_path, [greyed(view(number)) for number in range(20)]) as doctor:
        finding = doctor.about(GOOD)
    assert (finding.level, f"{OTHER}: the camera gives colours" in finding.found) == ("fault", True)


def test_a_grey_camera_is_a_warning_even_if_the_network_does_not_need_colours(tmp_path: Path) -> None:
    faint = [plate(number) for number in range(26)]
    with doctor_for(tmp_path, faint[:20]) as doctor:
        finding = doctor.about([greyed(each) for each in faint[20:]], decision={"threshold": 1e9})
    assert finding.level == "warning"
    assert finding.found.startswith("6 of 6 look as taught; ")
    assert finding.found.endswith(", but the camera gives grey images, and calibration saw colours")


def test_a_defective_part_is_no_other_picture(doctor: Doctor) -> None:
    finding = doctor.about([view(number, scratched=True) for number in range(200, 206)])
    assert finding.level == "warning"
    assert "size, light and colour are no reason, so they show another kind of part, " in finding.found


def test_a_few_good_frames_are_enough_where_the_line_triggers(doctor: Doctor) -> None:
    mixed = [*(empty(number) for number in range(5)), GOOD[0]]
    assert doctor.about(mixed, trigger=ON_COMMAND).level == "ok"
    assert doctor.about(mixed).level != "ok"


def test_an_empty_place_is_no_fault_where_the_line_triggers(doctor: Doctor) -> None:
    finding = doctor.about([empty(number) for number in range(6)], trigger=ON_COMMAND)
    assert finding.level == "warning"
    assert OTHER not in finding.found
    assert "empty" in finding.found
    assert finding.remedy.startswith("put a good part before the camera and run the doctor again")


def test_an_empty_place_that_is_known_is_no_finding(doctor: Doctor) -> None:
    write_pictures(doctor.folder / "empty", [empty(50)])
    motion = {"source": "motion", "empty": "empty/0000.png"}
    finding = doctor.about([empty(number) for number in range(6)], trigger=motion)
    assert finding.level == "ok"
    assert finding.found.startswith("the place is empty in all 6, so no part was compared; ")
    dark = doctor.about([(frame * 0.65).astype(np.uint8) for frame in GOOD], trigger=motion)
    assert dark.level == "warning"
    assert f"{OTHER}, since the place does not look empty: light or colour differ" in dark.found


def test_a_camera_turned_over_is_a_fault_even_where_the_place_may_be_empty(doctor: Doctor) -> None:
    finding = doctor.about([frame[::-1, ::-1].copy() for frame in GOOD], trigger=ON_COMMAND)
    assert (finding.level, f"{OTHER}: the image is upside down" in finding.found) == ("fault", True)


def test_a_live_camera_that_repeats_one_frame_is_frozen_and_a_file_is_not(doctor: Doctor) -> None:
    finding = doctor.about(GOOD[:1] * 6, source=0)
    assert (finding.level, finding.found.partition("; ")[0]) == ("fault", "5 of 6 look as taught")
    assert finding.found.endswith("the camera is frozen: all are the same")
    assert doctor.about(GOOD[:1] * 6).level == "ok"
    assert doctor.about([*GOOD[:1] * 5, GOOD[1]], source=0).level == "ok"


def test_frames_into_which_the_region_does_not_fit_are_left_to_that_finding(doctor: Doctor) -> None:
    config = load(write_config(doctor.folder, doctor.bundle.path, doctor.folder, 1))
    assert list(live_findings(config, doctor.bundle, doctor.engine, [GOOD[0][:50, :50]])) == []


def test_frames_are_kept_in_order(tmp_path: Path) -> None:
    for number in (10, 2, 0):
        np.save(tmp_path / f"{number:02}.npy", np.full((2, 2, 3), number, np.uint8))
    assert [int(frame[0, 0, 0]) for frame in kept_frames(tmp_path)] == [0, 2, 10]
