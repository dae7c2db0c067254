"""Drift: what may warn, what must not, how often without a cause, and how soon."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, cast

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import agent.drift.drift_watch
from agent.alerts.defect import Rules, State
from agent.camera import Frame
from agent.config.model import load
from agent.drift.drift_watch import BLOCK_PARTS, BLOCK_S, DriftWatch, appearance
from agent.drift.reference_ranks import HighScores, ReferenceRanks, effective_count
from agent.drift.report import REMEDY, DriftFinding, DriftReport
from agent.drift.sequential_test import ENDS_AFTER, SequentialTest
from agent.from_config import drift_of
from agent.inspection.combine import FrameCombiner
from agent.inspection.score import score_frame
from agent.station.prometheus import StatusCollector
from agent.station.status import StationStatus
from agent.trigger.part import Part
from agent.zones.active_bundle import ActiveBundle
from agent.zones.recipe import Recipe
from calibration.bundle.bundle import open_bundle
from calibration.camera_checks import frame_statistics
from calibration.camera_checks.reference import ReferenceStatistics
from calibration.engine.contract import Inference
from calibration.imaging.preprocess import Preprocess
from calibration.imaging.region import to_grey
from tests.support.fakes import FakeEngine
from tests.support.running import Running
from tests.support.stations import REGION, THRESHOLD, good_parts, part, write_config, write_pictures

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

    from agent.inspection.score import PartInspection
    from calibration.bundle.bundle import Bundle
    from tests.support.real_broker import Listener, Mosquitto

LIMIT = 130.0
PREPROCESS = Preprocess(64, 64, REGION)
COLUMNS = {"score": 0, "brightness": 1, "colour": 2, "sharpness": 3}
CAUSES = {
    ("score", 1): {"drift: scores higher", "drift: more high scores"},
    ("score", -1): {"drift: scores lower"},
    ("brightness", 1): {"drift: brighter"},
    ("brightness", -1): {"drift: darker"},
    ("colour", 1): {"drift: redder"},
    ("colour", -1): {"drift: bluer"},
    ("sharpness", 1): {"drift: sharper"},
    ("sharpness", -1): {"drift: less sharp"},
}


def odds_to_grey(odds: NDArray[np.float64]) -> NDArray[np.float64]:
    return 256 / (1 + np.exp(-odds)) - 0.5


def good_rows(count: int, random: np.random.Generator) -> NDArray[np.float64]:
    """Score, brightness, colour, sharpness of parts that are good, (count, 4)."""
    spread = np.array((10.0, 0.2, 0.0, 0.2))
    return np.array((100.0, 0.0, 0.0, 1.0)) + spread * random.standard_normal((count, 4))


def reference_of(rows: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """As calibration writes it, of grey pictures."""
    grey = odds_to_grey(rows[:, 1])
    return {"good_scores": rows[:, 0], "brightness": np.stack([grey] * 3, axis=1), "edges": rows[:, 3]}


def a_watch(images: int = 200, seed: int = 0) -> DriftWatch:
    return DriftWatch(reference_of(good_rows(images, np.random.default_rng(seed))), LIMIT)


def play(watch: DriftWatch, rows: Iterable[NDArray[np.float64]], *, begin_ns: int = 0) -> list[DriftReport]:
    """A block of parts each; the reports after each."""
    reports, at_ns = [], begin_ns
    for block in rows:
        for row in block:
            watch.add(tuple(row), at_ns)
            at_ns += math.ceil(BLOCK_S * 1e9 / (len(block) - 1))
        reports.append(watch.report)
    return reports


def blocks(count: int, random: np.random.Generator, *, parts: int = BLOCK_PARTS) -> Iterator[NDArray[np.float64]]:
    return (good_rows(parts, random) for _ in range(count))


def shifted(rows: Iterable[NDArray[np.float64]], statistic: str, by: float) -> Iterator[NDArray[np.float64]]:
    step = np.zeros(4)
    step[COLUMNS[statistic]] = by
    return (block + step for block in rows)


# Evidence


@pytest.mark.parametrize("stays", [0.5, 0.8, 0.9])
def test_false_alarms_are_no_more_frequent_than_stated_even_if_neighbours_are_alike(stays: float) -> None:
    random, lengths = np.random.default_rng(0), []
    for _ in range(30):
        evidence, length, beyond = SequentialTest(200), 0, False
        while not evidence.found and length < 2000:
            beyond ^= bool(random.random() > stays)
            evidence.add(beyond=beyond)
            length += 1
        lengths.append(length)
    assert np.mean(lengths) - 2 * np.std(lengths) / np.sqrt(30) >= 200


def test_at_one_false_alarm_a_year_drift_is_found_after_a_day_of_blocks_beyond() -> None:
    (watched,) = {each._sides[0].test._every_blocks for each in a_watch()._watched.values()}
    evidence, blocks_needed = SequentialTest(watched), 0
    while not evidence.found:
        evidence.add(beyond=True)
        blocks_needed += 1
    assert 20 <= blocks_needed <= 32


@given(st.lists(st.booleans(), max_size=150))
def test_drift_is_found_only_by_a_block_beyond_and_ends_only_after_enough_within(beyond: list[bool]) -> None:
    evidence, within = SequentialTest(50), 0
    for each in beyond:
        before = evidence.found
        evidence.add(beyond=each)
        within = 0 if each else within + 1
        assert 0 <= evidence.strength <= 1
        assert evidence.found <= (before or each)
        if before:
            assert evidence.found == (within < ENDS_AFTER)
            within = 0 if not evidence.found else within


def test_a_change_that_comes_and_goes_every_few_hours_is_not_drift() -> None:
    def found(block_lasts: int) -> bool:
        evidence = SequentialTest(80_000)
        for number in range(2000):
            evidence.add(beyond=number // block_lasts % 2 == 1)
            if evidence.found:
                return True
        return False

    assert not found(6)
    assert not found(12), "day and night"
    assert found(100)


# Ranks


values_of = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=40)


@given(values_of, values_of, st.floats(0, 10))
def test_both_directions_are_mirror_images(good: list[float], new: list[float], tolerance: float) -> None:
    upright = ReferenceRanks(np.array(good), tolerance, sequential=False)
    mirrored = ReferenceRanks(-np.array(good), tolerance, sequential=False)
    assert upright.higher(np.array(new)) == pytest.approx(mirrored.lower(-np.array(new)))
    assert upright.higher(np.array(new)) + upright.lower(np.array(new)) <= 1 + 1e-9


@given(values_of, values_of, st.one_of(st.floats(-1e300, 1e300), st.just(math.inf)))
def test_one_part_moves_a_share_by_its_own_share_at_most(good: list[float], new: list[float], outlier: float) -> None:
    ranks, high = ReferenceRanks(np.array(good), 0.0, sequential=False), HighScores(np.array(good), sequential=False)
    changed = np.array([outlier, *new[1:]])
    for share in (ranks.higher, ranks.lower, high.share):
        assert abs(share(changed) - share(np.array(new))) <= 1 / len(new) + 1e-9


@pytest.mark.slow
@pytest.mark.parametrize("images", [20, 50, 200])
def test_limits_allow_for_an_unlucky_calibration(images: int) -> None:
    random, misled, runs = np.random.default_rng(images), 0, 500
    for _ in range(runs):
        good = random.random(images)  # uniform: what truly lies above a value is 1 less the value
        ranks, high = ReferenceRanks(good, 0.0, sequential=False), HighScores(good, sequential=False)
        misled += abs(good.mean() - 0.5) > ranks.limit - 0.5
        misled += 1.0 - high.typical > high.limit
    assert misled / runs <= 0.05 * 3 / 9 + 2 * math.sqrt(0.05 * 3 / 9 / runs)


def test_neighbours_that_are_alike_count_less() -> None:
    random = np.random.default_rng(0)
    noise = random.standard_normal(2000)
    alike = np.zeros(2000)
    for now in range(1, 2000):
        alike[now] = 0.8 * alike[now - 1] + noise[now]
    assert effective_count(noise, sequential=False) == pytest.approx(2000, rel=0.2)
    assert effective_count(alike, sequential=False) == pytest.approx(2000 / 9, rel=0.4)  # (1 + 0.8) / (1 - 0.8)
    assert effective_count(alike, sequential=True) < effective_count(alike, sequential=False)
    assert effective_count(np.ones(50), sequential=False) == 50
    assert effective_count(np.linspace(0, 1, 50), sequential=False) < 10


# The watch


@pytest.mark.slow
@pytest.mark.parametrize("images", [20, 200])
def test_without_a_change_there_is_no_warning_in_forty_days(images: int) -> None:
    reports = play(a_watch(images), blocks(960, np.random.default_rng(5)))
    assert {report.cause for report in reports} == {None}


@pytest.mark.parametrize(("statistic", "direction"), CAUSES)
def test_a_change_is_reported_with_its_direction_and_ends_when_it_is_gone(statistic: str, direction: int) -> None:
    watch, random = a_watch(), np.random.default_rng(1)
    by = direction * (15.0 if statistic == "score" else 0.4)
    reports = play(watch, shifted(blocks(60, random), statistic, by))
    assert reports[-1].cause in CAUSES[statistic, direction]
    begun = next(number for number, report in enumerate(reports) if report.cause)
    assert 19 <= begun <= 40, "a day or two"
    assert all(report.cause for report in reports[begun:])
    ended = play(watch, blocks(3 * ENDS_AFTER, random), begin_ns=10**15)
    assert ended[0].cause is not None
    assert ended[-1].cause is None


def blocks_until_warning(watch: DriftWatch, by: float) -> int:
    """Blocks of a fast line until higher scores give a warning."""
    for number, block in enumerate(shifted(blocks(1000, np.random.default_rng(2), parts=360), "score", by)):
        if play(watch, [block])[-1].cause:
            return number
    return 1000


def test_a_small_change_is_found_on_a_fast_line_and_its_rejects_are_predicted() -> None:
    watch = a_watch(1000).with_threshold(120.0)
    assert 20 <= blocks_until_warning(watch.with_threshold(120.0), 20.0) <= blocks_until_warning(watch, 2.5) <= 100
    assert watch.report.cause in CAUSES["score", 1]
    assert watch.report.predicted_rate is not None
    assert 1.2 < watch.report.predicted_rate / watch.report.stated_rate < 3, "1.8, if it were known"


def test_a_creeping_change_is_found_when_its_rejects_have_about_doubled() -> None:
    random, watch = np.random.default_rng(3), a_watch(500).with_threshold(123.26)  # one in a hundred is rejected
    for step in np.linspace(0, 20, 1440):  # two deviations in two months
        play(watch, shifted(blocks(1, random, parts=360), "score", step))
        if watch.report.cause:
            break
    assert watch.report.cause in CAUSES["score", 1]
    assert step < 2.72, "2.33 - 2.05 deviations are twice the rejects"


@pytest.mark.slow
def test_a_few_defective_parts_are_not_drift_however_bad_they_are() -> None:
    def with_defects(score: float) -> list[DriftReport]:
        random = np.random.default_rng(4)
        rows = []
        for number, block in enumerate(blocks(300, random)):
            if number % 2:
                block[number % BLOCK_PARTS] = (score, 3.0, 3.0, 9.0)
            rows.append(block)
        return play(a_watch(500), rows)

    mild, wild = with_defects(LIMIT + 1), with_defects(1e30)
    assert {report.cause for report in mild} == {None}
    assert [report.findings for report in mild] == [
        tuple(replace(finding, now=own.now) for finding, own in zip(report.findings, other.findings, strict=True))
        for report, other in zip(wild, mild, strict=True)
    ]


def test_if_most_parts_are_rejected_the_others_do_not_count_as_good() -> None:
    reports = play(a_watch(), shifted(blocks(60, np.random.default_rng(5)), "score", 60.0))
    assert [finding.statistic for finding in reports[-1].findings] == ["high scores"]
    assert reports[-1].cause == "drift: more high scores"
    assert reports[-1].predicted_rate == pytest.approx(1.0, abs=0.06)


@pytest.mark.slow
@given(st.integers(0, 2**32 - 1), st.floats(-30, 30))
def test_the_same_parts_give_the_same_report(seed: int, shift: float) -> None:
    def report() -> DriftReport:
        watch = a_watch(30)
        play(watch, shifted(blocks(3, np.random.default_rng(seed)), "score", shift))
        return watch.report

    assert report() == report()


def test_another_threshold_starts_again() -> None:
    watch = a_watch()
    play(watch, shifted(blocks(60, np.random.default_rng(1)), "brightness", -0.4))
    assert watch.report.cause == "drift: darker"
    served = ActiveBundle(
        cast("Bundle", SimpleNamespace()),
        Recipe(PREPROCESS, FakeEngine(), Rules(LIMIT), (2, 2), None, None, watch),
        LIMIT,
        "",
        print,
    )
    another = served.with_threshold(110.0).recipe.drift
    assert another is not None
    assert (another.report.cause, another.report.blocks) == (None, 0)
    assert another.report.stated_rate > watch.report.stated_rate


def test_a_threshold_that_no_good_image_passes_leaves_the_share_of_high_scores() -> None:
    rows = good_rows(100, np.random.default_rng(0))
    watch = DriftWatch(reference_of(rows), 1.0)
    assert set(watch.report.off) == set(COLUMNS)


def test_an_older_bundle_opens_and_watches_what_it_can() -> None:
    reference = reference_of(good_rows(100, np.random.default_rng(0)))
    del reference["edges"]
    watch = DriftWatch(reference, LIMIT)
    assert watch.report.off == {"sharpness": "the bundle is older than this check"}
    play(watch, blocks(1, np.random.default_rng(1)))
    assert {each.statistic for each in watch.report.findings} == {"high scores", "score", "brightness", "colour"}


def test_too_few_good_images_or_a_still_video_are_reported_as_not_watched() -> None:
    reference = reference_of(good_rows(2, np.random.default_rng(0)))
    assert set(DriftWatch(reference, LIMIT).report.off) == {*COLUMNS, "high scores"} - {"colour"} | {"colour"}
    video = reference_of(np.sort(good_rows(300, np.random.default_rng(0)), axis=0))
    assert set(DriftWatch({**video, "still_at_most": np.array(0)}, LIMIT).report.off) >= {
        "score",
        "brightness",
        "sharpness",
    }


# Pictures


def test_calibration_and_agent_measure_the_same_of_an_image() -> None:
    statistics = ReferenceStatistics()
    prepared = [PREPROCESS(part(number)) for number in range(12)]
    for each in prepared:
        statistics.update(each, each, each.shape[:2])
    reference = statistics.arrays(sequential=False) | {"good_scores": np.arange(12.0)}
    good = agent.drift.drift_watch.good_statistics(reference)
    for number, each in enumerate(prepared):
        light, colour, sharpness = appearance(each)
        assert (light, colour, sharpness) == (
            good["brightness"][number],
            good["colour"][number],
            good["sharpness"][number],
        )
        assert light == pytest.approx(frame_statistics.brightness(to_grey(each)), abs=0.02)


def test_the_words_for_a_direction_fit_the_change_of_the_image() -> None:
    picture = PREPROCESS(part(1))
    light, colour, sharpness = appearance(picture)
    assert appearance((picture * 0.7).astype(np.uint8))[0] < light - 0.1
    assert appearance((picture * (0.8, 1.0, 1.0)).astype(np.uint8))[1] > colour + 0.1
    assert appearance(np.asarray(cv2.GaussianBlur(picture, (0, 0), 1.5), np.uint8))[2] < sharpness - 0.1


class ScoringEngine(FakeEngine):
    """Gives the score that it was created with."""

    def __init__(self, score: float) -> None:
        self.score = score

    def __call__(self, frame: NDArray[np.uint8]) -> Inference:
        del frame
        return Inference(self.score, np.zeros((2, 2), np.float32))


def inspected(drift: DriftWatch | None, score: float, state: State, number: int, seconds: float) -> PartInspection:
    recipe = Recipe(PREPROCESS, ScoringEngine(score), Rules(LIMIT), (2, 2), None, None, drift)
    frame = Frame(number, part(number), round(seconds * 1000), round(seconds * 1e9))
    return FrameCombiner()([[score_frame(frame, Part(None, 0, 0), recipe)]], state)


def test_the_alert_comes_once_ends_with_another_recipe_and_changes_no_verdict() -> None:
    drift = a_watch()
    play(drift, shifted(blocks(60, np.random.default_rng(1)), "brightness", -0.4))
    first = inspected(drift, 100.0, State(), 1, 1.0)
    second = inspected(drift, 100.0, first.decision.state, 2, 2.0)
    third = inspected(a_watch(), 100.0, second.decision.state, 3, 3.0)
    events = [seen.decision.drift_event for seen in (first, second, third)]
    assert [event and (event.type, event.cause, event.severity) for event in events] == [
        ("new", "drift: darker", 200),
        None,
        ("end", "drift: darker", 200),
    ]
    assert third.decision.state.drift is None
    assert {seen.decision.verdict for seen in (first, second, third)} == {
        inspected(None, 100.0, State(), 1, 1.0).decision.verdict
    }


def test_a_defect_alert_that_ends_does_not_lose_the_one_about_drift() -> None:
    drift = a_watch()
    play(drift, shifted(blocks(60, np.random.default_rng(1)), "brightness", -0.4))
    state, events = State(), []
    for number, score in enumerate((100.0, 500.0, 10.0, 10.0, 10.0, 10.0)):
        seen = inspected(drift, score, state, number, float(number))
        state = seen.decision.state
        events += [each for each in (seen.decision.event, seen.decision.drift_event) if each is not None]
    assert [(event.type, event.cause) for event in events] == [
        ("new", "drift: darker"), ("new", "defect"), ("end", "defect"),
    ]  # fmt: skip
    assert state.drift is not None


def test_parts_without_a_score_are_left_out_and_one_in_ten_seconds_is_sampled() -> None:
    drift, state = a_watch(), State()
    for number in range(50):
        inspected(drift, math.nan if number % 2 else 100.0, state, number, float(number))
    assert 3 <= len(drift._block) <= 11
    assert not np.isnan(drift._block).any()


# The station


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks of three parts in no time."""
    monkeypatch.setattr(agent.drift.drift_watch, "BLOCK_S", 1e-9)
    monkeypatch.setattr(agent.drift.drift_watch, "BLOCK_PARTS", 3)
    monkeypatch.setattr(agent.drift.drift_watch, "_PART_EVERY_S", (0.0, 0.0))
    monkeypatch.setattr(agent.drift.drift_watch, "FALSE_ALARM_DAYS", 1e-12)


@pytest.mark.slow
@pytest.mark.usefixtures("quick")
def test_a_station_under_a_fading_lamp_says_so_and_ends_the_alert_when_it_stops(
    mosquitto: Mosquitto, bundle: Path, tmp_path: Path, listen: Callable[[int], Listener]
) -> None:
    mosquitto.start()
    listener = listen(mosquitto.port)
    pictures = write_pictures(tmp_path / "parts", [(each * 0.8).astype(np.uint8) for each in good_parts(40)])
    camera = {"playback": "realtime", "frames_per_s": 100, "loop": True}
    running = Running(
        write_config(tmp_path, bundle, pictures, mosquitto.port, camera=camera, checks={"enabled": False})
    )
    listener.wait_for(lambda heard: heard.on("/alert"))
    running.end()
    listener.wait_for(lambda heard: len(heard.on("/alert")) > 1)
    new, ended = listener.on("/alert")
    assert (new["type"], new["cause"], new["severity"]) == ("new", "drift: darker", 200)
    assert (ended["type"], ended["alertId"], ended["resultId"]) == ("end", new["alertId"], None)
    assert listener.on("/alert/state")[-1]["active"] == []


def test_drift_can_be_switched_off(bundle: Path, tmp_path: Path) -> None:
    on = load(write_config(tmp_path, bundle, 0, 1))
    off = load(write_config(tmp_path, bundle, 0, 1, drift={"enabled": False}))
    assert drift_of(off, open_bundle(bundle)) is None
    drift = drift_of(on, open_bundle(bundle))
    assert drift is not None
    assert drift._threshold == THRESHOLD


def test_drift_is_in_health_in_the_status_text_and_in_the_metrics() -> None:
    finding = DriftFinding(
        statistic="brightness", goes_up=False, direction="darker", share=0.9, limit=0.6, evidence=1.0, found=True,
        now=-0.5, calibrated=0.1,
    )  # fmt: skip
    report = DriftReport(40, (finding,), 0.01, 0.023, {"sharpness": "too few"})
    assert report.payload() == {
        "cause": "drift: darker",
        "remedy": REMEDY,
        "allPartsSince": None,
        "firstParts": None,
        "blocks": 40,
        "falseRejectRate": {"stated": 0.01, "predicted": 0.023},
        "statistics": {
            "brightness": {
                "direction": "darker", "strength": "strong", "share": 0.9, "limit": 0.6, "evidence": 1.0,
                "now": -0.5, "calibrated": 0.1,
            }
        },
        "off": {"sharpness": "too few"},
    }  # fmt: skip
    assert report.words_in("") == "drift: darker (strong)"
    assert report.words_in("left") == "drift: darker (strong) in left"
    status = cast("StationStatus", SimpleNamespace(drifts={"": report}))
    figures = {family.name: family for family in StatusCollector(status, (), "", "")._drift()}
    assert figures["shiftwatch_drift"].samples[0].value == -1
    assert {s.labels["kind"]: s.value for s in figures["shiftwatch_false_reject_rate"].samples} == {
        "stated": 0.01,
        "predicted": 0.023,
    }
    assert isinstance(StationStatus.drifts, property)
