"""The state that `status` reports: it changes when the station has changed, not with each frame."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.station.settled_state import RUNNING, Condition, SettledState

AFTER_S = 2.0
OPENING = Condition("lost", "camera 0 is being opened")
LOST = Condition("lost", "camera 0 gives no frame within 2 s")
DARK = Condition("fault", "the frame is dark")
BLOCKED = Condition("fault", "the view is blocked")


def settled(*states: Condition, every_s: float = 0.1) -> list[Condition]:
    """The settled states, without repeats, while these are seen one after the other."""
    now_s = [0.0]
    state = SettledState(AFTER_S, lambda: now_s[0])
    values: list[Condition] = []
    for seen in states:
        state.note(seen, passing=seen is OPENING)
        if state.value is not None and state.value not in values[-1:]:
            values.append(state.value)
        now_s[0] += every_s
    return values


def test_the_first_state_counts_at_once_and_so_does_the_first_frame_of_a_camera() -> None:
    assert settled(RUNNING) == [RUNNING]
    assert settled(OPENING, RUNNING, RUNNING) == [OPENING, RUNNING]


def test_a_state_that_lasts_is_reported_and_so_is_its_end() -> None:
    assert settled(RUNNING, *[DARK] * 30, *[RUNNING] * 30) == [RUNNING, DARK, RUNNING]
    assert settled(OPENING, *[LOST] * 30, *[RUNNING] * 30) == [OPENING, LOST, RUNNING]


def test_one_bad_frame_in_three_changes_nothing() -> None:
    assert settled(*[RUNNING, RUNNING, DARK] * 100) == [RUNNING]


def test_a_camera_that_comes_and_goes_is_one_loss() -> None:
    assert settled(RUNNING, *[LOST] * 30, *([RUNNING] * 5 + [LOST] * 25) * 20) == [RUNNING, LOST]


def test_faults_that_take_turns_are_one_fault() -> None:
    assert settled(RUNNING, *[DARK, BLOCKED] * 100) in ([RUNNING, DARK], [RUNNING, BLOCKED])


def test_a_fault_on_a_slow_line_is_reported_although_no_further_part_comes() -> None:
    assert settled(RUNNING, DARK, DARK, every_s=AFTER_S) == [RUNNING, DARK]


@given(st.lists(st.sampled_from([RUNNING, DARK, BLOCKED, LOST]), max_size=300))
def test_the_state_never_changes_more_often_than_once_in_its_time(states: list[Condition]) -> None:
    assert len(settled(*states)) <= 1 + len(states) * 0.1 / AFTER_S + 1
