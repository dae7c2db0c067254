from __future__ import annotations

import math
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.alerts.defect import Decision, Rules, State, decide, evaluate, severity_of
from agent.errors import ConfigError
from agent.messages.records import Alert, Evaluation, Result

RULES = Rules(threshold=100.0, raise_after=2, clear_after=2, clear_ratio=0.9, update_every_ms=1_000)
GOOD, BETWEEN, BAD = 50.0, 95.0, 150.0

# Scores around all borders, and what is no score.
scores = st.one_of(
    st.floats(0, 400),
    st.sampled_from([90.0, math.nextafter(90.0, 100.0), 100.0, math.nextafter(100.0, 200.0), 1e300]),
    st.sampled_from([math.nan, math.inf, -math.inf]),
)
rules = st.builds(
    Rules,
    threshold=st.just(100.0),
    raise_after=st.integers(1, 4),
    clear_after=st.integers(1, 4),
    clear_ratio=st.sampled_from([0.5, 0.9, 1.0]),
    update_every_ms=st.integers(1, 3_000),
).flatmap(
    lambda rules_: st.one_of(st.none(), st.integers(rules_.raise_after, 9)).map(
        lambda within: replace(rules_, raise_within=within)
    )
)


@dataclass
class Run:
    decisions: list[Decision]
    state: State

    @property
    def events(self) -> list[Alert]:
        return [decision.event for decision in self.decisions if decision.event is not None]

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]


def run(rules_: Rules, *all_scores: float, step_ms: int = 100, state: State | None = None) -> Run:
    decisions = []
    state = state or State()
    for number, score in enumerate(all_scores):
        decision = decide(rules_, state, score, f"r{number}", number * step_ms)
        decisions.append(decision)
        state = decision.state
    return Run(decisions, state)


@pytest.mark.parametrize(
    ("score", "evaluation", "margin"),
    [
        (0.0, Evaluation.OK, -1.0),
        (100.0, Evaluation.OK, 0.0),
        (math.nextafter(100.0, 101.0), Evaluation.NOT_OK, pytest.approx(0.0)),
        (200.0, Evaluation.NOT_OK, 1.0),
        (math.nan, Evaluation.NOT_DECIDABLE, None),
        (math.inf, Evaluation.NOT_DECIDABLE, None),
        (-math.inf, Evaluation.NOT_DECIDABLE, None),
    ],
)
def test_a_score_above_the_threshold_is_not_ok(score: float, evaluation: Evaluation, margin: float | None) -> None:
    verdict = evaluate(score, 100.0)
    assert (verdict.evaluation, verdict.margin) == (evaluation, margin)


@given(scores)
def test_the_margin_is_that_of_the_published_result(score: float) -> None:
    verdict = evaluate(score, 100.0)
    result = Result(seq=0, part_id=None, created_at_ms=0, evaluation=verdict.evaluation, score=score, threshold=100.0)
    assert verdict.margin == result.margin


def test_an_alert_starts_after_enough_bad_results_in_a_row_and_starts_at_the_first() -> None:
    outcome = run(RULES, GOOD, BAD, GOOD, BAD, BAD)
    assert outcome.events == [
        Alert(
            alert_id="defect-r4",
            type="new",
            severity=600,
            cause="defect",
            started_at_ms=300,
            ended_at_ms=None,
            result_id="r4",
        )
    ]


def test_an_alert_ends_after_enough_clear_results_in_a_row() -> None:
    outcome = run(RULES, BAD, BAD, GOOD, BAD, GOOD, GOOD)
    assert outcome.types == ["new", "end"]
    assert outcome.events[-1] == Alert(
        alert_id="defect-r1", type="end", severity=600, cause="defect", started_at_ms=0, ended_at_ms=500, result_id="r5"
    )
    assert outcome.state.alert is None


def test_a_score_between_clear_level_and_threshold_is_ok_but_clears_nothing() -> None:
    outcome = run(RULES, BAD, BAD, GOOD, BETWEEN, GOOD, BETWEEN, BETWEEN, BETWEEN)
    assert outcome.decisions[-1].verdict.evaluation is Evaluation.OK
    assert outcome.types == ["new"]


def test_the_clear_level_itself_is_clear() -> None:
    assert run(RULES, BAD, BAD, 90.0, 90.0).types == ["new", "end"]


def test_an_alert_can_begin_with_so_many_bad_results_among_the_last() -> None:
    two_of_four = replace(RULES, raise_within=4)
    assert run(two_of_four, BAD, GOOD, GOOD, GOOD, BAD, GOOD).types == []
    assert run(two_of_four, GOOD, BAD, math.nan, GOOD, math.nan, GOOD, BAD).events == [
        Alert(alert_id="defect-r6", type="new", severity=600, cause="defect", started_at_ms=100, result_id="r6")
    ]


def test_what_an_ended_alert_was_about_starts_no_other() -> None:
    two_of_nine = replace(RULES, raise_within=9)
    assert run(two_of_nine, BAD, BAD, GOOD, GOOD, GOOD, BAD, GOOD, GOOD, GOOD).types == ["new", "end"]
    assert run(two_of_nine, BAD, BAD, GOOD, GOOD, GOOD, BAD, GOOD, GOOD, BAD).types == ["new", "end", "new"]


def test_a_result_without_a_score_neither_raises_nor_clears_nor_interrupts() -> None:
    assert run(RULES, math.nan, math.nan, math.inf).types == []
    assert run(RULES, BAD, math.nan, BAD, GOOD, math.inf, GOOD).types == ["new", "end"]


def test_a_rising_severity_is_reported_at_once_and_a_falling_one_is_not() -> None:
    outcome = run(RULES, BAD, BAD, 300.0, 200.0, 300.0, 301.0, 400.0)
    assert [(event.type, event.severity, event.result_id) for event in outcome.events] == [
        ("new", 600, "r1"),
        ("update", 750, "r2"),
        ("update", 751, "r5"),
        ("update", 800, "r6"),
    ]


def test_a_lasting_alert_is_repeated_at_its_interval_with_its_highest_severity() -> None:
    outcome = run(RULES, 300.0, 300.0, *[BAD] * 25)
    assert [(event.type, event.severity, event.result_id) for event in outcome.events] == [
        ("new", 750, "r1"),
        ("update", 750, "r11"),
        ("update", 750, "r21"),
    ]


def test_no_repetition_comes_with_good_results() -> None:
    assert run(RULES, BAD, BAD, *[BETWEEN] * 50).types == ["new"]


def test_a_clock_set_back_does_not_silence_an_alert() -> None:
    state = run(RULES, BAD, BAD, step_ms=1_000_000).state
    assert run(RULES, BAD, BAD, state=state).types == ["update"]


def test_an_alert_never_ends_before_it_starts() -> None:
    state = run(RULES, BAD, BAD, step_ms=1_000).state
    assert state.alert is not None
    event = state.alert.ended(-5_000)
    assert event.ended_at_ms == event.started_at_ms == 0


def test_an_alert_that_is_still_active_at_the_stop_ends_with_its_severity() -> None:
    alert = run(RULES, BAD, BAD).state.alert
    assert alert is not None
    assert alert.ended(700) == Alert(
        alert_id="defect-r1", type="end", severity=600, cause="defect", started_at_ms=0, ended_at_ms=700, result_id=None
    )


def test_the_severity_is_medium_at_the_threshold_and_rises_to_a_thousand() -> None:
    assert [severity_of(score, 100.0) for score in (101, 200, 400, 900, 1e300)] == [502, 667, 800, 900, 1000]


@given(st.floats(1e-300, 1e300), st.floats(1e-300, 1e300), st.floats(1e-300, 1e300))
def test_a_severity_is_within_one_and_a_thousand_and_rises_with_the_score(a: float, b: float, threshold: float) -> None:
    low, high = severity_of(min(a, b), threshold), severity_of(max(a, b), threshold)
    assert 1 <= low <= high <= 1000


@given(rules, st.lists(scores, max_size=60), st.integers(1, 2_000))
def test_alerts_come_one_at_a_time_as_new_updates_end(rules_: Rules, all_scores: list[float], step_ms: int) -> None:
    outcome = run(rules_, *all_scores, step_ms=step_ms)
    left = outcome.state.alert
    events = outcome.events + ([] if left is None else [left.ended(len(all_scores) * step_ms)])
    active: Alert | None = None
    ended: list[str] = []
    for event in events:
        if event.type == "new":
            assert active is None
            assert event.alert_id not in ended
            active = event
        else:
            assert active is not None
            assert (event.alert_id, event.started_at_ms) == (active.alert_id, active.started_at_ms)
            assert event.severity >= active.severity
            active = event
        if event.type == "end":
            assert event.ended_at_ms is not None
            assert event.ended_at_ms >= event.started_at_ms
            ended.append(event.alert_id)
            active = None
        else:
            assert event.ended_at_ms is None
    assert active is None


@given(rules, st.lists(scores, max_size=60))
def test_alerts_begin_and_end_exactly_when_the_last_decidable_results_say_so(
    rules_: Rules, all_scores: list[float]
) -> None:
    """Against the rules written as sentences about the whole past."""
    decidable: list[tuple[int, float]] = []
    is_active, began, ended = False, 0, 0
    for number, (score, decision) in enumerate(zip(all_scores, run(rules_, *all_scores).decisions, strict=True)):
        expected, since_ms = None, None
        if math.isfinite(score):
            decidable.append((number, score))
            last = decidable[ended:][-(rules_.raise_within or rules_.raise_after) :]
            bad = [when for when, one in last if one > 100]
            clear_row = [one for _, one in decidable[began:][-rules_.clear_after :]]
            if not is_active and len(bad) >= rules_.raise_after:
                expected, since_ms, is_active, began = "new", bad[0] * 100, True, len(decidable)
            elif is_active and len(clear_row) == rules_.clear_after and max(clear_row) <= 100 * rules_.clear_ratio:
                expected, is_active, ended = "end", False, len(decidable)
        event = decision.event
        assert (None if event is None or event.type == "update" else event.type) == expected
        if event is not None and event.type == "new":
            assert event.started_at_ms == since_ms


@given(rules, st.lists(scores, max_size=30))
def test_the_same_scores_give_the_same_events(rules_: Rules, all_scores: list[float]) -> None:
    assert run(rules_, *all_scores).events == run(rules_, *all_scores).events


@given(scores, scores)
def test_ok_means_a_finite_score_at_or_below_the_threshold(score: float, before: float) -> None:
    state = run(RULES, before).state
    is_ok = decide(RULES, state, score, "r", 0).verdict.evaluation is Evaluation.OK
    assert is_ok == (math.isfinite(score) and score <= RULES.threshold)


def test_rules_that_cannot_work_are_refused_with_all_their_problems() -> None:
    with pytest.raises(ConfigError) as refusal:
        Rules(threshold=math.nan, raise_after=0, raise_within=-1, clear_after=0, clear_ratio=1.1, update_every_ms=0)
    assert refusal.value.problems == (
        "threshold: nan is not allowed; use a number above 0",
        "raise_after: 0 is not allowed; use 1 or more",
        "raise_within: -1 is not allowed; use raise_after or more",
        "clear_after: 0 is not allowed; use 1 or more",
        "clear_ratio: 1.1 is not allowed; use a number above 0, at most 1",
        "update_every_ms: 0 is not allowed; use 1 or more",
    )
