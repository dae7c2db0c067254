"""A step changes what the page shows, and leaves the rest of a section as it was."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from agent.config.camera import CameraConfig
from agent.setup.section_values import camera_values, merged, mqtt_values, trigger_values, without_secrets
from agent.setup.step_values import CameraStep, MqttValues, PartStep

if TYPE_CHECKING:
    from pathlib import Path

ADDRESS = "rtsp://user:secret@camera/1"
SHOWN = "rtsp://***@camera/1"
NEW = "another"
BROKER = {"host": "10.0.0.5", "keepalive_s": 60, "client_id": "press"}


def test_settings_that_the_page_does_not_show_stay_while_the_camera_is_the_same() -> None:
    before = {"source": 0, "format": "MJPG", "width": 640, "height": 480, "gain": 2.0}
    camera = CameraConfig(**before)  # type: ignore[arg-type]
    given = {"width": 1280, "height": 720, "exposure": "auto", "gain": None}
    expected = {"source": 0, "format": "MJPG", "width": 1280, "height": 720, "exposure": "auto"}
    for source in (0, "0", " 0 "):
        assert camera_values(CameraStep(source=source, **given), before, camera) == expected
    other = camera_values(CameraStep(source="1", **given), before, camera)
    assert other == {"source": 1, "width": 1280, "height": 720, "exposure": "auto"}


@pytest.mark.parametrize("source", [ADDRESS, SHOWN, f" {SHOWN} "])
def test_an_address_keeps_the_password_that_the_page_does_not_know(source: str) -> None:
    before = {"source": ADDRESS}
    assert camera_values(CameraStep(source=source), before, CameraConfig(source=ADDRESS)) == before


@pytest.mark.parametrize("source", [None, [], {}, True, 1.5, ""])
def test_a_source_that_is_none_stays_as_it_is_for_the_draft_to_refuse(source: object) -> None:
    assert camera_values(CameraStep(source=source), {}, None) == {"source": source}


def test_keys_of_a_trigger_that_belong_to_another_source_go() -> None:
    before = {"source": "every_frame", "every": 5, "frames_per_part": 3}
    assert trigger_values(PartStep(source="motion", settled_ms=300), before) == {
        "source": "motion",
        "settled_ms": 300,
        "frames_per_part": 3,
    }
    assert trigger_values(PartStep(source="every_frame"), before) == before
    assert trigger_values(PartStep(), {"every": 5}) == {"every": 5}


def mqtt(before: dict[str, Any], folder: Path, **given: object) -> dict[str, Any]:
    return mqtt_values(MqttValues.model_validate(given), before, folder / "mqtt-password")


def test_a_broker_keeps_what_the_page_does_not_show(tmp_path: Path) -> None:
    given = {"host": "broker", "port": None, "username": "", "password": ""}
    assert mqtt(BROKER, tmp_path, **given) == {**BROKER, "host": "broker"}
    assert mqtt({**BROKER, "port": 1884}, tmp_path, **given) == {**BROKER, "host": "broker"}


def test_certificates_stay_while_tls_is_on_and_go_with_it(tmp_path: Path) -> None:
    before = {"tls": {"enabled": True, "ca_file": "/ca.pem", "cert_file": "/own.pem", "key_file": "/own.key"}}
    assert mqtt(before, tmp_path, tls={"enabled": True, "ca_file": "/ca2.pem"}) == {
        "tls": {**before["tls"], "ca_file": "/ca2.pem"}
    }
    assert mqtt({}, tmp_path, tls={"enabled": True, "ca_file": ""}) == {"tls": {"enabled": True}}
    for off in ({"tls": {"enabled": False, "ca_file": "/ca.pem"}}, {}):
        assert mqtt(before, tmp_path, **off) == {}


@pytest.mark.parametrize("place", ["password_file", "password_credential"])
def test_a_password_stays_where_it_is_unless_another_is_given(tmp_path: Path, place: str) -> None:
    before = {"username": "press", place: "somewhere"}
    assert mqtt(before, tmp_path, username="press2", password="") == {"username": "press2", place: "somewhere"}
    own = str(tmp_path / "mqtt-password")
    assert mqtt(before, tmp_path, username="press", password=NEW) == {"username": "press", "password_file": own}
    assert mqtt(before, tmp_path, username="", password=NEW) == {}
    assert mqtt({}, tmp_path, username="press") == {"username": "press"}
    (tmp_path / "mqtt-password").write_text("known\n")
    assert mqtt({}, tmp_path, username="press") == {"username": "press", "password_file": own}


def test_null_takes_a_key_away_also_inside_a_section() -> None:
    before = {"a": 1, "b": {"c": 2, "d": 3}}
    assert merged(before, {"a": None, "b": {"c": None, "e": 4}, "f": None}) == {"b": {"d": 3, "e": 4}}
    assert before == {"a": 1, "b": {"c": 2, "d": 3}}
    assert merged(None, {"a": {"b": 1}}) == {"a": {"b": 1}}


def test_the_page_gets_no_secrets() -> None:
    values = {
        "camera": {"source": ADDRESS, "width": 640},
        "mqtt": {"username": "u", "password_file": "/secret", "password_credential": "secret"},
        "trigger": {"source": "motion"},
    }
    assert without_secrets(values) == {
        "camera": {"width": 640},
        "mqtt": {"username": "u"},
        "trigger": {"source": "motion"},
    }
    assert without_secrets({}) == {"camera": {}, "mqtt": {}}
