from __future__ import annotations

import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.messages.records import Evaluation
from agent.metrics.loop_metrics import Latencies, LoopMetrics
from tests.support.fakes import FakeClock


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock(1000.0)


@pytest.mark.slow
@given(st.lists(st.floats(0, 1e5), min_size=1, max_size=512), st.floats(0, 100))
def test_a_percentile_is_that_of_all_remembered_durations(durations_ms: list[float], share: float) -> None:
    latencies = Latencies()
    for duration_ms in durations_ms:
        latencies.add(duration_ms)
    assert latencies.percentile(share) == round(float(np.percentile(durations_ms, share)), 3)


def test_only_the_last_512_durations_count() -> None:
    latencies = Latencies()
    for duration_ms in [9000.0] * 100 + [1.0] * 511 + [2.0]:
        latencies.add(duration_ms)
    assert latencies.percentile(100) == 2.0
    assert latencies.percentile(0) == 1.0


def test_before_the_first_frame_everything_is_zero_and_there_is_no_age(clock: FakeClock) -> None:
    metrics = LoopMetrics(clock)
    assert metrics.results == 0
    assert metrics.results_per_s() == 0.0
    assert metrics.percentiles(50) == {}
    assert metrics.last_result_age_ms() is None
    assert Latencies().percentile(50) == 0.0


@pytest.mark.parametrize("rate", [0.5, 8.0, 30.0, 500.0])
def test_a_steady_rate_is_the_rate_from_the_first_second_on(clock: FakeClock, rate: float) -> None:
    metrics = LoopMetrics(clock)
    for count in range(1, int(12 * rate) + 1):
        clock.now_s += 1 / rate
        metrics.note({"total": 1.0})
        if count >= max(2.0, rate):
            assert metrics.results_per_s() == pytest.approx(rate, rel=0.25 if rate < 1 else 0.02)


def test_the_first_frame_does_not_look_like_a_thousand_a_second(clock: FakeClock) -> None:
    metrics = LoopMetrics(clock)
    clock.now_s += 1.0
    metrics.note({"total": 1.0})
    assert metrics.results_per_s() == 1.0


def test_the_rate_falls_to_zero_when_no_frame_comes_and_the_age_grows(clock: FakeClock) -> None:
    metrics = LoopMetrics(clock)
    for _ in range(100):
        clock.now_s += 0.1
        metrics.note({"total": 1.0})
    assert metrics.last_result_age_ms() == 0
    clock.now_s += 2.5
    assert metrics.results_per_s() == pytest.approx(5.0, abs=0.3)
    assert metrics.last_result_age_ms() == 2500
    clock.now_s += 2.6
    assert metrics.results_per_s() == 0.0
    assert metrics.last_result_age_ms() == 5100


def test_frames_a_second_are_those_of_the_camera_also_while_few_of_them_show_a_part(clock: FakeClock) -> None:
    metrics = LoopMetrics(clock)
    for frame in range(1, 201):
        clock.now_s += 0.1
        if frame % 10 == 0:
            metrics.note({"total": 1.0})
        metrics.note_captured(frame)
    assert metrics.frames_per_s() == pytest.approx(10.0, rel=0.03)
    assert metrics.results_per_s() == pytest.approx(1.0, rel=0.25)
    for _ in range(60):  # the camera is lost
        clock.now_s += 0.1
        metrics.note_captured(200)
    assert metrics.frames_per_s() == 0.0


def test_stages_are_kept_apart_and_may_come_later(clock: FakeClock) -> None:
    metrics = LoopMetrics(clock)
    metrics.note({"inference": 4.0})
    metrics.note({"inference": 6.0, "record": 1.0})
    assert metrics.percentiles(100) == {"inference": 6.0, "record": 1.0}
    assert metrics.percentiles(0) == {"inference": 4.0, "record": 1.0}
    assert metrics.results == 2


def test_the_publisher_may_read_while_the_loop_writes_new_stages() -> None:
    metrics = LoopMetrics()
    failures: list[RuntimeError] = []
    done = threading.Event()

    def read() -> None:
        try:
            while not done.is_set():
                metrics.percentiles(50)
        except RuntimeError as error:  # dictionary changed size during iteration
            failures.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(300):
        metrics.note({f"stage {number}": 1.0})
    done.set()
    reader.join(10)
    assert not failures
    assert metrics.results == 300


def test_verdicts_are_counted_and_the_fault_is_that_of_the_last_frame() -> None:
    metrics = LoopMetrics()
    metrics.note({}, Evaluation.OK)
    metrics.note({}, Evaluation.NOT_DECIDABLE, "too small")
    assert metrics.fault == "too small"
    metrics.note({}, Evaluation.OK)
    assert metrics.fault is None
    assert metrics.verdicts == {Evaluation.OK: 2, Evaluation.NOT_DECIDABLE: 1}
