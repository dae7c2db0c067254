"""Everything that can go wrong on the station and that a person can mend.

ShiftwatchError
├── ConfigError               mend the configuration file; every problem is listed at once
├── CameraError               mend the camera, its cable or its settings
├── BrokerUnreachableError    nothing to do at once: records wait, the agent tries again
├── BrokerRefusedError        mend user, password, certificate or access rights at the broker
├── SparkplugPayloadError     mend the host application; what it sent was ignored
├── CommandRefusedError       mend the command; it was not carried out
├── RecalibrationError        see why; the bundle before judges on
├── StationUnreachableError   start the agent, or ask as its user
├── AuditError                mend the disk; what cannot be written down is not done
├── MetricsError              give the metrics a port and an address that are free
├── PageError                 install the extra `web`, or give the page a port and an address that are free
├── InstallError              become root, or mend what stands in the way; nothing was written
├── ArchiveError              name another picture, mend permissions, or let the agent make the index anew
├── OutboxError               mend the disk, or install the version that wrote the file
└── PublisherDiedError        start again; an agent that the line cannot hear must not run on
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calibration.errors import ShiftwatchError

if TYPE_CHECKING:
    from collections.abc import Sequence


class ConfigError(ShiftwatchError):
    """The configuration is not usable: mend every listed problem.

    Args:
        problems: One sentence each, beginning with the dotted key.
        what: Which configuration.
        remedy: What to do about it.
    """

    def __init__(
        self,
        *,
        problems: Sequence[str],
        what: str = "the configuration is not usable",
        remedy: str = "mend each line above and start again",
    ) -> None:
        super().__init__(what="\n".join([f"{what}:", *(f"  - {problem}" for problem in problems)]), remedy=remedy)
        self.problems = tuple(problems)


class CameraError(ShiftwatchError):
    """The camera gives no frames: mend it, its cable or its settings."""


class BrokerUnreachableError(ShiftwatchError):
    """No broker answers: records wait in the outbox until one does."""


class BrokerRefusedError(ShiftwatchError):
    """The broker answers and says no: mend user, password, certificate or access rights.

    Args:
        what: Which broker, and its reason.
        remedy: What to do about it.
        reason: The broker's own words.
    """

    def __init__(self, *, what: str, remedy: str, reason: str) -> None:
        super().__init__(what=what, remedy=remedy)
        self.reason = reason


class SparkplugPayloadError(ShiftwatchError):
    """A host application sent what cannot be read: mend it; its message was ignored."""


class CommandRefusedError(ShiftwatchError):
    """A command is malformed, not allowed or not possible now; nothing has been changed."""


class RecalibrationError(ShiftwatchError):
    """Learning on has failed; the bundle that judged judges on."""


class StationUnreachableError(ShiftwatchError):
    """The agent on this device does not take commands: start it, or ask as its user."""


class MetricsError(ShiftwatchError):
    """Metrics cannot be served where they are configured: give them a port and an address that are free."""


class PageError(ShiftwatchError):
    """The live page cannot be served: install its packages, or give it a free port; its process is started again."""


class InstallError(ShiftwatchError):
    """The service cannot be installed or removed so: become root, or mend what stands in the way."""


class OutboxError(ShiftwatchError):
    """The outbox cannot be opened: mend the disk, or install the version that wrote the file."""


class AuditError(ShiftwatchError):
    """The audit log cannot be written or read: mend the disk; what cannot be noted must not be done."""


class ArchiveError(ShiftwatchError):
    """The archive has no such picture, or cannot be read or written; the agent goes on."""


class PublisherDiedError(ShiftwatchError):
    """Nothing reaches the broker any more, and never will: start again."""
