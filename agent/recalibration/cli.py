"""``shiftwatch-agent recalibrate`` and ``versions``: update the bundle of a station, and list those it has served."""

from __future__ import annotations

import time
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated
from uuid import uuid4

import typer
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from agent.commands.control_socket import ask_station
from agent.commands.schema import MOST_PARTS
from agent.config import model as configuration
from agent.config.option import ConfigFile  # noqa: TC001 - typer reads it
from agent.messages.figures import figure_rows
from agent.state_owner import acting_as, owner_of
from agent.zones.versions import Versions
from agent.zones.zone import folder_of, versions_file
from calibration.terminal import EXIT_ERROR, EXIT_INTERRUPTED, console, error_console, escape

if TYPE_CHECKING:
    from agent.messages.records import Payload

app = typer.Typer()


class Mode(str, Enum):
    """What is updated."""

    THRESHOLD = "threshold"
    MEAN = "mean"
    FULL = "full"
    TEACH = "teach"


class Backbone(str, Enum):
    """Backbones that another product can be taught with."""

    FILTERBANK = "filterbank"


@app.command("recalibrate")
def recalibrate_command(  # noqa: PLR0913 - one for each question
    config: ConfigFile,
    *,
    mode: Annotated[
        Mode,
        typer.Option(
            help="`full`: adapt the statistics to the camera's present view, and add the parts; `mean`: update only "
            "the mean part; `threshold`: update only the threshold; `teach`: start again with another product."
        ),
    ] = Mode.FULL,
    backbone: Annotated[
        Backbone | None, typer.Option(help="With `teach`: a backbone without weights instead of the bundle's own.")
    ] = None,
    parts: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, max=MOST_PARTS, help="Number of parts to collect, else recalibration.parts."),
    ] = None,
    seconds: Annotated[float | None, typer.Option(metavar="S", help="Collect for this time instead.")] = None,
    old_weight: Annotated[
        float | None,
        typer.Option(metavar="X", min=0, help="How much a calibration image counts, compared with a new part."),
    ] = None,
    false_reject_rate: Annotated[
        float | None,
        typer.Option(metavar="SHARE", help="Share of good parts that may be rejected, else as calibrated."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the result; change nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Activate the new bundle despite objections.")] = False,
    cancel: Annotated[bool, typer.Option("--cancel", help="End the recalibration that is under way.")] = False,
    reason: Annotated[str | None, typer.Option(metavar="TEXT", help="Reason, for the audit log.")] = None,
    zone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Zone to recalibrate, if the station has several.")
    ] = None,
) -> None:
    """Update the bundle from good parts that the camera sees now, while the inspection continues.

    Ctrl-C ends only the display.

    Examples: `shiftwatch-agent recalibrate --config station.yaml --reason "new lamp"`;
    `shiftwatch-agent recalibrate --config station.yaml --mode teach --parts 300`
    """
    arguments = {
        "mode": mode.value,
        "backbone": backbone and backbone.value,
        "parts": parts,
        "seconds": seconds,
        "oldWeight": old_weight,
        "falseRejectRate": false_reject_rate,
        "dryRun": dry_run,
        "force": force,
        "cancel": cancel,
        "reason": reason,
        "zone": zone,
    }
    try:
        answer = _final_answer(configuration.load(config).state_dir, arguments)
    except KeyboardInterrupt:
        error_console.print(
            "the recalibration continues; to end it: shiftwatch-agent recalibrate --cancel --config ..."
        )
        raise typer.Exit(EXIT_INTERRUPTED) from None
    figures = answer.get("figures") or {}
    if figures:
        console.print(_table(figures))
    is_active = answer["accepted"] and not dry_run
    _print_proposal(figures.get("thresholdProposal" if is_active else "thresholdProposalBefore"), zone)
    if not answer["accepted"]:
        console.print(f"[bold red]recalibrate: refused[/]: {escape(str(answer['error']))}", soft_wrap=True)
        raise typer.Exit(EXIT_ERROR)
    audited = f"; audit log entry {answer['auditHash']}" if answer.get("auditHash") else ""
    done = "cancelled" if cancel else "tried, nothing was changed" if dry_run else "done, the new bundle is active"
    console.print(f"recalibrate: {done}{audited}", soft_wrap=True)


@app.command("versions")
def versions_command(config: ConfigFile) -> None:
    """Print the bundles that this station has served, the newest last; `command rollback HASH` returns to one.

    Example: `shiftwatch-agent versions --config station.yaml`
    """
    loaded = configuration.load(config)
    for zone in loaded.bundle:
        folder = folder_of(zone, loaded.state_dir)
        with acting_as(owner_of(loaded.state_dir, folder)):
            served = Versions(versions_file(folder), "").served
            on_disk = [Path(version.path).is_dir() for version in served]
        table = Table("since", "bundle", "threshold", "by", "why", "on disk", box=None, pad_edge=False)
        for version, is_there in zip(served, on_disk, strict=True):
            since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(version.since_ms / 1000))
            texts = (version.by or "", version.why or "configured")
            table.add_row(
                since,
                version.identity[:12],
                f"{version.threshold:g}",
                *map(Text, texts),
                "yes" if is_there else "no",
            )
        if zone:
            console.print(f"[bold]{escape(zone)}[/]")
        console.print(table if served else "this station has not served any bundle yet")


def _final_answer(state_dir: Path, arguments: Payload) -> Payload:
    """The last answer; shows progress until it comes."""
    command = {"command": "recalibrate", "commandId": uuid4().hex, "args": arguments}
    answer: Payload = {}
    columns = (TextColumn("{task.description:>15}"), BarColumn(), TaskProgressColumn(), TimeElapsedColumn())
    with Progress(*columns, console=error_console) as bar:
        task = bar.add_task("", total=1.0, visible=False)
        for answer in ask_station(state_dir, command):
            phase = answer.get("phase")
            if phase is not None:
                bar.update(task, visible=True, description=phase, completed=answer["progress"])
    return answer


def _print_proposal(proposal: Payload | None, zone: str | None) -> None:
    """The threshold of the bundle that is active now by which more of the marked defects would be found."""
    if proposal is not None:
        of = f" --zone {zone}" if zone else ""
        apply = f"shiftwatch-agent command threshold {proposal['threshold']:.10g}{of} --config ..."
        console.print(escape(f"proposal: {proposal['words']}; to apply it: {apply}"), soft_wrap=True)


def _table(figures: Payload) -> Table:
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for label, value in figure_rows(figures):
        table.add_row(label, Text(value))
    return table
