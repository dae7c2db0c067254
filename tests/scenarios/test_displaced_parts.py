"""A part that is displaced: inspected where it is, told where it is, and called moved beyond the limit."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
import pytest

from agent.alerts.defect import Rules, State
from agent.alerts.store import ActiveAlerts
from agent.archive.entry import NUMBERS, OVERLAY, encoded
from agent.camera import Frame
from agent.frame_checks.camera_checks import FrameChecks
from agent.inspection.combine import FrameCombiner
from agent.inspection.defect_regions import defect_regions
from agent.inspection.recorder import Recorder
from agent.inspection.score import score_frame
from agent.messages.records import Evaluation, ResultCode
from agent.messages.topics import Topics
from agent.trigger.part import Part
from agent.zones.recipe import Recipe
from calibration.backbones.backbone import filterbank_backbone
from calibration.engine.onnxruntime import OnnxRuntimeEngine
from calibration.imaging.preprocess import Preprocess, Region
from calibration.imaging.region import whole_frame
from calibration.imaging.score_map import cover_region
from calibration.workstation.fit.learn_preprocess import learn_preprocess
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import PreprocessRequest, Settings
from tests.support.quiet import quiet_handshake
from tests.support.stations import Taught

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from agent.archive.archive import Archive
    from agent.archive.snapshot import Snapshot
    from agent.inspection.score import PartInspection
    from agent.mqtt.publisher import Announcement
    from agent.outbox.outbox import Kind
    from calibration.bundle.bundle import Bundle
    from calibration.imaging.preprocess import Image

REGION = Region(48, 24, 112, 112)
LIMIT_PX = 8
SPOT = (70, 60)


def view(number: int, right: int = 0, down: int = 0, *, spot: bool = False) -> Image:
    """A drilled plate on a table, (160, 208, 3), displaced; a dark spot is a defect."""
    random = np.random.default_rng(number)
    picture = np.full((160, 208, 3), (52, 60, 58), np.uint8)
    left, top = 60 + right, 40 + down
    cv2.rectangle(picture, (left, top), (left + 88, top + 80), (150, 160, 165), -1)
    for x, y, radius in ((12, 12, 6), (74, 14, 8), (16, 64, 7), (70, 62, 10)):
        cv2.circle(picture, (left + x, top + y), radius, (40, 42, 45), -1, cv2.LINE_AA)
    if spot:
        cv2.circle(picture, (SPOT[0] + right, SPOT[1] + 20 + down), 6, (20, 20, 140), -1)
    return np.clip(picture + random.normal(0, 3, picture.shape), 0, 255).astype(np.uint8)


@dataclass
class Plates(Taught):
    """Displaced by up to six pixels."""

    def __iter__(self) -> Iterator[tuple[str, Image]]:
        places = np.random.default_rng(0).integers(-6, 7, (len(self), 2))
        return ((str(number), view(number, *map(int, place))) for number, place in enumerate(places))


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    preprocess = learn_preprocess(Plates(), Preprocess(64, 64, REGION), PreprocessRequest(LIMIT_PX), lambda *_: None)
    settings = Settings(preprocess, false_reject_rate=0.01, threads=1)
    path = tmp_path_factory.mktemp("followed") / "bundle"
    return calibrate(Plates(), filterbank_backbone(64, 64), settings, path, lambda *_: None)


@pytest.fixture
def recipe(bundle: Bundle) -> Iterator[Recipe]:
    checks = FrameChecks(bundle.reference(), bundle.preprocess, frozen_after=None)
    with OnnxRuntimeEngine(bundle.network, 1) as engine:
        yield Recipe(
            bundle.preprocess,
            engine,
            Rules(bundle.working_point.threshold),
            bundle.manifest.backbone.grid,
            checks,
        )


def seen_by(recipe: Recipe, image: Image) -> PartInspection:
    return FrameCombiner()([[score_frame(Frame(0, image, 1_000, 0), Part(None, 0, 0), recipe)]], State())


@dataclass
class Kept:
    """An outbox and an archive that remember."""

    payloads: list[dict[str, object]] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)

    def put(self, kind: Kind, record_id: str, topic: str, payload: str, created_at_ms: int) -> bool:  # noqa: ARG002 - as an outbox's
        self.payloads.append(json.loads(payload))
        return True

    def wants(self, evaluation: Evaluation, code: ResultCode) -> bool:  # noqa: ARG002 - as an archive's
        return True

    def submit(self, snapshot: Snapshot) -> str | None:
        self.snapshots.append(snapshot)
        return snapshot.reference


class QuietLine:
    def wake(self) -> None:
        pass

    def announce(self, announcement: Announcement) -> None:
        pass


def recorded(seen: PartInspection, folder: Path) -> Kept:
    kept = Kept()
    active = ActiveAlerts(folder / "alerts.json")
    Recorder(kept, cast("Archive", kept), quiet_handshake(), QuietLine(), Topics("a/b"), active, is_simulated=False)(
        seen
    )
    return kept


@pytest.mark.slow
def test_a_displacement_inside_the_limit_is_corrected_and_fine(recipe: Recipe) -> None:
    for right, down in ((0, 0), (6, -6), (-5, 3)):
        seen = seen_by(recipe, view(900, right, down))
        assert seen.code is ResultCode.NONE
        assert seen.decision.verdict.evaluation is Evaluation.OK
        assert seen.region is not None
        assert np.abs(np.subtract((seen.region.x, seen.region.y), (REGION.x + right, REGION.y + down))).max() <= 2


@pytest.mark.parametrize(("right", "down"), [(12, 0), (0, -13), (-16, 12), (22, 0), (0, 24)])
def test_beyond_the_limit_the_camera_has_moved_and_nothing_is_inspected(recipe: Recipe, right: int, down: int) -> None:
    seen = seen_by(recipe, view(900, right, down))
    assert seen.code is ResultCode.MOVED
    assert seen.inference is None
    assert seen.decision.verdict.evaluation is Evaluation.NOT_DECIDABLE
    assert seen.region == REGION
    assert seen.fault is not None
    told = seen.fault.split("off by ")[1].split(" pixels")[0].split(", ")
    assert np.abs(np.subtract([int(each) for each in told], (right, down))).max() <= 5


@pytest.mark.parametrize(("right", "down"), [(0, 0), (7, 7), (-7, -6)])
def test_a_defect_is_reported_where_it_is_in_the_frame(recipe: Recipe, tmp_path: Path, right: int, down: int) -> None:
    seen = seen_by(recipe, view(901, right, down, spot=True))
    assert seen.decision.verdict.evaluation is Evaluation.NOT_OK
    kept = recorded(seen, tmp_path)
    (snapshot,) = kept.snapshots
    assert snapshot.region == seen.region
    assert seen.inference is not None
    score_map = cover_region(seen.inference.map, recipe.grid)
    assert seen.region is not None
    assert snapshot.result.regions == defect_regions(
        score_map, snapshot.result.threshold, seen.region, whole_frame(snapshot.image)
    )
    x, y = SPOT[0] + right, SPOT[1] + 20 + down
    (worst, *_) = snapshot.result.regions
    assert worst.x <= x <= worst.x + worst.width
    assert worst.y <= y <= worst.y + worst.height
    files = encoded(snapshot)
    assert json.loads(files[NUMBERS])["region"]["x"] == seen.region.x
    heat = cv2.imdecode(np.frombuffer(files[OVERLAY], np.uint8), cv2.IMREAD_COLOR)
    assert heat is not None
    changed = np.abs(heat[:160].astype(int) - snapshot.image).max(axis=2) > 40
    assert changed[y - 12 : y + 12, x - 12 : x + 12].mean() > 0.15


def test_a_part_beyond_the_limit_has_moved_also_where_nothing_else_can_tell(bundle: Bundle) -> None:
    without_arrays = FrameChecks({}, bundle.preprocess, frozen_after=None)
    assert "moved" in without_arrays.off
    image = view(900, 11, -2)
    place = bundle.preprocess.locate(image)
    distrust = without_arrays.of_input(bundle.preprocess.network_input(image, place.region), place)
    assert distrust is not None
    assert distrust.code is ResultCode.MOVED
    assert place.displacement is not None
    assert "off by {:+d}, {:+d} pixels".format(*place.displacement) in distrust.fault


def test_an_empty_frame_of_another_size_is_passed_over(bundle: Bundle) -> None:
    checks = FrameChecks(bundle.reference(), bundle.preprocess, frozen_after=3)
    checks.pass_over(view(1))
    checks.pass_over(np.zeros((90, 90, 3), np.uint8))
    checks.pass_over(np.zeros((500, 500, 3), np.uint8))


def test_a_part_that_is_not_found_is_inspected_where_the_region_lies(recipe: Recipe) -> None:
    table = np.random.default_rng(1).normal(58, 3, (160, 208, 3)).clip(0, 255).astype(np.uint8)
    assert seen_by(recipe, table).region == REGION
