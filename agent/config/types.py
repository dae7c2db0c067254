"""The types of values in the configuration."""

from __future__ import annotations

import math
import os
import re
from pathlib import Path
from typing import Annotated, Literal, TypeAlias

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, model_validator

from agent.camera.sources import is_file_name

_LONGEST_PATH, _LONGEST_NAME = 4095, 255  # bytes; Linux takes no more
_LONGEST_HOST = 253
_TIME = r"([01]\d|2[0-3]):(00|15|30|45)"
_ZONE = r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}"


def _from_folder(path: object, info: ValidationInfo) -> object:
    """Relative paths start at the folder of the file, wherever the agent is started."""
    if not isinstance(path, (str, Path)) or path == "":
        return path
    folder = Path((info.context or {}).get("folder", ""))
    try:
        absolute = Path(os.path.normpath(folder.absolute() / Path(path).expanduser()))
    except RuntimeError as error:  # no home folder of that user
        raise ValueError(str(error)) from error
    if len(bytes(absolute)) > _LONGEST_PATH or any(len(os.fsencode(part)) > _LONGEST_NAME for part in absolute.parts):
        raise ValueError  # the message of the key says what is allowed
    return absolute


def _camera_source(source: object, info: ValidationInfo) -> object:
    if isinstance(source, bool) or not isinstance(source, (int, str)) or source == "" or str(source).startswith("-"):
        raise ValueError  # the message of the key says what is allowed
    return str(_from_folder(source, info)) if isinstance(source, str) and is_file_name(source) else source


def _host(host: str) -> str:
    if not host or len(host.encode("idna")) > _LONGEST_HOST:  # UnicodeError, a ValueError: an empty or too long label
        raise ValueError  # as above
    return host


def _topic_level(level: str) -> str:
    if not level.strip() or set(level) & set("/+#\0"):
        raise ValueError  # as above
    return level


def mqtt_version(version: object) -> object:
    """An MQTT version, of which YAML reads one as a number."""
    return "5" if type(version) is int and str(version) == "5" else version


def _number_or_auto(setting: object) -> object:
    is_number = isinstance(setting, (int, float)) and not isinstance(setting, bool) and math.isfinite(setting)
    if not is_number and setting is not None and setting != "auto":
        raise ValueError  # as above
    return float(setting) if isinstance(setting, int) else setting


def _by_zone(bundle: object, info: ValidationInfo) -> object:
    """A single bundle belongs to the zone without a name."""
    if not isinstance(bundle, dict):
        return {"": _bundle_path(bundle, info)}
    if not bundle or not all(re.fullmatch(_ZONE, str(name)) for name in bundle):
        raise ValueError  # as above
    return {str(name): _bundle_path(path, info) for name, path in bundle.items()}


def _bundle_path(path: object, info: ValidationInfo) -> object:
    if not isinstance(path, (str, Path)) or path == "":
        raise ValueError  # as above
    return _from_folder(path, info)


def _shifts(shifts: object) -> object:
    if not isinstance(shifts, dict) or not shifts:
        raise ValueError  # as above
    # YAML reads 14:00 as a number of minutes.
    return {str(name): f"{at // 60:02}:{at % 60:02}" if type(at) is int else at for name, at in shifts.items()}


def _starts_apart(shifts: dict[str, str]) -> dict[str, str]:
    if any(not re.fullmatch(_TIME, str(at)) for at in shifts.values()) or len(set(shifts.values())) < len(shifts):
        raise ValueError  # as above
    return shifts


ZoneName = Field(pattern=f"^{_ZONE}$", json_schema_extra={"allowed": "letters, digits, - and _, at most 32"})
FilePath: TypeAlias = Annotated[Path, BeforeValidator(_from_folder)]
Level: TypeAlias = Annotated[
    str,
    AfterValidator(_topic_level),
    Field(json_schema_extra={"allowed": "text without / + #, in quotes if it is a number"}),
]
Host: TypeAlias = Annotated[
    str, AfterValidator(_host), Field(json_schema_extra={"allowed": "the name or address of a host"})
]
CameraSource: TypeAlias = Annotated[
    int | str,
    BeforeValidator(_camera_source),
    Field(
        json_schema_extra={
            "allowed": "a device number, a GenICam camera (genicam:SERIAL), an rtsp:// or http(s):// URL, a GStreamer "
            "pipeline, a video or an image folder"
        }
    ),
]
Bundles: TypeAlias = Annotated[
    dict[str, Path],
    BeforeValidator(_by_zone),
    Field(json_schema_extra={"allowed": "a path, or for each zone its name (letters, digits, - and _) and a path"}),
]
Shifts: TypeAlias = Annotated[
    dict[str, str],
    BeforeValidator(_shifts),
    AfterValidator(_starts_apart),
    Field(json_schema_extra={"allowed": "for each shift its name and start, on a quarter of an hour: `early: 06:00`"}),
]
NumberOrAuto: TypeAlias = Annotated[
    float | Literal["auto"] | None,
    BeforeValidator(_number_or_auto),
    Field(json_schema_extra={"allowed": "a number, or auto"}),
]


class Section(BaseModel):
    """Keys that belong together. Text is not accepted as a number, nor a number as a truth value."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _empty_section(cls, keys: object) -> object:
        """A section whose lines are all commented out is null in YAML."""
        return {} if keys is None else keys
