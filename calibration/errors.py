"""Everything that can go wrong and that a person can mend.

ShiftwatchError               the command stops with exit code 2 and prints the message
├── SettingError              give another value
├── DatasetError              give other images
├── BackboneError             give another backbone, stage or weight file
├── DegenerateFeaturesError   give images that differ, or more of them
├── ModelTooLargeError        choose a smaller model, or location=shared
├── BundleError               build the bundle again, or fetch a good copy
│   └── ScoreMismatchError    this device does not reproduce the calibrated scores
├── EngineError               mend the runtime on this device
├── ClusterError              mend the cluster, or calibrate without it
└── StorageError              free disk space or fix permissions
"""

from __future__ import annotations


class ShiftwatchError(Exception):
    """Root of all errors a person can mend.

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
        """What and what to do, where there is no room for two lines."""
        return f"{self.what}; {self.remedy}"

    def __reduce__(self) -> tuple[object, ...]:
        """For other processes, which may raise one, too."""
        return _made_again, (type(self), self.what, self.remedy)


def _made_again(kind: type[ShiftwatchError], what: str, remedy: str) -> ShiftwatchError:
    return kind(what=what, remedy=remedy)


class SettingError(ShiftwatchError):
    """An option has a value that makes no sense: give another."""


class DatasetError(ShiftwatchError):
    """The images are not what the command needs: give others."""


class BackboneError(ShiftwatchError):
    """The backbone cannot be loaded or exported: choose another, or other stages or weights."""


class DegenerateFeaturesError(ShiftwatchError):
    """The features do not vary, or hold a NaN: give images that differ."""


class ModelTooLargeError(ShiftwatchError):
    """The statistics do not fit into the stated memory: choose a smaller model."""


class BundleError(ShiftwatchError):
    """The bundle is damaged, incomplete or too new: build it again or fetch a good copy."""


class ScoreMismatchError(BundleError):
    """An engine does not reproduce the calibrated scores of the golden frames: do not run it."""


class EngineError(ShiftwatchError):
    """The runtime refuses the network: mend the installation on this device."""


class ClusterError(ShiftwatchError):
    """The Dask cluster cannot be used, or was lost: mend it, or calibrate without; nothing was written."""


class StorageError(ShiftwatchError):
    """The disk is full or not writable: make room, nothing has been changed."""
