"""What a picture shows, said from afar: as ``shiftwatch-agent archive mark`` on the device."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from agent.archive.entry import Mark
from agent.archive.label import mark
from agent.clock import now_ms
from agent.commands.dispatcher import final_ack
from agent.errors import ArchiveError, CommandRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.commands.dispatcher import Command, Effect
    from agent.commands.schema import MarkArguments
    from agent.messages.records import Payload


class Marking:
    """Marks on a thread of its own: the disk may be slow.

    Args:
        directory: Of the archive; None where no pictures are kept.
        follow_up: Told how a command went on.
    """

    def __init__(self, directory: Path | None, follow_up: Callable[[Payload], None]) -> None:
        self._directory = directory
        self._follow_up = follow_up

    def prepare(self, command: Command, arguments: MarkArguments) -> Effect:
        """See `commands.Action`."""
        directory = self._directory
        if directory is None:
            raise CommandRefusedError(what="this station keeps no pictures", remedy="set archive.enabled: true")
        work = (directory, command, arguments)
        return lambda: threading.Thread(target=self._work, args=work, name="marking", daemon=True).start()

    def _work(self, directory: Path, command: Command, arguments: MarkArguments) -> None:
        said = Mark(arguments.label, command.by or "mqtt", now_ms())
        try:
            mark(directory, arguments.result_id, said)
        except ArchiveError as error:
            self._follow_up(final_ack(command, error))
        else:
            self._follow_up(final_ack(command))
