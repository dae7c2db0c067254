"""The command ``mark``: labels an archived image, like ``shiftwatch-agent archive mark`` on the device."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from agent.archive.entry import Mark, storable
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


class MarkCommand:
    """Writes labels on a thread of its own, because the disk may be slow.

    Args:
        directory: Folder of the archive; None where no images are kept.
        follow_up: Receives the final acknowledgement.
    """

    def __init__(self, directory: Path | None, follow_up: Callable[[Payload], None]) -> None:
        self._directory = directory
        self._follow_up = follow_up

    def prepare(self, command: Command, arguments: MarkArguments) -> Effect:
        """See `agent.commands.dispatcher.Action`."""
        directory = self._directory
        if directory is None:
            raise CommandRefusedError(what="this station keeps no images", remedy="set archive.enabled: true")
        work = (directory, command, arguments)
        return lambda: threading.Thread(target=self._work, args=work, name="marking", daemon=True).start()

    def _work(self, directory: Path, command: Command, arguments: MarkArguments) -> None:
        try:
            mark(
                directory,
                arguments.result_id,
                Mark(arguments.label, storable(arguments.by or command.by or "mqtt"), now_ms()),
            )
        except ArchiveError as error:
            self._follow_up(final_ack(command, error))
        else:
            self._follow_up(final_ack(command))
