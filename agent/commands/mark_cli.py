"""``shiftwatch-agent archive mark``: says what an image shows, and writes it into the audit log."""

from __future__ import annotations

import getpass
from contextlib import ExitStack
from enum import Enum
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from agent.archive import rendering
from agent.archive.cli import Result  # noqa: TC001 - typer reads it
from agent.archive.entry import CLASS_NAMES, Mark, storable
from agent.archive.label import mark as mark_image
from agent.archive.query import open_reader
from agent.audit.log import AuditLog
from agent.clock import now_ms
from agent.commands.control_socket import ask_station
from agent.config import model as configuration
from agent.config.option import ConfigFile  # noqa: TC001 - typer reads it
from agent.errors import AgentRunningError, CommandRefusedError
from agent.state_lock import state_lock
from agent.state_owner import acting_as, owner_of
from calibration.terminal import console, escape

if TYPE_CHECKING:
    from pathlib import Path

    from agent.archive.entry import ArchivedImage


class LabelArgument(str, Enum):
    """Label that a person can give an image."""

    GOOD = "good"
    DEFECT = "defect"


def mark_command(
    result: Result,
    label: Annotated[LabelArgument, typer.Argument(help="What the image shows.")],
    config: ConfigFile,
    *,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who marks it; by default the user.")] = None,
) -> None:
    """Mark what an image shows, whatever the verdict was; an earlier mark is replaced.

    It stands in the audit log, like a mark from the live page or over MQTT.

    Example: `shiftwatch-agent archive mark 3f2a9c01 good --by "M. Bauer" --config station.yaml`
    """
    state_dir = configuration.load(config).state_dir
    archive = state_dir / "archive"
    who = storable(by or _user())
    with acting_as(owner_of(state_dir, archive)):
        with open_reader(archive) as reader:
            image = reader.named(result)
        image = _marked(state_dir, image, Mark("good" if label is LabelArgument.GOOD else "defect", who, now_ms()))
    words = f"{image.result_id}, {CLASS_NAMES[image.evaluation]}: {image.label}, says {rendering.printable(who)}"
    console.print(escape(words), soft_wrap=True)


def _marked(state_dir: Path, image: ArchivedImage, mark: Mark) -> ArchivedImage:
    """Mark it here, or by the agent if one is running, since only one process writes the audit log."""
    args = {"resultId": image.result_id, "label": mark.label, "by": mark.by}
    command_id = uuid4().hex
    with ExitStack() as stack:
        try:
            stack.enter_context(state_lock(state_dir))
        except AgentRunningError:
            *_, answer = ask_station(state_dir, {"command": "mark", "commandId": command_id, "args": args})
            if not answer["accepted"]:
                raise CommandRefusedError(what=str(answer["error"]), remedy="see the log of the agent") from None
            return image._replace(label=mark.label)
        AuditLog(state_dir / "audit.jsonl").append(
            "command", command="mark", commandId=command_id, by=_user(), via="local", args=args
        )
        return mark_image(state_dir / "archive", image.result_id, mark)


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, for example in a container
        return "unknown"
