from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from quiet import quiet_handshake

from agent.active_alert import ActiveAlert
from agent.outbox import Outbox
from agent.recorder import Recorder
from agent.records import Alert
from agent.topics import Topics

if TYPE_CHECKING:
    from pathlib import Path

    from agent.mqtt.publisher import Announcement
    from agent.outbox import Kind

NEW = Alert(type="new", severity=700, cause="defect", started_at_ms=1_700_000_000_000, result_id="r1", alert_id="a1")
UPDATE = replace(NEW, type="update", severity=900, result_id="r2")
END = NEW.ended(1_700_000_005_000, "r3")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "active_alert.json"


class QuietLine:
    def wake(self) -> None:
        pass

    def announce(self, announcement: Announcement) -> None:
        pass


def test_without_an_alert_nothing_is_left_over_and_no_file_is_made(path: Path) -> None:
    active = ActiveAlert(path)
    assert active.alert is None
    assert active.left_over is None
    assert not path.exists()


def test_an_alert_that_is_active_when_the_process_dies_is_left_over(path: Path) -> None:
    ActiveAlert(path).note(NEW)
    after = ActiveAlert(path)
    assert after.left_over == NEW
    assert after.alert is None, "what is left over is not active: nobody has seen its defect in this session"


def test_what_is_left_over_can_be_ended_under_its_own_identity(path: Path) -> None:
    ActiveAlert(path).note(NEW)
    left_over = ActiveAlert(path).left_over
    assert left_over is not None
    end = left_over.ended(1_700_000_009_000)
    assert (end.alert_id, end.type, end.started_at_ms) == ("a1", "end", NEW.started_at_ms)
    ActiveAlert(path).note(end)
    assert ActiveAlert(path).left_over == end, "it may not have been recorded any more: the same end is due again"
    ActiveAlert(path).forget()
    assert ActiveAlert(path).left_over is None


def test_an_alert_that_ended_leaves_nothing(path: Path) -> None:
    active = ActiveAlert(path)
    active.note(NEW)
    active.note(END)
    assert active.alert is None
    active.forget()
    assert not path.exists()
    assert ActiveAlert(path).left_over is None


def test_an_update_is_known_but_costs_no_write(path: Path) -> None:
    active = ActiveAlert(path)
    active.note(NEW)
    written = path.stat()
    active.note(UPDATE)
    assert active.alert == UPDATE
    assert path.stat() == written
    assert ActiveAlert(path).left_over == NEW


def test_to_end_an_alert_twice_does_no_harm(path: Path) -> None:
    active = ActiveAlert(path)
    active.note(END)
    active.forget()
    active.forget()
    assert not path.exists()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"null",
        b"[]",
        b'"text"',
        b"\xff\xfe",
        b'{"alertId": "a1"}',
        json.dumps({**NEW.payload(), "severity": None}).encode(),
        json.dumps({**NEW.payload(), "startTime": "yesterday"}).encode(),
    ],
)
def test_a_damaged_file_is_as_good_as_none(path: Path, content: bytes) -> None:
    path.write_bytes(content)
    assert ActiveAlert(path).left_over is None


def test_a_disk_that_fails_is_told_and_the_alert_goes_on(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    active = ActiveAlert(path / "no folder" / "active_alert.json")
    active.note(NEW)
    assert active.alert == NEW
    assert "cannot remember the active alert" in caplog.text


def test_the_file_is_there_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class PowerCutError(Exception):
        pass

    def cut(_: int) -> None:
        raise PowerCutError

    monkeypatch.setattr("os.fsync", cut)
    with pytest.raises(PowerCutError):
        ActiveAlert(path).note(NEW)
    assert not path.exists()


@pytest.mark.parametrize("alert", [NEW, UPDATE, END], ids=lambda alert: alert.type)
def test_an_agent_killed_beside_an_alert_record_never_leaves_an_alert_without_an_end(
    tmp_path: Path, path: Path, alert: Alert
) -> None:
    """When the record is put, the file must know it: whoever finds it says the same again, or ends it."""
    known: list[Alert | None] = []

    class WatchedOutbox(Outbox):
        def put(self, kind: Kind, record_id: str, topic: str, payload: str, created_at_ms: int) -> bool:
            known.append(ActiveAlert(path).left_over)
            return super().put(kind, record_id, topic, payload, created_at_ms)

    active = ActiveAlert(path)
    if alert is not NEW:
        active.note(NEW)
    with WatchedOutbox(tmp_path / "outbox.sqlite") as outbox:
        recorder = Recorder(
            outbox,
            None,
            quiet_handshake(),
            QuietLine(),
            Topics("a/b"),
            active,
            is_simulated=False,
        )
        recorder.record_alert(alert, 1)
        (record,) = outbox.waiting(0, 10)
    assert known == [NEW if alert is UPDATE else alert]
    assert json.loads(record.payload)["type"] == alert.type
    assert (ActiveAlert(path).left_over is None) == (alert is END)
