"""What a picture shows, said from afar: as ``shiftwatch-agent archive mark`` on the device."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from agent.archive.marking import mark
from agent.archive.picture import Mark
from agent.clock import now_ms
from agent.commands import last_word
from agent.errors import ArchiveError, CommandRefusedError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.commands import Command, Do
    from agent.commands.text import MarkArguments
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

    def prepare(self, command: Command, arguments: MarkArguments) -> Do:
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
            self._follow_up(last_word(command, error))
        else:
            self._follow_up(last_word(command))
