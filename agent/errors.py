"""The errors of a station, each with what a person can do about it.

ShiftwatchError
├── ConfigError               fix the configuration file; all problems are listed at once
├── CameraError               check the camera, its cable and its settings
├── BrokerUnreachableError    nothing to do at once: records wait, the agent tries again
├── BrokerRefusedError        fix user, password, certificate or access rights at the broker
├── SparkplugPayloadError     fix the host application; its message was ignored
├── CommandRefusedError       fix the command; it was not carried out
├── RecalibrationError        see why; the bundle before stays active
├── StationUnreachableError   start the agent, or give the command as its user
├── AuditError                fix the disk; what cannot be logged is not done
├── MetricsError              give the metrics a free port and address
├── PageError                 install the extra `web`, or give the page a free port and address
├── SetupError                see what stands in the way; what was decided is kept
├── InstallError              become root, or remove the obstacle; nothing was written
├── ArchiveError              name another image, fix permissions, or let the agent rebuild the index
├── StatisticsError           let the agent run once, or fix permissions
├── StateFolderError          give the files of the state folder to the agent's user
├── StateOwnerError           give the command as the user who owns the state folder
├── AgentRunningError         stop the other agent, or give this one a state folder of its own
├── OutboxError               fix the disk, or install the version that wrote the file
└── PublisherDiedError        start again; an agent that cannot publish must not keep running
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from calibration.errors import ShiftwatchError

if TYPE_CHECKING:
    from collections.abc import Sequence


class ConfigError(ShiftwatchError):
    """The configuration is not usable: fix every listed problem.

    Args:
        problems: One sentence each, starting with the dotted key.
        what: Which configuration.
        remedy: What to do about it.
    """

    def __init__(
        self,
        *,
        problems: Sequence[str],
        what: str = "the configuration is not usable",
        remedy: str = "fix each line above and start again",
    ) -> None:
        super().__init__(what="\n".join([f"{what}:", *(f"  - {problem}" for problem in problems)]), remedy=remedy)
        self.problems = tuple(problems)


class CameraError(ShiftwatchError):
    """The camera gives no frames: check it, its cable and its settings."""


class BrokerUnreachableError(ShiftwatchError):
    """No broker answers: records wait in the outbox until one does."""


class BrokerRefusedError(ShiftwatchError):
    """The broker refuses the connection: fix user, password, certificate or access rights.

    Args:
        what: Which broker, and its reason.
        remedy: What to do about it.
        reason: The reason as the broker words it.
    """

    def __init__(self, *, what: str, remedy: str, reason: str) -> None:
        super().__init__(what=what, remedy=remedy)
        self.reason = reason


class SparkplugPayloadError(ShiftwatchError):
    """A message of a host application cannot be read and was ignored: fix the application."""


class CommandRefusedError(ShiftwatchError):
    """A command is malformed, not allowed or not possible now; nothing has been changed."""


class RecalibrationError(ShiftwatchError):
    """A recalibration has failed; the bundle before stays active."""


class StationUnreachableError(ShiftwatchError):
    """The agent on this device does not take commands: start it, or give the command as its user."""


class MetricsError(ShiftwatchError):
    """Metrics cannot be served as configured: give them a free port and address."""


class PageError(ShiftwatchError):
    """The live page cannot be served: install its packages, or give it a free port; its process is restarted."""


class SetupError(ShiftwatchError):
    """A step of a set-up cannot be done: see why; what was decided so far is kept."""


class InstallError(ShiftwatchError):
    """The service cannot be installed or removed: become root, or remove the obstacle."""


class OutboxError(ShiftwatchError):
    """The outbox cannot be opened: fix the disk, or install the version that wrote the file."""


class StatisticsError(ShiftwatchError):
    """The statistics cannot be read: let the agent run once, or fix permissions."""


class StateFolderError(ShiftwatchError):
    """The state folder, or a file in it, cannot be used by this user: give it to the agent's user."""


class StateOwnerError(ShiftwatchError):
    """Root cannot act as the user who owns the state folder: give the command as that user."""


class AgentRunningError(ShiftwatchError):
    """Another agent uses the state folder: stop it, or give this one a folder of its own."""


class AuditError(ShiftwatchError):
    """The audit log cannot be written or read: fix the disk; what cannot be logged must not be done."""


class ArchiveError(ShiftwatchError):
    """The archive has no such image, or cannot be read or written; the agent keeps running."""


class PublisherDiedError(ShiftwatchError):
    """Nothing can reach the broker any more: start again."""
