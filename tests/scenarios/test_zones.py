"""Several zones of the picture, each with a bundle of its own: one verdict on the part, and what was found in each."""

from __future__ import annotations

import itertools
import json
import math
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.alerts.defect import Rules, State
from agent.archive.entry import Mark
from agent.archive.label import mark
from agent.archive.query import ArchiveQuery, open_reader
from agent.camera import Frame
from agent.commands.control_socket import NAME, ask_station
from agent.doctor.network_probe import network
from agent.doctor.report import lines
from agent.drift.first_parts import FirstPartsFinding
from agent.drift.report import DriftReport, drift_payload
from agent.inspection.combine import FrameCombiner
from agent.inspection.score import ZoneScore
from agent.messages.records import Evaluation, Result, ResultCode
from agent.recalibration.labelled_images import labelled_images_in
from agent.trigger.motion import OnMotion
from agent.trigger.part import Part
from agent.trigger.plc_handshake import Handshake
from agent.web.dashboard import Dashboard
from agent.zones.recipe import Recipe
from agent.zones.versions import Versions
from calibration.backbones.backbone import filterbank_backbone
from calibration.bundle.bundle import open_bundle
from calibration.engine.contract import Inference
from calibration.errors import BundleError
from calibration.imaging.preprocess import Preprocess, Region
from calibration.workstation.fit.pipeline import calibrate
from calibration.workstation.settings import Settings
from tests.support.running import Running
from tests.support.stations import COLUMNS, REGION, Taught, closed_port, part, until, write_config, write_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from agent.drift.drift_watch import DriftWatch
    from agent.messages.records import Alert
    from calibration.imaging.preprocess import Image
    from tests.support.real_broker import Mosquitto
    from tests.support.stations import Outcome

Answer = dict[str, Any]
ZONES = ("left", "right")
UNSCORED = [ResultCode.DARK, ResultCode.BLOCKED, ResultCode.ENGINE_FAULT]


def pair(number: int, broken: str = "") -> Image:
    """Two parts side by side, (72, 192, 3)."""
    return np.hstack([part(number, broken="left" in broken), part(number + 500, broken="right" in broken)])


@pytest.fixture(scope="module")
def bundles(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Of the left part and of the right one."""

    class Pairs(Taught):
        def __iter__(self) -> Iterator[tuple[str, Image]]:
            return ((str(number), pair(number)) for number in range(len(self)))

    made = {}
    for name, right in zip(ZONES, (0, COLUMNS), strict=True):
        preprocess = Preprocess(64, 64, replace(REGION, x=REGION.x + right))
        settings = Settings(preprocess, false_reject_rate=0.004, threads=1)
        path = tmp_path_factory.mktemp("zones") / name
        made[name] = calibrate(Pairs(), filterbank_backbone(64, 64), settings, path, lambda *_: None).path
    return made


# The verdict


def view(seq: int, zone: str, score: float | ResultCode, threshold: float) -> ZoneScore:
    code = score if isinstance(score, ResultCode) else ResultCode.NONE
    inference = None if isinstance(score, ResultCode) else Inference(score, np.zeros((2, 2), np.float32))
    recipe = Recipe(Preprocess(8, 8), SimpleNamespace(), Rules(threshold), (2, 2), zone=zone)
    frame = Frame(seq, np.zeros((8, 8, 3), np.uint8), 1000 + seq, 0)
    times_ms = {"waiting": 1.0, "inference": 2.0, "total": 3.0}
    return ZoneScore(frame, Part(None, 0, 0), recipe, None, None, inference, code, "why" if code else None, times_ms)


SCORE = st.one_of(st.floats(0, 300), st.sampled_from(UNSCORED))


@given(st.lists(st.tuples(SCORE, st.floats(1, 200)), min_size=1, max_size=4))
def test_a_part_is_not_ok_if_a_zone_is_and_else_not_decidable_if_a_zone_is(
    zones: list[tuple[float | ResultCode, float]],
) -> None:
    looks = [[view(0, f"zone {number}", *zone) for number, zone in enumerate(zones)]]
    seen = FrameCombiner()(looks, State())
    expected = [
        Evaluation.NOT_DECIDABLE if isinstance(score, ResultCode) else Evaluation(1 + (score > threshold))
        for score, threshold in zones
    ]
    assert [zone.verdict.evaluation for zone in seen.zones] == expected
    told = seen.decision.verdict.evaluation
    assert told is next(e for e in (Evaluation.NOT_OK, Evaluation.NOT_DECIDABLE, Evaluation.OK) if e in expected)
    assert seen.decisive.verdict.evaluation is told
    if told is not Evaluation.NOT_DECIDABLE:
        ratios = [score / threshold for score, threshold in zones if not isinstance(score, ResultCode)]
        assert seen.decisive.ratio == max(ratios)
    assert (seen.fault is not None) == any(isinstance(score, ResultCode) for score, _ in zones)
    assert seen.times_ms == {"waiting": 1.0, "inference": 2.0 * len(zones), "total": 3.0}


def test_each_zone_of_a_part_of_several_frames_has_a_decisive_frame_of_its_own() -> None:
    looks = [
        [view(0, "left", 150.0, 100.0), view(0, "right", 10.0, 40.0)],
        [view(1, "left", 20.0, 100.0), view(1, "right", 70.0, 40.0)],
    ]
    seen = FrameCombiner(2)(looks, State())
    assert [(zone.frame_score.frame.seq, zone.score) for zone in seen.zones] == [(0, 150.0), (1, 70.0)]
    assert (seen.decisive.frame_score.recipe.zone, seen.frame.seq) == ("right", 1)


def test_a_zone_that_is_dark_is_an_alert_of_the_camera_though_another_one_decides() -> None:
    rules = Rules(100.0, untrusted_after_ms=500)
    looks = [[view(0, "left", ResultCode.DARK, 100.0), view(0, "right", 150.0, 100.0)]]
    looks = [[replace(each, recipe=replace(each.recipe, rules=rules)) for each in views] for views in looks]
    first = FrameCombiner()(looks, State())
    later = [[replace(each, frame=replace(each.frame, captured_at_ms=2000)) for each in views] for views in looks]
    second = FrameCombiner()(later, first.decision.state)
    assert second.decision.verdict.evaluation is Evaluation.NOT_OK
    assert second.decision.camera_event is not None
    assert second.decision.camera_event.cause == "camera dark"
    assert second.fault == "zone left: why"


def test_drift_is_reported_with_its_zone() -> None:
    class Watch:
        def __init__(self, report: DriftReport) -> None:
            self.report = report

        def note(self, *_: object) -> None:
            """Not needed here."""

    def event_of(reports: dict[str, DriftReport]) -> Alert | None:
        look = [view(0, name, 1.0, 100.0) for name in ZONES]
        watched = [
            replace(v, recipe=replace(v.recipe, drift=cast("DriftWatch", Watch(reports[v.recipe.zone])))) for v in look
        ]
        return FrameCombiner()([watched], State()).decision.drift_event

    first = FirstPartsFinding(7212.0, 3229.0, None)
    quiet = DriftReport(0, (), 0.01, None)
    slow, sudden = replace(quiet, first=first), replace(quiet, since_ms=1_800_000_000_000)
    event = event_of({"left": quiet, "right": slow})
    assert event is not None
    assert event.cause == "drift: the first 100 parts score 2.2 times as high as calibrated in right"
    event = event_of({"left": slow, "right": sudden})
    assert event is not None
    assert event.cause.startswith("drift: all parts in right since ")
    payload = drift_payload({"left": slow, "right": sudden})
    assert payload == {
        "cause": event.cause,
        "remedy": sudden.remedy,
        "zones": {"left": slow.payload(), "right": sudden.payload()},
    }
    assert drift_payload({"": slow}) == slow.payload()
    assert drift_payload({}) is None


def test_the_chart_of_the_page_compares_zones_by_their_thresholds() -> None:
    board = Dashboard()
    for seq, (zone, score, threshold) in enumerate([("left", 150.0, 100.0), ("right", 10.0, 40.0), (None, 7.0, 5.0)]):
        made = Result(
            seq=seq,
            part_id=None,
            created_at_ms=1000 * seq,
            evaluation=Evaluation.OK,
            score=score,
            threshold=threshold,
            zone=zone,
        )
        board.take_results([made.payload()])
    _, update = board.update(0)
    assert [each[1] for each in update["bins"]] == [1.5, 0.25, 1.4]
    assert [each["zone"] for each in update["last"]] == [None, "right", "left"]


def test_what_moves_between_two_zones_is_motion() -> None:
    recipes = [
        Recipe(Preprocess(8, 8, Region(x, 10, 40, 40)), SimpleNamespace(), Rules(1.0), (2, 2), zone=name)
        for name, x in (("left", 0), ("right", 152))
    ]
    trigger = OnMotion(Handshake(0, lambda: ResultCode.TOO_LATE), lambda: recipes, 0, 60_000)
    parts = []
    for seq in range(40):
        image = np.full((60, 192, 3), 90, np.uint8)
        if 10 <= seq < 20:
            cv2.rectangle(image, (60 + 6 * (seq - 10), 15), (90 + 6 * (seq - 10), 45), (250, 250, 250), -1)
        parts += [seq] if trigger(Frame(seq, image, seq, seq * 33_000_000)) else []
    assert len(parts) == 1
    assert 20 <= parts[0] < 25


# A whole station


class Station:
    """One that plays pairs of parts, and the commands given on its device."""

    def __init__(
        self, folder: Path, bundles: dict[str, Path], images: list[Image], port: int, **camera: object
    ) -> None:
        self.state = folder / "state"
        pictures = write_pictures(folder / "pictures", images)
        settings: dict[str, dict[str, object]] = {
            "decision": {"clear_after": 1},
            "recalibration": {"shadow_parts": 5, "quiet_s": 20},
            "archive": {"ok_every": 1},
        }
        self.config = write_config(folder, bundles, pictures, port, camera=camera, **settings)
        self._numbers = itertools.count()

    def run(self) -> Running:
        running = Running(self.config)
        until(lambda: (self.state / NAME).exists() or running.failure)
        return running

    def end_of(self, name: str, **args: object) -> Answer:
        command = {"command": name, "commandId": f"{name}-{next(self._numbers)}", "args": args, "by": "Ana"}
        return list(ask_station(self.state, command))[-1]

    def collecting(self, **args: object) -> Iterator[Answer]:
        """A recalibration that collects for long, as soon as it does."""
        answers = ask_station(
            self.state, {"command": "recalibrate", "commandId": "long", "args": {"parts": 5000, **args}, "by": "Ana"}
        )
        while next(answers).get("phase") != "collecting":
            pass
        return answers

    def versions(self, zone: str) -> Versions:
        return Versions(self.state / "zones" / zone / "versions.json", "")

    @property
    def events(self) -> list[Answer]:
        return [json.loads(line) for line in (self.state / "audit.jsonl").read_text().splitlines()]


@pytest.mark.slow
def test_a_part_is_inspected_in_every_zone_and_the_line_gets_one_verdict(
    mosquitto: Mosquitto, listen: Callable[[int], Any], bundles: dict[str, Path], tmp_path: Path
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    broken = ["", "left", "right", "left right", ""]
    station = Station(tmp_path, bundles, [pair(3000 + n, each) for n, each in enumerate(broken)], mosquitto.port)
    summary = Running(station.config).wait()
    assert summary.results == len(broken)
    listener.wait_for(lambda heard: len(heard.on("/result")) == len(broken) and len(heard.on("/plc")) == len(broken))
    results = listener.on("/result")
    for result, told, where in zip(results, listener.on("/plc"), broken, strict=True):
        expected = {zone: 2 if zone in where else 1 for zone in ZONES}
        assert {name: zone["resultEvaluation"] for name, zone in result["zones"].items()} == expected
        assert result["resultEvaluation"] == told["resultEvaluation"] == max(expected.values())
        decisive = result["zones"][result["zone"]]
        assert {name: decisive[name] for name in ("score", "threshold", "margin", "seq")} == {
            name: result[name] for name in ("score", "threshold", "margin", "seq")
        }
        assert decisive["margin"] == max(zone["margin"] for zone in result["zones"].values())
        assert {region["zone"] for region in result["regions"]} == set(where.split())
        for region in result["regions"]:
            assert (region["x"] >= COLUMNS) == (region["zone"] == "right")
    assert listener.on("/info")[-1]["zones"].keys() == set(ZONES)
    for zone, path in bundles.items():
        about = listener.on("/info")[-1]["zones"][zone]
        opened = open_bundle(path)
        assert (about["bundleHash"], about["threshold"]) == (opened.identity, opened.manifest.working_point.threshold)
    check_the_archive(station.state / "archive", results[3])


def check_the_archive(archive: Path, both: Answer) -> None:
    """The picture of the part that is broken on both sides has heat on both."""
    with open_reader(archive) as index:
        (picture,) = [each for each in index.each(ArchiveQuery()) if each.result_id == both["resultId"]]
    frame = archive / picture.path
    assert json.loads(frame.with_suffix(".json").read_text())["zones"] == both["zones"]
    plain, heat = cv2.imread(str(frame)), cv2.imread(str(frame.with_suffix(".overlay.jpg")))
    assert plain is not None
    assert heat is not None
    changed = np.abs(heat[: len(plain)].astype(int) - plain).max(axis=2) > 60
    assert changed[:, :COLUMNS].sum() > 50
    assert changed[:, COLUMNS:].sum() > 50


def test_a_zone_of_another_size_than_calibrated_is_not_decidable_for_the_part(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    station = Station(tmp_path, bundles, [pair(1), pair(2)[:, :COLUMNS]], closed_port())
    summary = Running(station.config).wait()
    assert summary.verdicts == {Evaluation.OK: 1, Evaluation.NOT_DECIDABLE: 1}


def test_what_is_wrong_with_a_bundle_and_what_runs_it_is_reported_with_its_zone(
    bundles: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    config = Station(tmp_path, bundles, [pair(1)], closed_port()).config
    Running(config).wait()
    for zone in ZONES:
        assert f"zone {zone}: the network runs on" in caplog.text
    config.write_text(config.read_text().replace(str(bundles["right"]), str(tmp_path / "nowhere")))
    with pytest.raises(BundleError, match=r"^zone right: cannot read .*nowhere"):
        Running(config).wait()


@pytest.mark.slow
def test_each_zone_is_commanded_by_its_name(
    bundles: dict[str, Path], tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    looping = {"playback": "realtime", "frames_per_s": 100, "loop": True}
    images = [np.asarray(cv2.convertScaleAbs(pair(n), alpha=1.03, beta=2), np.uint8) for n in range(4000, 4040)]
    station = Station(tmp_path, bundles, images, closed_port(), **looping)
    with ending(station.run()):
        base = {zone: station.versions(zone).served[-1].threshold for zone in ZONES}
        check_what_is_refused(station)
        assert station.end_of("threshold", zone="left", threshold=2 * base["left"])["accepted"]
        last = station.end_of("recalibrate", zone="right", parts=30, mode="mean", reason="new lamp")
        assert last["accepted"], last
        assert station.versions("right").served[-1].identity == last["figures"]["bundle"]
        assert [path.name[-8:] for path in (station.state / "zones" / "right" / "bundles").iterdir()] == [
            last["figures"]["bundle"][:8]
        ]
    done = station.events[-1]
    assert (done["event"], done["zone"], done["parent"]) == (
        "recalibrated",
        "right",
        open_bundle(bundles["right"]).identity,
    )
    assert [event["zone"] for event in station.events if event["event"] == "started"] == list(ZONES)
    assert not (station.state / "zones" / "left" / "bundles").exists()
    listed = command("versions", "--config", station.config).out
    assert listed.index("left") < listed.index("right") < listed.index("new lamp")
    with ending(station.run()):  # each as it was commanded
        assert station.versions("left").served[-1].threshold == pytest.approx(2 * base["left"])
        until(lambda: station.end_of("resume")["accepted"])
        assert station.end_of("rollback", zone="right")["accepted"]
        assert station.versions("right").served[-1].identity == open_bundle(bundles["right"]).identity


@pytest.mark.slow
def test_only_the_zone_that_learns_has_a_recalibration_to_cancel(
    bundles: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    looping = {"playback": "realtime", "frames_per_s": 100, "loop": True}
    station = Station(tmp_path, bundles, [pair(n) for n in range(4000, 4010)], closed_port(), **looping)
    with ending(station.run()):
        learning = station.collecting(zone="right")
        other = station.end_of("recalibrate", zone="left")
        assert "zone right: a recalibration is under way: collecting" in other["error"]
        refused = station.end_of("recalibrate", cancel=True, zone="left")
        assert "no recalibration of left is under way, but one of right" in refused["error"]
        assert station.end_of("recalibrate", cancel=True, zone="right")["accepted"]
        assert "cancelled by" in list(learning)[-1]["error"]
    assert "zone right: recalibration: collecting" in caplog.text
    assert "zone right: recalibration ended, the bundle stays: cancelled by" in caplog.text


class ending:  # noqa: N801 - reads as a word
    """Ends what runs."""

    def __init__(self, running: Running) -> None:
        self._running = running

    def __enter__(self) -> Running:
        return self._running

    def __exit__(self, *_: object) -> None:
        self._running.end()


def check_what_is_refused(station: Station) -> None:
    for name, args in (("threshold", {"threshold": 1.0}), ("rollback", {}), ("recalibrate", {"parts": 30})):
        unnamed = station.end_of(name, **args)
        assert not unnamed["accepted"]
        assert "several zones; give one of them: left, right" in unnamed["error"]
        unknown = station.end_of(name, zone="middle", **args)
        assert not unknown["accepted"]
        assert "no zone 'middle'; give one of them: left, right" in unknown["error"]


def test_a_station_with_one_bundle_has_no_zones_to_name(bundles: dict[str, Path], tmp_path: Path) -> None:
    looping = {"playback": "realtime", "frames_per_s": 50, "loop": True}
    alone = Station(tmp_path, {"left": bundles["left"]}, [pair(1)], closed_port(), **looping)
    with ending(alone.run()):
        assert alone.end_of("threshold", threshold=alone.versions("left").served[-1].threshold * 2)["accepted"]
        refused = alone.end_of("threshold", zone="right", threshold=1.0)
        assert "no zone 'right'; give one of them: left" in refused["error"]
    alone.config.write_text(
        alone.config.read_text().replace("left:", "#").replace("bundle:", f"bundle: {bundles['left']} #")
    )
    with ending(alone.run()):
        assert "name none: the station has one bundle" in alone.end_of("threshold", zone="left", threshold=1.0)["error"]


@pytest.mark.slow
def test_what_was_commanded_of_a_zone_that_is_another_now_is_not_dropped_without_a_word(
    bundles: dict[str, Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    station = Station(tmp_path, bundles, [pair(1)], closed_port())
    Running(station.config).wait()
    assert "no longer configured" not in caplog.text
    station.config.write_text(station.config.read_text().replace("right:", "label:"))
    Running(station.config).wait()
    (record,) = [record for record in caplog.records if "no longer configured" in record.message]
    assert record.message.endswith(str(station.state / "zones" / "right" / "versions.json"))
    caplog.clear()
    Running(write_config(tmp_path, bundles["left"], tmp_path / "pictures", closed_port())).wait()
    assert caplog.text.count("no longer configured") == 3  # left, label, right


def test_marks_count_for_the_zone_that_was_rejected_and_misses_for_the_one_that_was_nearest(
    bundles: dict[str, Path], tmp_path: Path
) -> None:
    broken = ["left", "right", "left right", ""]
    images = [pair(5000 + n, each) for n, each in enumerate(broken)]
    station = Station(tmp_path, bundles, images, closed_port())
    Running(station.config).wait()
    archive = station.state / "archive"
    with open_reader(archive) as index:
        pictures = sorted(index.each(ArchiveQuery()), key=lambda each: each.seq)
    for picture in pictures:
        mark(archive, picture.result_id, Mark("defect", "Ana", 1))
    found = {zone: {name for name, _ in labelled_images_in(archive, 0, zone).defects} for zone in ("", *ZONES)}
    ids = [picture.result_id for picture in pictures]
    missed = json.loads((archive / pictures[3].path).with_suffix(".json").read_text())["zones"]
    nearest = max(missed, key=lambda zone: missed[zone]["margin"])
    assert {zone: found[zone] - {ids[3]} for zone in ZONES} == {"left": {ids[0], ids[2]}, "right": {ids[1], ids[2]}}
    assert [zone for zone in ZONES if ids[3] in found[zone]] == [nearest]
    assert found[""] == set(ids)


def test_images_are_exported_for_a_zone_by_what_was_found_in_it(
    bundles: dict[str, Path], tmp_path: Path, command: Callable[..., Outcome]
) -> None:
    broken = ["left", "right", "left right", "", "left", "right"]
    station = Station(tmp_path, bundles, [pair(5000 + n, each) for n, each in enumerate(broken)], closed_port())
    Running(station.config).wait()
    archive = station.state / "archive"
    with open_reader(archive) as index:
        ids = {picture.seq: picture.result_id for picture in index.each(ArchiveQuery())}
    mark(archive, ids[4], Mark("good", "Ana", 1))
    mark(archive, ids[5], Mark("defect", "Ana", 1))
    told = command("archive", "export", tmp_path / "out", "--zone", "left", "--config", station.config)
    assert "1 are unknown for left" in told.out
    found = {
        kind: {seq for seq, name in ids.items() for path in (tmp_path / "out").glob(kind) if name[:8] in path.name}
        for kind in ("test/defect/*.png", "*/good/*.png")
    }
    assert found == {"test/defect/*.png": {0, 2}, "*/good/*.png": {1, 3, 4}}


@pytest.mark.slow
def test_the_doctor_checks_the_bundle_of_each_zone(bundles: dict[str, Path], tmp_path: Path) -> None:
    station = Station(tmp_path, bundles, [pair(1)], closed_port())
    found = {finding.name: finding for finding in network(str(station.config), 1e6, 192, 72)}
    for zone in ZONES:
        assert found[f"bundle {zone}"].level == found[f"golden frames {zone}"].level == "ok"
    both = sum(found[f"speed {zone}"].figures["p50_ms"] for zone in ZONES)
    assert math.isclose(found["speed of all"].figures["p50_ms"], both)
    assert found["speed of all"].level == "warning"
    shown = [line for finding in found.values() for line in lines(finding, None)]
    assert any("golden frames right all 4 have" in line for line in shown)
    station.config.write_text(station.config.read_text().replace(str(bundles["right"]), str(tmp_path)))
    found = {finding.name: finding for finding in network(str(station.config), 1e6, 192, 72)}
    assert found["bundle right"].level == "fault"
    assert "speed of all" not in found  # that would be the speed of one
