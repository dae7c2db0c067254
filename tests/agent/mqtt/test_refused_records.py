from __future__ import annotations

import pytest

from agent.mqtt.refused_records import RefusedRecords


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now_s = [1000.0]
    monkeypatch.setattr("agent.mqtt.refused_records.time.monotonic", lambda: now_s[-1])
    return now_s


def test_nothing_is_offered_again_in_the_quiet_time_and_no_more_than_fits_after_it(clock: list[float]) -> None:
    refused = RefusedRecords(limit=10, retry_s=60.0)
    for record_id in (3, 1, 2):
        refused.note_refusal(record_id, "alert")
    assert refused.take_due(10) == []
    clock.append(clock[-1] + 60.0)
    assert refused.take_due(0) == []
    assert refused.take_due(2) == [1, 2]
    assert refused.take_due(10) == [], "the last ones have no answer yet"


def test_a_topic_is_closed_by_as_many_refusals_as_the_limit_and_opens_with_the_last_of_what_it_kept_back(
    clock: list[float],
) -> None:
    refused = RefusedRecords(limit=2, retry_s=60.0)
    refused.note_refusal(1, "alert")
    assert not refused.is_closed("alert")
    refused.note_refusal(2, "alert")
    assert refused.is_closed("alert")
    assert not refused.is_closed("result")
    for record_id in (3, 4, 5):
        refused.hold(record_id, "alert")
    clock.append(clock[-1] + 60.0)
    taken: list[int] = []
    while due := refused.take_due(10):
        taken += due
        assert all(refused.forget(record_id) for record_id in due)
    assert taken == [1, 2, 3, 4, 5]
    assert len(refused) == 0
    assert not refused.is_closed("alert")


def test_one_record_that_is_never_taken_does_not_stop_those_behind_it(clock: list[float]) -> None:
    refused = RefusedRecords(limit=2, retry_s=60.0)
    refused.note_refusal(1, "result")
    for record_id in (2, 3, 4):
        refused.hold(record_id, "result")
    taken: list[int] = []
    for _ in range(3):
        clock.append(clock[-1] + 60.0)
        for record_id in refused.take_due(10):
            if record_id == 1:
                refused.note_refusal(1, "result")
            else:
                refused.forget(record_id)
                taken.append(record_id)
    assert taken == [2, 3, 4]
    assert len(refused) == 1


def test_a_record_that_was_never_refused_is_no_change_of_mind() -> None:
    assert not RefusedRecords(limit=2, retry_s=60.0).forget(1)
