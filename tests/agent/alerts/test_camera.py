from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from agent.alerts.camera import SEVERITY, CameraState, camera_alert_step
from agent.messages.records import Alert

DARK, MOVED = "camera dark", "camera moved"


def run(*frames: tuple[int, str | None], after_ms: int = 2000) -> tuple[list[Alert | None], CameraState]:
    """Frames as (time, cause)."""
    state, events = CameraState(), []
    for number, (now_ms, cause) in enumerate(frames):
        event, state = camera_alert_step(state, cause, after_ms, f"r{number}", now_ms)
        events.append(event)
    return events, state


def types(events: list[Alert | None]) -> list[str]:
    return ["" if event is None else event.type for event in events]


def test_an_alert_starts_after_its_time_and_starts_at_the_first_bad_frame() -> None:
    events, state = run((0, None), (100, DARK), (2099, DARK), (2100, DARK))
    alert = Alert(type="new", severity=SEVERITY, cause=DARK, started_at_ms=100, result_id="r3", alert_id="camera-r3")
    assert events == [None, None, None, alert]
    assert state.alert == alert


def test_a_good_frame_ends_it_and_the_count_starts_again() -> None:
    events, state = run((0, DARK), (2000, DARK), (2100, None), (2200, DARK), (4100, DARK), (4200, DARK))
    assert types(events) == ["", "new", "end", "", "", "new"]
    assert events[2] is not None
    assert (events[2].ended_at_ms, events[2].result_id, events[2].cause) == (2100, "r2", DARK)
    assert state.alert is not None


def test_without_a_delay_the_first_frame_is_an_alert() -> None:
    assert types(run((5, MOVED), after_ms=0)[0]) == ["new"]


def test_causes_that_take_turns_are_one_alert_under_the_cause_at_its_beginning() -> None:
    events, _ = run((0, DARK), (1000, MOVED), (2000, MOVED), (3000, DARK), (4000, None))
    assert types(events) == ["", "", "new", "", "end"]
    assert events[2] is not None
    assert (events[2].cause, events[2].started_at_ms) == (MOVED, 0)


def test_a_clock_that_is_set_back_delays_the_alert_by_its_time_at_most() -> None:
    events, _ = run((10_000, DARK), (0, DARK), (1999, DARK), (2000, DARK), (2000, None))
    assert types(events) == ["", "", "", "new", "end"]
    assert events[4] is not None
    assert events[4].ended_at_ms is not None
    assert events[4].ended_at_ms >= events[4].started_at_ms


frames_seen = st.tuples(st.integers(0, 10_000), st.sampled_from([None, DARK, MOVED]))


@given(st.lists(frames_seen, max_size=40), st.integers(0, 4000))
def test_new_and_end_alternate_and_belong_together(frames: list[tuple[int, str | None]], after_ms: int) -> None:
    events, state = run(*frames, after_ms=after_ms)
    told = [event for event in events if event is not None]
    assert [event.type for event in told] == (["new", "end"] * len(told))[: len(told)]
    assert all(new.alert_id == end.alert_id for new, end in zip(told[::2], told[1::2], strict=False))
    assert (state.alert is not None) == (len(told) % 2 == 1)
    assert all(event.type == "end" for event, frame in zip(events, frames, strict=True) if event and frame[1] is None)
