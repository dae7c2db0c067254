"""Writes files where systemd finds them, and removes them, but never changes a file that was edited by hand."""

from __future__ import annotations

import difflib
import os
import re
import shutil
import stat
import subprocess
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

from agent.errors import InstallError
from agent.install.unit_files import TARGET, UNITS
from calibration.atomic_file import replace_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from pathlib import Path

    from agent.install.unit_files import File

State: TypeAlias = Literal["new", "same", "different"]
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")


@dataclass(frozen=True, slots=True)
class Step:
    """A file to install, its path below the root folder, and the existing file's content; None if there is none."""

    file: File
    target: Path
    before: str | None

    @property
    def state(self) -> State:
        """How the existing file compares."""
        if self.before is None:
            return "new"
        return "same" if self.before == self.file.content else "different"

    def diff(self) -> str:
        """The change in the format of `diff -u`."""
        before, after = (self.before or "").splitlines(), self.file.content.splitlines()
        names = "/dev/null" if self.before is None else str(self.file.path), str(self.file.path)
        return "\n".join(difflib.unified_diff(before, after, *names, lineterm=""))


def check_name(name: str) -> None:
    """Refuse a name with a special meaning for systemd or in a path.

    Raises:
        InstallError: The name has other characters than letters, digits and ``_.-``.
    """
    if not _NAME.fullmatch(name):
        raise InstallError(
            what=f"{name!r} cannot be the name of a service",
            remedy="give a name with --name: letters, digits and _, then also . and -",
        )


def compare(files: Iterable[File], root: Path) -> list[Step]:
    """Compare files with those below a root folder.

    Raises:
        InstallError: An existing file cannot be read, or a link in the image leads out of it.
    """
    with _install_errors():
        return [Step(file, target := inside(root, file.path), _content(target)) for file in files]


def refuse_to_overwrite(steps: Iterable[Step]) -> None:
    """Refuse to lose changes made by hand.

    Raises:
        InstallError: An existing file is different.
    """
    different = [str(step.file.path) for step in steps if step.state == "different"]
    if different:
        raise InstallError(
            what=f"already present with other content: {', '.join(different)}; nothing was written",
            remedy="check the differences above, then overwrite with --force; put your own settings of a service into"
            " `systemctl edit`",
        )


def write(steps: Sequence[Step], folders: Iterable[Path]) -> None:
    """Write new and different files, and create folders for the service.

    Raises:
        InstallError: No permission, or the disk is full. Written files stay; a repeated call continues from there.
    """
    with _install_errors():
        for step in steps:
            if step.state != "same":
                _write_file(step)
        for folder in folders:
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)


def remove(steps: Iterable[Step]) -> None:
    """Remove files.

    Raises:
        InstallError: No permission.
    """
    with _install_errors():
        for step in steps:
            step.target.unlink(missing_ok=True)


def enabled_stations(root: Path) -> list[str]:
    """Services that systemd starts at boot."""
    return sorted(link.name for link in below(root, UNITS / f"{TARGET}.wants").glob("shiftwatch-agent@*.service"))


def unit_warnings(units: Sequence[Path]) -> list[str]:
    """Warnings of `systemd-analyze verify` about installed units; none if the program is missing."""
    command = shutil.which("systemd-analyze")
    if command is None or not units:
        return []
    search = {"SYSTEMD_UNIT_PATH": f"{units[0].parent}:"}  # the colon appends the usual folders
    verified = subprocess.run(  # noqa: S603 - systemd's program
        [command, "verify", "--man=no", *map(str, units)],
        env={**os.environ, **search},
        capture_output=True,
        text=True,
        check=False,
    )
    return [line for line in verified.stderr.splitlines() if "shiftwatch" in line]


def below(root: Path, path: Path) -> Path:
    """A path of the device, below a root folder."""
    return root / path.relative_to("/")


def inside(root: Path, path: Path) -> Path:
    """A path below a root folder, which no link may lead out of: another user may have made the image.

    Raises:
        InstallError: A link does.
    """
    target = below(root, path)
    if not target.resolve().is_relative_to(root.resolve()):
        raise InstallError(
            what=f"{target} leads out of {root}, to {target.resolve()}",
            remedy="make the link in the image relative, or remove it",
        )
    return target


def _write_file(step: Step) -> None:
    """Write a file that is private until it has its final permissions: those it had before, or those of a new file."""
    step.target.parent.mkdir(parents=True, exist_ok=True)
    content = step.file.content.encode()
    if step.before is None or step.target.is_symlink():
        replace_file(step.target, content, step.file.mode)
    else:
        existing = step.target.stat()
        replace_file(step.target, content, stat.S_IMODE(existing.st_mode), (existing.st_uid, existing.st_gid))


def _content(path: Path) -> str | None:
    try:
        return path.read_bytes().decode(errors="replace")
    except FileNotFoundError:
        return None


@contextmanager
def _install_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        remedy = "run it as root (sudo), or install into a folder with --root"
        raise InstallError(what=f"{error.filename}: {error.strerror}", remedy=remedy) from error
