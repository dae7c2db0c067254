from __future__ import annotations

import json
import logging
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from agent.alerts.store import ActiveAlerts
from agent.inspection.recorder import Recorder
from agent.messages.records import Alert
from agent.messages.topics import Topics
from agent.outbox.outbox import Outbox
from tests.support.quiet import quiet_handshake

if TYPE_CHECKING:
    from pathlib import Path

    from agent.mqtt.publisher import Announcement
    from agent.outbox.outbox import Kind

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
    active = ActiveAlerts(path)
    assert active.alerts == ()
    assert active.left_over == ()
    assert not path.exists()


def test_an_alert_that_is_active_when_the_process_dies_is_left_over(path: Path) -> None:
    ActiveAlerts(path).note(NEW)
    after = ActiveAlerts(path)
    assert after.left_over == (NEW,)
    assert after.alerts == (), "what is left over is not active: nobody has seen its defect in this session"


def test_what_is_left_over_can_be_ended_under_its_own_identity(path: Path) -> None:
    ActiveAlerts(path).note(NEW)
    (left_over,) = ActiveAlerts(path).left_over
    end = left_over.ended(1_700_000_009_000)
    assert (end.alert_id, end.type, end.started_at_ms) == ("a1", "end", NEW.started_at_ms)
    ActiveAlerts(path).note(end)
    assert ActiveAlerts(path).left_over == (end,), "it may not have been recorded any more: the same end is due again"
    ActiveAlerts(path).forget(end)
    assert ActiveAlerts(path).left_over == ()


def test_an_alert_that_ended_leaves_nothing(path: Path) -> None:
    active = ActiveAlerts(path)
    active.note(NEW)
    active.note(END)
    assert active.alerts == ()
    active.forget(END)
    assert not path.exists()
    assert ActiveAlerts(path).left_over == ()


def test_alerts_with_different_causes_are_active_side_by_side_and_end_alone(path: Path) -> None:
    camera = replace(NEW, cause="camera dark", alert_id="camera-r2")
    active = ActiveAlerts(path)
    active.note(NEW)
    active.note(camera)
    assert active.alerts == (NEW, camera)
    assert ActiveAlerts(path).left_over == (NEW, camera)
    active.note(END)
    active.forget(END)
    assert list(active.alerts) == [camera]
    assert ActiveAlerts(path).left_over == (camera,)


def test_what_is_left_over_stays_on_disk_until_it_is_ended_itself(path: Path) -> None:
    ActiveAlerts(path).note(NEW)
    after = ActiveAlerts(path)
    other = replace(NEW, alert_id="a2")
    after.note(other)
    assert ActiveAlerts(path).left_over == (NEW, other)
    after.note(END)
    after.forget(END)
    assert ActiveAlerts(path).left_over == (other,)


def test_the_one_alert_that_an_older_version_kept_is_read(path: Path) -> None:
    path.write_text(json.dumps(NEW.payload()))
    assert ActiveAlerts(path).left_over == (NEW,)


def test_an_update_is_known_but_costs_no_write(path: Path) -> None:
    active = ActiveAlerts(path)
    active.note(NEW)
    written = path.stat()
    active.note(UPDATE)
    assert active.alerts == (UPDATE,)
    assert path.stat() == written
    assert ActiveAlerts(path).left_over == (NEW,)


def test_to_end_an_alert_twice_does_no_harm(path: Path) -> None:
    active = ActiveAlerts(path)
    active.note(END)
    active.forget(END)
    active.forget(END)
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
    assert ActiveAlerts(path).left_over == ()


def test_a_failing_disk_is_logged_and_the_alert_stays_active(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING)
    active = ActiveAlerts(path / "no folder" / "active_alert.json")
    active.note(NEW)
    assert active.alerts == (NEW,)
    assert "cannot write the active alerts" in caplog.text


def test_the_file_is_there_whole_or_not_at_all(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class PowerCutError(Exception):
        pass

    def cut(_: int) -> None:
        raise PowerCutError

    monkeypatch.setattr("os.fsync", cut)
    with pytest.raises(PowerCutError):
        ActiveAlerts(path).note(NEW)
    assert not path.exists()


@pytest.mark.parametrize("alert", [NEW, UPDATE, END], ids=lambda alert: alert.type)
def test_an_agent_killed_beside_an_alert_record_never_leaves_an_alert_without_an_end(
    tmp_path: Path, path: Path, alert: Alert
) -> None:
    """When the record is put, the file must know it: whoever finds it says the same again, or ends it."""
    known: list[tuple[Alert, ...]] = []

    class WatchedOutbox(Outbox):
        def put(self, kind: Kind, record_id: str, topic: str, payload: str, created_at_ms: int) -> bool:
            known.append(ActiveAlerts(path).left_over)
            return super().put(kind, record_id, topic, payload, created_at_ms)

    active = ActiveAlerts(path)
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
    assert known == [(NEW if alert is UPDATE else alert,)]
    assert json.loads(record.payload)["type"] == alert.type
    assert (ActiveAlerts(path).left_over == ()) == (alert is END)
