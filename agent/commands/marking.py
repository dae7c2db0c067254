"""What a picture shows, said from afar: as ``shiftwatch-agent archive mark`` on the device."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from agent.archive.marking import mark
from agent.archive.picture import Mark
from agent.clock import now_ms
from agent.errors import ArchiveError, CommandRefusedError
from agent.payloads import acknowledgement_payload

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.commands import Command, Do
    from agent.commands.text import MarkArguments
    from agent.records import Payload


class Marking:
    """Marks on a thread of its own: the disk may be slow.

    Args:
        directory: Of the archive; None where no pictures are kept.
        follow_up: Told how a command went on.
    """

    def __init__(self, directory: Path | None, follow_up: Callable[[Payload], None]) -> None:
        self._directory = directory
        self._follow_up = follow_up

    def prepare(self, command: Command, arguments: MarkArguments) -> Do:
        """See `commands.Action`."""
        directory = self._directory
        if directory is None:
            raise CommandRefusedError(what="this station keeps no pictures", remedy="set archive.enabled: true")
        work = (directory, command, arguments)
        return lambda: threading.Thread(target=self._work, args=work, name="marking", daemon=True).start()

    def _work(self, directory: Path, command: Command, arguments: MarkArguments) -> None:
        error = None
        try:
            mark(directory, arguments.result_id, Mark(arguments.label, command.by or "mqtt", now_ms()))
        except ArchiveError as failure:
            error = f"{failure.what}; {failure.remedy}"
        self._follow_up(
            acknowledgement_payload(
                command_id=command.command_id,
                command=command.name,
                accepted=error is None,
                error=error,
                progress=1.0,
            )
        )
