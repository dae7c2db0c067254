"""The files in /etc that make systemd run the agent."""

from __future__ import annotations

import sysconfig
from importlib.metadata import files
from pathlib import Path
from typing import NamedTuple

from agent.errors import InstallError

UNIT = "shiftwatch-agent@.service"
TARGET = "shiftwatch-agents.target"
UNITS = Path("/etc/systemd/system")
STATES = Path("/var/lib/shiftwatch")
_TARGETS = {
    UNIT: UNITS / UNIT,
    TARGET: UNITS / TARGET,
    "70-shiftwatch-cameras.rules": Path("/etc/udev/rules.d/70-shiftwatch-cameras.rules"),
    "sysusers.conf": Path("/etc/sysusers.d/shiftwatch.conf"),
    "tmpfiles.conf": Path("/etc/tmpfiles.d/shiftwatch.conf"),
}
_COMMAND_IN_UNIT = "ExecStart=/opt/shiftwatch/.venv/bin/shiftwatch-agent "


class File(NamedTuple):
    """A file to install, with its absolute path on the device, and the permissions of a new file."""

    path: Path
    content: str
    mode: int = 0o644


def unit_files() -> list[File]:
    """The files that all stations of a device share. The unit starts the agent of the current Python environment.

    Raises:
        InstallError: The files are missing from this installation.
    """
    folder = _folder()
    own_command = Path(sysconfig.get_path("scripts")) / "shiftwatch-agent"
    contents = {name: (folder / name).read_text(encoding="utf-8") for name in _TARGETS}
    contents[UNIT] = contents[UNIT].replace(_COMMAND_IN_UNIT, f"ExecStart={_quoted(own_command)} ")
    return [File(path, contents[name]) for name, path in _TARGETS.items()]


def _folder() -> Path:
    """The files' folder: next to the package in a clone, in the Python environment after an installation with pip."""
    in_clone = Path(__file__).parents[2] / "systemd"
    if (in_clone / UNIT).is_file():
        return in_clone
    for file in files("shiftwatch") or ():
        if file.name == UNIT:
            return Path(str(file.locate())).resolve().parent
    raise InstallError(what=f"this installation has no {UNIT}", remedy="reinstall shiftwatch with pip")


def _quoted(command: Path) -> str:
    """A path, quoted for systemd."""
    text = str(command).replace("%", "%%")
    return text if not set(text) & set(" \t\"'\\") else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
