"""What belongs into /etc, so that systemd runs the agent: which files, where, with what in them."""

from __future__ import annotations

import sysconfig
from importlib.metadata import files
from pathlib import Path
from typing import NamedTuple

from agent.errors import InstallError

UNIT = "shiftwatch-agent@.service"
TARGET = "shiftwatch-agents.target"
UNITS = Path("/etc/systemd/system")
CONFIGURATIONS = Path("/etc/shiftwatch")
STATES = Path("/var/lib/shiftwatch")
_PLACES = {
    UNIT: UNITS / UNIT,
    TARGET: UNITS / TARGET,
    "70-shiftwatch-cameras.rules": Path("/etc/udev/rules.d/70-shiftwatch-cameras.rules"),
    "sysusers.conf": Path("/etc/sysusers.d/shiftwatch.conf"),
    "tmpfiles.conf": Path("/etc/tmpfiles.d/shiftwatch.conf"),
}
_COMMAND_IN_UNIT = "ExecStart=/opt/shiftwatch/.venv/bin/shiftwatch-agent "


class File(NamedTuple):
    """A file as it should be.

    Attributes:
        path: On the device, absolute.
        content: Whole.
        mode: Its permissions when it is new.
    """

    path: Path
    content: str
    mode: int = 0o644


def unit_files() -> list[File]:
    """The files that all stations of a device share; the unit starts the agent of this very environment.

    Raises:
        InstallError: This installation lacks them.
    """
    folder = _folder()
    own_command = Path(sysconfig.get_path("scripts")) / "shiftwatch-agent"
    contents = {name: (folder / name).read_text(encoding="utf-8") for name in _PLACES}
    contents[UNIT] = contents[UNIT].replace(_COMMAND_IN_UNIT, f"ExecStart={_quoted(own_command)} ")
    return [File(path, contents[name]) for name, path in _PLACES.items()]


def _folder() -> Path:
    """In a clone they lie beside the package; pip puts those of a wheel into the environment."""
    beside = Path(__file__).parents[2] / "systemd"
    if (beside / UNIT).is_file():
        return beside
    for file in files("shiftwatch") or ():
        if file.name == UNIT:
            return Path(str(file.locate())).resolve().parent
    raise InstallError(what=f"this installation has no {UNIT}", remedy="install shiftwatch again with pip")


def _quoted(command: Path) -> str:
    """A path as systemd reads it."""
    text = str(command).replace("%", "%%")
    return text if not set(text) & set(" \t\"'\\") else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
