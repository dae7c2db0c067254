"""Errors that the user can fix, and the remedies that depend on how Shiftwatch was installed.

ShiftwatchError               the command stops with exit code 2 and prints the message
├── SettingError              change the setting
├── DatasetError              use other images
├── BackboneError             use another backbone, stage or weight file
├── DegenerateFeaturesError   use images that differ, or more of them
├── ModelTooLargeError        choose a smaller model, or location=shared
├── BundleError               build the bundle again, or fetch a good copy
│   └── ScoreMismatchError    update the runtime, or calibrate on this device
├── EngineError               fix the runtime on this device
├── ClusterError              fix the cluster, or calibrate without it
└── StorageError              free disk space or fix permissions
"""

from __future__ import annotations

import json
from importlib.metadata import PackageNotFoundError, distribution


class ShiftwatchError(Exception):
    """Base of all errors that the user can fix.

    Args:
        what: What went wrong, and where (file, key, value).
        remedy: What to do about it.
    """

    def __init__(self, *, what: str, remedy: str) -> None:
        super().__init__(f"{what}\n  {remedy}")
        self.what = what
        self.remedy = remedy

    @property
    def one_line(self) -> str:
        """Problem and remedy on one line."""
        return " ".join(line.strip() for line in f"{self.what}; {self.remedy}".splitlines())

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle by keyword, for errors raised in other processes."""
        return _unpickled, (type(self), self.what, self.remedy)


def _unpickled(kind: type[ShiftwatchError], what: str, remedy: str) -> ShiftwatchError:
    return kind(what=what, remedy=remedy)


class SettingError(ShiftwatchError):
    """A setting has a value that makes no sense."""


class DatasetError(ShiftwatchError):
    """The images are not what the command needs."""


class BackboneError(ShiftwatchError):
    """The backbone cannot be loaded or exported."""


class DegenerateFeaturesError(ShiftwatchError):
    """The features do not vary, or contain a NaN."""


class ModelTooLargeError(ShiftwatchError):
    """The statistics exceed the memory limit."""


class BundleError(ShiftwatchError):
    """The bundle is damaged, incomplete or too new."""


class ScoreMismatchError(BundleError):
    """An engine does not reproduce the scores of the golden frames; it must not run."""


class EngineError(ShiftwatchError):
    """The runtime on this device rejects the network."""


class ClusterError(ShiftwatchError):
    """The Dask cluster cannot be used, or was lost; nothing was written."""


class StorageError(ShiftwatchError):
    """The disk is full or not writable; nothing has been changed."""


def install_extra(extra: str) -> str:
    """The command that adds an extra: ``pip install --editable '.[web]' in the project's folder``.

    An editable install stays one, and a copy, as on a device, stays a copy.
    """
    return _command(f"'.[{extra}]'")


def install_newest() -> str:
    """The commands that bring the newest version."""
    return f"git pull and {_command('.')}"


def _command(what: str) -> str:
    return f"pip install {'--editable ' if _is_editable() else ''}{what} in the project's folder"


def _is_editable() -> bool:
    """True as well where the project runs from its folder without an installation."""
    try:
        origin = json.loads(distribution("shiftwatch").read_text("direct_url.json") or "{}")
    except PackageNotFoundError:
        return True
    return bool(origin.get("dir_info", {}).get("editable", False))
