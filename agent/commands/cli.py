"""``shiftwatch-agent command``: gives the commands of MQTT from this device."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer

from agent.clock import now_ms
from agent.commands.control_socket import ask_station
from agent.config import model as configuration
from agent.config.option import ConfigFile  # noqa: TC001 - typer reads it
from calibration.terminal import EXIT_ERROR, console, escape

if TYPE_CHECKING:
    from pathlib import Path

    from agent.messages.records import Payload

app = typer.Typer(
    help="Command the agent that runs on this device; the same commands come over MQTT.", no_args_is_help=True
)
Zone = Annotated[str | None, typer.Option(metavar="NAME", help="Zone, if the station has several.")]


_TRIGGER_EXPIRES_MS = 1000


@app.command("trigger")
def trigger(
    config: ConfigFile,
    part_id: Annotated[str | None, typer.Argument(metavar="[PART]", help="Name of the part.")] = None,
) -> None:
    """Inspect the part that is before the camera now.

    Example: `shiftwatch-agent command trigger SN-0815 --config station.yaml`
    """
    # An agent that stands still reads it later, when another part is there.
    _give(config, "trigger", {"partId": part_id}, now_ms() + _TRIGGER_EXPIRES_MS)


@app.command("pause")
def pause(
    config: ConfigFile,
    reason: Annotated[str | None, typer.Option(help="Why; appears in `status` and in the audit log.")] = None,
) -> None:
    """Inspect nothing until `resume`, or until the agent starts again; the line receives no verdicts.

    Example: `shiftwatch-agent command pause --reason "lens is being cleaned" --config station.yaml`
    """
    _give(config, "pause", {"reason": reason})


@app.command("resume")
def resume(config: ConfigFile) -> None:
    """Inspect again.

    Example: `shiftwatch-agent command resume --config station.yaml`
    """
    _give(config, "resume", {})


@app.command("threshold")
def threshold(
    config: ConfigFile,
    value: Annotated[
        float | None, typer.Argument(metavar="[SCORE]", help="Parts with a higher score are NotOK.")
    ] = None,
    *,
    reset: Annotated[bool, typer.Option("--reset", help="Restore the configured or calibrated one.")] = False,
    zone: Zone = None,
) -> None:
    """Change the threshold of the active bundle, also for later starts, until the configured threshold changes.

    Examples: `shiftwatch-agent command threshold 120 --config station.yaml`;
    `shiftwatch-agent command threshold --reset --config station.yaml`
    """
    if (value is None) != reset:
        message = "give either a score or --reset"
        raise typer.BadParameter(message)
    _give(config, "threshold", {"threshold": value, "zone": zone})


@app.command("rollback")
def rollback(
    config: ConfigFile,
    bundle: Annotated[
        str | None, typer.Argument(metavar="[HASH]", help="Bundle to go back to; by default the one before this.")
    ] = None,
    *,
    zone: Zone = None,
) -> None:
    """Go back to a bundle that was active before, and to the threshold that it had, while the inspection runs.

    Example: `shiftwatch-agent command rollback --config station.yaml`
    """
    _give(config, "rollback", {"bundle": bundle, "zone": zone})


def _give(config: Path, name: str, args: Payload, expires_ms: int | None = None) -> None:
    state_dir = configuration.load(config).state_dir
    command = {"command": name, "commandId": uuid4().hex, "args": args, "expires": expires_ms}
    answer: Payload = {}
    for answer in ask_station(state_dir, command):
        if answer["accepted"] and answer["progress"] == 0:
            console.print(f"{name}: accepted, under way")
    if not answer["accepted"]:
        console.print(f"[bold red]{name}: refused[/]: {escape(str(answer['error']))}", soft_wrap=True)
        raise typer.Exit(EXIT_ERROR)
    noted = f"; audit log entry {answer['auditHash']}" if answer.get("auditHash") else ""
    console.print(f"{name}: done{noted}", soft_wrap=True)
