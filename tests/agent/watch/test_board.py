"""What `watch` shows of messages: the board, the lines, the screen."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from rich.text import Text

from agent.messages.payloads import AlertState, Health, Status
from agent.messages.records import Alert, Evaluation, Result, ResultCode
from agent.watch.board import StationBoard
from agent.watch.rendering import clock, line, station_labels
from agent.watch.screen import render_screen

if TYPE_CHECKING:
    from collections.abc import Callable

ROOT = "acme/north/press/line2/cell4/vision/station1"
OTHER = "acme/north/press/line2/cell5/vision/station1"
NOW_MS = 1_700_000_000_000


@pytest.fixture(autouse=True)
def utc(use_zone: Callable[[str], None]) -> None:
    use_zone("UTC")


def result(number: int, evaluation: Evaluation = Evaluation.OK, **more: Any) -> dict[str, Any]:  # noqa: ANN401 - any field
    made = Result(
        seq=number,
        part_id=f"A-{number}",
        created_at_ms=NOW_MS + number * 1000,
        evaluation=evaluation,
        score=15.0,
        threshold=10.0,
        result_id=f"{number:032}",
    )
    return {**made.payload(), **more}


def status(state: str = "running", reason: str = "", *, online: bool = True) -> dict[str, Any]:
    return Status(
        online=online, timestamp_ms=NOW_MS, state=state, reason=reason, session_id="s", version="0.1.0"
    ).payload()


HEALTH = Health(
    timestamp_ms=NOW_MS,
    fps=9.87,
    p50_ms={"total": 20.0},
    p99_ms={"total": 35.25, "inference": 30.0},
    captured=100,
    results=88,
    last_result_age_ms=10,
    camera="running",
    dropped={"late": 10, "archive: full": 2},
    outbox_depth=1234,
    disk_free_bytes=10**9,
    temperature_c=None,
    drift=None,
).payload()


class Plant:
    """A board, and stations that publish."""

    def __init__(self) -> None:
        self.board = StationBoard()
        self.lines: list[str] = []

    def publish(self, kind: str, content: dict[str, Any], root: str = ROOT) -> None:
        update = self.board.update(f"{root}/{kind}", json.dumps(content).encode(), NOW_MS)
        text = line(update[0].root, update[0].message, NOW_MS) if update and update[1] else None
        self.lines += [text] if text else []

    def shown(self, width: int = 200, height: int = 60, now_ms: int = NOW_MS) -> list[str]:
        console = Console(width=width, height=height, file=io.StringIO(), record=True)
        console.print(render_screen(self.board, Text("connected to broker:1883"), "+/#", now_ms, height))
        return [row.rstrip() for row in console.export_text().splitlines()]


@pytest.fixture
def plant() -> Plant:
    return Plant()


def row_with(rows: list[str], word: str) -> list[str]:
    return next(row for row in rows if word in row).split()


# The board


def test_a_station_is_shown_with_its_health(plant: Plant) -> None:
    plant.publish("status", status())
    plant.publish("health", HEALTH)
    plant.publish("info", {})
    assert row_with(plant.shown(), "running") == ["station1", "running", "9.9", "35.2", "1,234", "12"]


def test_messages_to_the_plc_are_counted_with_those_that_are_not_valid(plant: Plant) -> None:
    for valid in (True, False, True):
        plant.publish(
            "plc", {"seq": 1, "partId": None, "resultEvaluation": 1, "resultCode": 0, "valid": valid, "ageMs": 9}
        )
    assert row_with(plant.shown(), "station1 ")[-2:] == ["3", "1"]


def test_a_result_that_comes_again_is_shown_and_counted_once(plant: Plant) -> None:
    plant.publish("result", result(1))
    plant.publish("result", {**result(1), "historical": True})
    assert (plant.board.result_count, len(plant.lines)) == (1, 1)


def test_the_newest_fifteen_results_are_shown_the_newest_first(plant: Plant) -> None:
    for number in range(20):
        plant.publish("result", result(number))
    rows = [row for row in plant.shown() if "A-" in row]
    assert [row.split()[2] for row in rows] == [f"A-{number}" for number in range(19, 4, -1)]


def test_a_result_is_shown_with_verdict_ratio_and_code(plant: Plant) -> None:
    plant.publish("result", result(1, Evaluation.NOT_OK))
    plant.publish("result", result(2, Evaluation.NOT_DECIDABLE, score=None, resultCode=ResultCode.ENGINE_FAULT.value))
    plant.publish("result", result(3, resultCode=77, historical=True))
    rows = plant.shown()
    assert row_with(rows, "A-1") == ["22:13:21", "station1", "A-1", "NotOK", "1.50"]
    assert row_with(rows, "A-2")[2:] == ["A-2", "NotDecidable", "2", "engine", "fault"]
    assert row_with(rows, "A-3")[2:] == ["A-3", "OK", "1.50", "77,", "historical"]


def test_verdicts_have_their_colours(plant: Plant) -> None:
    for number, evaluation in enumerate((Evaluation.OK, Evaluation.NOT_OK, Evaluation.NOT_DECIDABLE)):
        plant.publish("result", result(number, evaluation))
    console = Console(width=80, file=io.StringIO(), record=True, force_terminal=True, color_system="standard")
    console.print(render_screen(plant.board, Text(), "", NOW_MS, 24))
    styled = console.export_text(styles=True)
    assert "\x1b[1;31mNotOK" in styled
    assert "\x1b[33mNotDecidable" in styled
    assert "\x1b[32mOK" in styled


def test_alerts_are_shown_while_they_are_active(plant: Plant) -> None:
    alert = Alert(type="new", severity=812, cause="defect", started_at_ms=NOW_MS)
    plant.publish("alert", alert.payload())
    assert row_with(plant.shown(), "since") == ["since", "22:13:20", "station1", "812", "defect"]
    plant.publish("alert", alert.ended(NOW_MS).payload())
    assert not any("since" in row for row in plant.shown())
    plant.publish("alert/state", AlertState(timestamp_ms=NOW_MS, active=(alert,)).payload())
    assert any("since" in row for row in plant.shown())
    plant.publish("alert/state", AlertState(timestamp_ms=NOW_MS, active=()).payload())
    assert not any("since" in row for row in plant.shown())


def test_an_alert_of_the_past_is_not_active_now(plant: Plant) -> None:
    alert = Alert(type="new", severity=812, cause="defect", started_at_ms=NOW_MS)
    plant.publish("alert", {**alert.payload(), "historical": True})
    assert not any("since" in row for row in plant.shown())
    assert plant.lines[0].endswith("historical")


def test_more_alerts_than_fit_are_counted(plant: Plant) -> None:
    alerts = [Alert(type="new", severity=500, cause="defect", started_at_ms=NOW_MS + n) for n in range(8)]
    plant.publish("alert/state", AlertState(timestamp_ms=NOW_MS, active=tuple(alerts)).payload())
    assert "and 3 more" in plant.shown()


def test_answers_to_commands_are_shown(plant: Plant) -> None:
    answer = {"commandId": "1", "command": "threshold", "error": None, "progress": None, "auditHash": "ab"}
    plant.publish("cmd/ack", {**answer, "accepted": True})
    plant.publish("cmd/ack", {**answer, "command": "rollback", "accepted": False, "error": "nothing to go back to"})
    plant.publish("cmd/threshold", {"commandId": "1", "args": {}, "expires": 0, "by": "x"})
    rows = plant.shown()
    assert row_with(rows, "threshold ")[-1] == "accepted"
    assert "refused: nothing to go back to" in next(row for row in rows if "rollback" in row)
    assert [each.split(" ack ")[1] for each in plant.lines] == [
        "threshold id=1 accepted",
        "rollback id=1 refused: nothing to go back to",
    ]


def test_a_command_that_takes_long_has_one_row_and_a_line_for_each_phase(plant: Plant) -> None:
    answer = {"commandId": "1", "command": "recalibrate", "accepted": True, "error": None, "auditHash": None}
    for phase, progress in (("collecting", 0.0), ("collecting", 0.088), ("collecting", 0.1), ("fitting", 0.5)):
        plant.publish("cmd/ack", {**answer, "phase": phase, "progress": progress})
    assert row_with(plant.shown(), "recalibrate")[-2:] == ["fitting,", "50%"]
    plant.publish("cmd/ack", {**answer, "progress": 1.0})
    assert row_with(plant.shown(), "recalibrate")[-1] == "done"
    assert len([row for row in plant.shown() if "recalibrate" in row]) == 1
    assert [each.split(" id=1 ")[1] for each in plant.lines] == ["collecting, 0%", "fitting, 50%", "done"]


def test_answers_to_commands_that_could_not_be_read_are_all_shown(plant: Plant) -> None:
    for _ in range(2):
        refusal = {"commandId": None, "command": "pause", "accepted": False, "error": "not JSON", "progress": None}
        plant.publish("cmd/ack", {**refusal, "auditHash": None})
    assert len(plant.lines) == len(plant.board.acks) == 2


def test_stations_are_paused_only_if_all_are(plant: Plant) -> None:
    assert not plant.board.is_paused
    plant.publish("status", status("paused", "lens is being cleaned"))
    assert plant.board.is_paused
    plant.publish("status", status(), OTHER)
    assert not plant.board.is_paused
    plant.publish("status", status("paused"), OTHER)
    assert plant.board.is_paused


def test_stations_with_a_problem_come_first_with_the_reason(plant: Plant) -> None:
    plant.publish("status", status())
    plant.publish("status", status("lost", "the camera gives no frames"), OTHER)
    rows = plant.shown()
    assert [row.split()[0] for row in rows[5:8]] == ["cell5/station1", "cell4/station1", "cell5/station1:"]
    assert "cell5/station1: the camera gives no frames" in rows


def test_a_station_that_has_fallen_silent_has_a_problem(plant: Plant) -> None:
    plant.publish("status", status())
    plant.publish("health", HEALTH)
    assert "station1: no health for 16 s; its figures are old" in plant.shown(now_ms=NOW_MS + 16_000)


def test_an_offline_station_shows_no_figures(plant: Plant) -> None:
    plant.publish("health", HEALTH)
    plant.publish("status", status("offline", "connection lost", online=False))
    assert row_with(plant.shown(), "station1 ") == ["station1", "offline"]
    assert "station1: connection lost" in plant.shown()


# Names, times, lines


def test_labels_are_the_shortest_ends_that_distinguish_stations() -> None:
    assert station_labels([ROOT]) == {ROOT: "station1"}
    assert station_labels([ROOT, OTHER]) == {ROOT: "cell4/station1", OTHER: "cell5/station1"}
    assert station_labels([]) == {}
    assert station_labels(["a/b", "c/a/b", "vision"]) == {"a/b": "a/b", "c/a/b": "c/a/b", "vision": "vision"}


def test_another_day_is_shown_with_its_date() -> None:
    assert clock(NOW_MS, NOW_MS) == "22:13:20"
    assert clock(NOW_MS - 86_400_000, NOW_MS) == "11-13 22:13"


def test_lines_are_for_grep(plant: Plant) -> None:
    plant.publish("status", status())
    plant.publish("status", {**status(), "timestamp": NOW_MS + 1})
    plant.publish("status", status("lost", "the camera gives no frames"))
    plant.publish("health", HEALTH)
    plant.publish("result", result(1, Evaluation.NOT_OK, partId="left side"))
    plant.publish("result", result(2, Evaluation.NOT_DECIDABLE, score=None, resultCode=1, partId=None, historical=True))
    plant.publish("result", result(3, Evaluation.NOT_OK, zone="label"))
    plant.publish("alert", Alert(type="new", severity=812, cause="defect", started_at_ms=NOW_MS).payload())
    assert plant.lines == [
        f'2023-11-14T22:13:20.000+00:00 {ROOT} status running reason=""',
        f'2023-11-14T22:13:20.000+00:00 {ROOT} status lost reason="the camera gives no frames"',
        f'2023-11-14T22:13:21.000+00:00 {ROOT} result NotOK part="left side" score/threshold=1.5 code=0',
        f"2023-11-14T22:13:22.000+00:00 {ROOT} result NotDecidable part=none score/threshold=none code=1 historical",
        f"2023-11-14T22:13:23.000+00:00 {ROOT} result NotOK part=A-3 score/threshold=1.5 zone=label code=0",
        f"2023-11-14T22:13:20.000+00:00 {ROOT} alert new severity=812 cause=defect",
    ]


# What others publish


MALFORMED = [
    b"", b"{", b"null", b"[]", b"1", b"\xff", b"[" * 100_000, b"1" * 5000, b"{}", b'{"valid": 1}', b'{"online": "yes"}',
    json.dumps(result(1, resultEvaluation=4)).encode(),
    json.dumps(result(1, creationTime=10**18)).encode(),
    json.dumps(result(1, creationTime=-1)).encode(),
    json.dumps(result(1, score=float("nan"))).encode(),
    json.dumps(result(1, partId=7)).encode(),
    json.dumps(result(1, resultId=None)).encode(),
]  # fmt: skip


@pytest.mark.parametrize("payload", MALFORMED)
@pytest.mark.parametrize("kind", ["status", "result", "health", "plc", "alert", "alert/state", "cmd/ack"])
def test_malformed_messages_are_counted_and_nothing_else(kind: str, payload: bytes) -> None:
    board = StationBoard()
    assert board.update(f"{ROOT}/{kind}", payload, NOW_MS) is None
    assert (board.malformed, board.stations, board.result_count) == (1, {}, 0)


@pytest.mark.parametrize("topic", ["result", f"{ROOT}/cmd/pause", f"{ROOT}/other", ROOT, "", "/", "spBv1.0/g/NBIRTH/n"])
def test_topics_that_are_not_of_a_station_are_ignored(topic: str) -> None:
    board = StationBoard()
    assert board.update(topic, b"{", NOW_MS) is None
    assert (board.malformed, board.stations) == (0, {})


def test_what_would_steer_the_terminal_is_made_harmless(plant: Plant) -> None:
    evil = "\x1b[2J\x07\n\r\u202e\x9b[bold]"
    plant.publish("result", result(1, partId=evil), root=f"{ROOT}\x1b[2J")
    plant.publish("status", status("lost", evil, online=True))
    plant.publish("cmd/ack", {"commandId": evil, "command": evil, "accepted": False, "error": evil})
    plant.publish("alert", {**Alert(type="new", severity=1, cause=evil, started_at_ms=NOW_MS).payload()})
    for text in (*plant.shown(), *plant.lines):
        assert text.isprintable()
    assert any("?[2J?????[bold]" in text for text in plant.shown())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda each: st.lists(each, max_size=3) | st.dictionaries(st.text(max_size=5), each, max_size=3),
    max_leaves=6,
)
KEYS = {"status": status(), "health": HEALTH, "result": result(1), "plc": {"valid": True},
        "alert": Alert(type="new", severity=5, cause="x", started_at_ms=1).payload(),
        "cmd/ack": {"commandId": "1", "command": "pause", "accepted": True, "progress": 0.5}}  # fmt: skip


@pytest.mark.slow
@given(data=st.data())
def test_a_station_with_any_value_in_any_key_can_be_shown(data: st.DataObject) -> None:
    plant = Plant()
    kind = data.draw(st.sampled_from(sorted(KEYS)))
    content = dict(KEYS[kind])
    content[data.draw(st.sampled_from(sorted(content)))] = data.draw(JSON)
    plant.publish(kind, content)
    plant.shown(80, 24)


@given(payload=st.binary(max_size=30), kind=st.sampled_from(sorted(KEYS)))
def test_any_bytes_can_be_received(payload: bytes, kind: str) -> None:
    StationBoard().update(f"{ROOT}/{kind}", payload, NOW_MS)


# The screen


def crowded(stations: int) -> Plant:
    plant = Plant()
    for number in range(stations):
        root = f"acme/north/press/line{number}/cell{number}/vision/a-station-with-a-very-long-name"
        plant.publish(
            "status", status("fault", "the frame is 640 x 480, the bundle was taught with 1280 x 960 " * 2), root
        )
        plant.publish("health", {**HEALTH, "fps": 12345.6, "outboxDepth": 100_000, "dropped": {"late": 10**9}}, root)
        plant.publish("alert", Alert(type="new", severity=1000, cause="defect", started_at_ms=NOW_MS).payload(), root)
        plant.publish(
            "cmd/ack", {"commandId": "1", "command": "threshold", "accepted": False, "error": "no " * 60}, root
        )
        for each in range(5):
            plant.publish("plc", {"valid": False}, root)
            part = f"a very long part identity {number}.{each}"
            more = {"partId": part, "resultCode": 1, "historical": True, "resultId": part}
            plant.publish("result", result(each, Evaluation.NOT_DECIDABLE, **more), root)
    return plant


@pytest.mark.parametrize("stations", [0, 1, 4, 40])
@pytest.mark.parametrize(("width", "height"), [(80, 24), (80, 50), (200, 50)])
def test_the_page_fits_the_terminal_and_keeps_its_figures(stations: int, width: int, height: int) -> None:
    rows = crowded(stations).shown(width, height)
    assert max(map(len, rows)) <= width
    assert len(rows) < height
    if stations:
        assert sum("NotDecidable" in row for row in rows) >= 3
        assert any("since" in row for row in rows)
        assert sum("12345.6" in row and "1,000,000,000" in row and "100,000" in row for row in rows) >= 1


def test_a_screen_without_stations_says_so(plant: Plant) -> None:
    assert "No station has published anything yet." in plant.shown(80, 24)


def test_stations_that_do_not_fit_are_counted() -> None:
    assert any("and 36 more" in row or "more; a larger terminal" in row for row in crowded(40).shown(80, 24))
