"""Puts files where systemd finds them, or takes them away; changes nothing that somebody else has changed."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import stat
import subprocess
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from agent.errors import InstallError
from agent.install.unit_files import TARGET, UNITS
from calibration.atomic_file import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence
    from pathlib import Path

    from agent.install.unit_files import File

State: TypeAlias = Literal["new", "same", "different"]
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Step:
    """A file that should be there, and what is there.

    Attributes:
        file: As it should be.
        place: Where it is, below the root that is installed into.
        before: What stands there; None if nothing does.
    """

    file: File
    place: Path
    before: str | None

    @property
    def state(self) -> State:
        """Whether it is new, the same, or different."""
        if self.before is None:
            return "new"
        return "same" if self.before == self.file.content else "different"

    def diff(self) -> str:
        """What would change, as `diff -u` tells it."""
        before, after = (self.before or "").splitlines(), self.file.content.splitlines()
        names = "/dev/null" if self.before is None else str(self.file.path), str(self.file.path)
        return "\n".join(difflib.unified_diff(before, after, *names, lineterm=""))


def check_name(name: str) -> None:
    """Refuse a name that systemd, or a path, would read otherwise.

    Raises:
        InstallError: The name has other characters than letters, digits and ``_.-``.
    """
    if not _NAME.fullmatch(name):
        raise InstallError(
            what=f"a service cannot have the name {name!r}",
            remedy="give one with --name: letters, digits, _ and, not in front, . and -",
        )


def compare(files: Iterable[File], root: Path) -> list[Step]:
    """What is to be done below a root.

    Raises:
        InstallError: A file that is there cannot be read.
    """
    return [Step(file, place := below(root, file.path), _content(place)) for file in files]


def refuse_to_overwrite(steps: Iterable[Step]) -> None:
    """Whatever is there and different was made by somebody.

    Raises:
        InstallError: Something would be lost.
    """
    different = [str(step.file.path) for step in steps if step.state == "different"]
    if different:
        raise InstallError(
            what=f"there already, with other content: {', '.join(different)}; nothing was written",
            remedy="overwrite with --force what the differences above show; own settings of a service are safe in"
            " `systemctl edit`",
        )


def write(steps: Sequence[Step], folders: Iterable[Path]) -> None:
    """Write what is not there yet as it should be, and make folders for the service.

    Raises:
        InstallError: This user may not, or the disk does not take it; what was written stays, and doing it again
            goes on from there.
    """
    try:
        for step in steps:
            if step.state != "same":
                _put(step)
        for folder in folders:
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
    except OSError as error:
        raise _not_allowed(error) from error


def remove(steps: Iterable[Step]) -> None:
    """Remove files.

    Raises:
        InstallError: This user may not.
    """
    try:
        for step in steps:
            step.place.unlink(missing_ok=True)
    except OSError as error:
        raise _not_allowed(error) from error


def enabled_stations(root: Path) -> list[str]:
    """Services that systemd starts with the device."""
    return sorted(link.name for link in below(root, UNITS / f"{TARGET}.wants").glob("shiftwatch-agent@*.service"))


def doubts(units: Sequence[Path]) -> list[str]:
    """What `systemd-analyze verify` says of units that are installed; nothing where there is none."""
    command = shutil.which("systemd-analyze")
    if command is None or not units:
        return []
    search = {"SYSTEMD_UNIT_PATH": f"{units[0].parent}:"}  # and then where it always looks
    verified = subprocess.run(  # noqa: S603 - systemd's own
        [command, "verify", "--man=no", *map(str, units)],
        env={**os.environ, **search},
        capture_output=True,
        text=True,
        check=False,
    )
    return [line for line in verified.stderr.splitlines() if "shiftwatch" in line]


def below(root: Path, path: Path) -> Path:
    """Where a path of the device lies below a root."""
    return root / path.relative_to("/")


def _put(step: Step) -> None:
    """Nobody else reads the file before it has its permissions: those that it had, or those of a new one."""
    step.place.parent.mkdir(parents=True, exist_ok=True)
    known = None if step.before is None else step.place.stat()
    umask = os.umask(0o077)
    try:
        replace_file(step.place, step.file.content.encode())
    finally:
        os.umask(umask)
    if known is not None:
        os.chown(step.place, known.st_uid, known.st_gid)
    step.place.chmod(step.file.mode if known is None else stat.S_IMODE(known.st_mode))


def _content(place: Path) -> str | None:
    try:
        return place.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _not_allowed(error) from error


def _not_allowed(error: OSError) -> InstallError:
    return InstallError(
        what=f"{error.filename}: {error.strerror}", remedy="do it as root (sudo), or into a folder with --root"
    )
