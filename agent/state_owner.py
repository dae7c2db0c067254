"""Root works on a station's files with the rights of the user who owns them.

A person who has become that user may have put links and pipes there, and paths into the index. With the user's own
rights they lead nowhere where the user could not go anyway.
"""

from __future__ import annotations

import grp
import os
import pwd
import sys
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, NamedTuple

from agent.errors import StateOwnerError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ROOT = 0
_DEVICE_GROUPS = ("video", "render")  # as the service has them
_WRITTEN = ("lock", "*.sqlite", "*.sqlite-*", "audit.jsonl*", "archive/index.sqlite*")
_REPLACED = ("*.json", "sparkplug_birth", "zones/*/*.json")
_FOLDERS = ("", "archive", "archive/????-??-??", "bundles", "zones", "zones/*", "zones/*/bundles")


class Rights(NamedTuple):
    """What a process may do: its user and groups."""

    uid: int
    gid: int
    groups: tuple[int, ...]


def present_rights() -> Rights:
    """The rights of this process."""
    return Rights(os.geteuid(), os.getegid(), tuple(os.getgroups()))


def owner_of(*folders: Path) -> Rights | None:
    """The first user but root who owns one of these folders, or a link on the way to it.

    None for a process that is not root, and where everything belongs to root or does not exist yet.
    """
    if os.geteuid() != _ROOT:
        return None
    statuses = (status for folder in folders for status in _statuses(folder))
    return next((_rights_of(status) for status in statuses if status.st_uid != _ROOT), None)


def owns_part_of(owner: Rights, path: Path) -> bool:
    """Whether a user owns a path, or a folder or a link on the way to it, and could lead it elsewhere."""
    path = path.absolute()
    return any(os.lstat(each).st_uid == owner.uid for each in (path, *path.parents) if os.path.lexists(each))


def name_of(uid: int) -> str:
    """Name of a user, or the number of one without a name, as in a container."""
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def unusable(state_dir: Path) -> list[Path]:
    """Files and folders of a station that this process may not use as an agent must."""
    needed = {_FOLDERS: os.R_OK | os.W_OK | os.X_OK, _WRITTEN: os.R_OK | os.W_OK, _REPLACED: os.R_OK}
    return [
        path
        for patterns, mode in needed.items()
        for pattern in patterns
        for path in (sorted(state_dir.glob(pattern)) if pattern else [state_dir])
        if os.path.lexists(path) and not os.access(path, mode, effective_ids=True)
    ]


def with_owner(path: Path) -> str:
    """A path with the name of the user who owns it."""
    try:
        return f"{path} (of user {name_of(path.lstat().st_uid)})"
    except OSError:
        return str(path)


@contextmanager
def acting_as(rights: Rights | None) -> Iterator[None]:
    """Inside, this process has these rights; None changes nothing. Not for processes with several threads at work.

    Raises:
        StateOwnerError: The system does not allow it.
    """
    if rights is None:
        yield
        return
    before = present_rights()
    _take(rights)
    try:
        yield
    finally:
        _take(before)


def become(owner: Rights | None) -> None:
    """Give up root's rights for good for those of a user, with the groups for cameras; None changes nothing.

    Raises:
        StateOwnerError: The system does not allow it, or this user cannot run this program.
    """
    if owner is None:
        return
    groups = {*owner.groups, *_device_groups()}
    try:
        os.setgroups(sorted(groups))
        os.setresgid(owner.gid, owner.gid, owner.gid)
        os.setresuid(owner.uid, owner.uid, owner.uid)
    except OSError as error:
        raise _not_allowed(owner, error) from error
    for needed in (sys.executable, __file__):
        if not os.access(needed, os.R_OK):
            raise StateOwnerError(
                what=f"user {name_of(owner.uid)}, who owns the station's files, may not read {needed}",
                remedy="install shiftwatch where every user can read it, such as /opt; or give the files to root",
            )


def _take(rights: Rights) -> None:
    try:
        os.seteuid(_ROOT)
        os.setgroups(rights.groups)
        os.setegid(rights.gid)
        os.seteuid(rights.uid)
    except OSError as error:
        raise _not_allowed(rights, error) from error


def _not_allowed(owner: Rights, error: OSError) -> StateOwnerError:
    name = name_of(owner.uid)
    return StateOwnerError(
        what=f"the station's files belong to user {name}, as whom root cannot act here: {error.strerror}",
        remedy=f"give the command as that user: sudo -u {name if not name.isdecimal() else f'#{name}'}",
    )


def _statuses(folder: Path) -> Iterator[os.stat_result]:
    """Status of each link on the way to a folder, then of the folder itself, as far as they exist."""
    folder = folder.absolute()
    for path in (*reversed(folder.parents), folder):
        if path.is_symlink():
            yield path.lstat()
    with suppress(OSError):
        yield folder.stat()


def _rights_of(status: os.stat_result) -> Rights:
    try:
        user = pwd.getpwuid(status.st_uid)
    except KeyError:
        gid = status.st_gid or status.st_uid  # root's group stays with root
        return Rights(status.st_uid, gid, (gid,))
    return Rights(user.pw_uid, user.pw_gid, tuple(os.getgrouplist(user.pw_name, user.pw_gid)))


def _device_groups() -> Iterator[int]:
    for name in _DEVICE_GROUPS:
        with suppress(KeyError):
            yield grp.getgrnam(name).gr_gid
