"""Errors that the user can fix.

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
