"""Sections of the draft with what a step gives; keys that the page does not show stay as they were."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from agent.camera.shown_source import without_password
from agent.errors import SetupError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from agent.config.camera import CameraConfig
    from agent.messages.records import Payload
    from agent.setup.step_values import CameraStep, MqttValues, PartStep


def camera_values(given: CameraStep, before: Mapping[str, Any], camera: CameraConfig | None) -> dict[str, Any]:
    """The section ``camera``; of another camera nothing stays.

    Args:
        given: The source may be as the page shows it, without its password.
        before: The section before.
        camera: The same, checked.

    Raises:
        SetupError: The source names a program library, which only the configuration file may.
    """
    source = given.source.strip() if isinstance(given.source, str) else given.source
    settings = given.model_dump(exclude_unset=True, exclude={"source"})
    if camera is not None and str(source) in {str(camera.source), without_password(str(camera.source))}:
        return merged(before, settings)
    if isinstance(source, str) and source.startswith("gentl:") and "/" in source:
        raise SetupError(
            what=f"{source} loads a library into the station, which this page may not choose",
            remedy="write camera.source into the configuration file, and start the set-up again",
        )
    is_number = isinstance(source, str) and source.isdecimal()
    return {"source": int(source) if is_number else source, **merged({}, settings)}


def trigger_values(given: PartStep, before: Mapping[str, Any]) -> dict[str, Any]:
    """The section ``trigger``, without what belongs to another source."""
    trigger = merged(before, given.model_dump(exclude_unset=True))
    if trigger.get("source", "every_frame") != "every_frame":
        trigger.pop("every", None)
    return trigger


def mqtt_values(given: MqttValues, before: Mapping[str, Any], password_file: Path) -> dict[str, Any]:
    """The section ``mqtt``; the password is where it was, or in the file of the set-up if a new one is given."""
    named = {name: value or None for name, value in given.model_dump(exclude={"password", "tls"}).items()}
    tls = {"enabled": True, "ca_file": given.tls.ca_file or None} if given.tls.enabled else None
    mqtt = merged(before, {**named, "tls": tls})
    places = {"password_file", "password_credential"}
    if mqtt.get("username") and not given.password and places & mqtt.keys():
        return mqtt
    without = {name: value for name, value in mqtt.items() if name not in places}
    is_known = mqtt.get("username") and (given.password or password_file.exists())
    return {**without, "password_file": str(password_file)} if is_known else without


def merged(before: Mapping[str, Any] | None, given: Mapping[str, Any]) -> dict[str, Any]:
    """Keys of a section, with those that are given; null takes a key away."""
    values = dict(before or {})
    for name, value in given.items():
        old = values.get(name)
        values[name] = merged(old if isinstance(old, dict) else {}, value) if isinstance(value, dict) else value
    return {name: value for name, value in values.items() if value is not None}


def without_secrets(values: Mapping[str, Any]) -> Payload:
    """The draft for the page: no password, no file with one, and no address of a camera, which may hold one."""
    mqtt = values.get("mqtt") or {}
    camera = {name: value for name, value in (values.get("camera") or {}).items() if name != "source"}
    return {**values, "camera": camera, "mqtt": {name: value for name, value in mqtt.items() if "password" not in name}}
