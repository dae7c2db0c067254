"""``shiftwatch-agent archive``: lists archived images, marks them, and exports them for calibration."""

from __future__ import annotations

import sys
from enum import Enum
from pathlib import Path  # noqa: TC003 - typer reads it
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from agent.archive import rendering
from agent.archive.entry import CLASSES, storable
from agent.archive.export import Exported, Target
from agent.archive.export import export as export_image
from agent.archive.query import ArchiveQuery, open_reader
from agent.clock import now_ms
from agent.config import model as configuration
from agent.config.option import ConfigFile  # noqa: TC001 - typer reads it
from agent.config.time_argument import time_ms
from agent.messages.records import to_json
from agent.state_owner import acting_as, owner_of, owns_part_of, present_rights
from calibration.terminal import console, error_console, escape, progress_bar

if TYPE_CHECKING:
    from agent.state_owner import Rights


class Class(str, Enum):
    """Verdict of an image."""

    OK = "ok"
    NOT_OK = "not_ok"
    NOT_DECIDABLE = "not_decidable"


app = typer.Typer(
    help="List archived images, mark them, and export them for calibration; also while the agent runs.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
Result = Annotated[str, typer.Argument(metavar="RESULT", help="resultId, or its start, as `list` prints it.")]
OfClass = Annotated[Class | None, typer.Option("--class", help="Only with this verdict.")]
Since = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="Not older than `30m`, `2h`, `3d`, `1w`, or a date, optionally with a time."),
]
Until = Annotated[str | None, typer.Option(metavar="WHEN", help="Not newer; written like --since.")]


@app.command("list")
def list_command(  # noqa: PLR0913 - one for each question
    config: ConfigFile,
    *,
    of_class: OfClass = None,
    since: Since = None,
    until: Until = None,
    part: Annotated[str | None, typer.Option(metavar="PART", help="Only of this part.")] = None,
    min_score: Annotated[float | None, typer.Option(metavar="X", help="Only with this score or above.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="Largest number of images.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object per line.")] = False,
) -> None:
    """Print the archived images, the newest first; `archive show RESULT` and `--json` have the paths of their files.

    Example: `shiftwatch-agent archive list --config station.yaml --class not_ok --since 2h`
    """
    folder = _folder(config)
    query = _query(of_class, since, until, part_id=part, min_score=min_score)
    with acting_as(_owner_of(folder)), open_reader(folder) as archive:
        images = archive.newest(query, limit)
        rows = [to_json(rendering.numbers(folder, image)) for image in images if as_json]
        count, totals = archive.count(query), archive.totals()
    if as_json:
        sys.stdout.writelines(f"{row}\n" for row in rows)
        return
    console.print(rendering.table(images))
    found = f"{len(images)} of {count} found. {folder}: {rendering.totals(totals)}"
    console.print(escape(found), soft_wrap=True)


@app.command("show")
def show_command(
    result: Result,
    config: ConfigFile,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print everything about the image of one result, and the paths of its files.

    Example: `shiftwatch-agent archive show 3f2a9c01 --config station.yaml`
    """
    folder = _folder(config)
    with acting_as(_owner_of(folder)):
        with open_reader(folder) as archive:
            image = archive.named(result)
        numbers = rendering.all_numbers(folder, image)
    if as_json:
        sys.stdout.write(to_json(numbers) + "\n")
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in {"time": rendering.local(image.created_at_ms), **numbers}.items():
        table.add_row(name, Text(rendering.printable(value)))
    console.print(table)


@app.command("export")
def export_command(  # noqa: PLR0913 - one for each question
    target: Annotated[Path, typer.Argument(metavar="DIR", help="Target folder; created if it does not exist.")],
    config: ConfigFile,
    *,
    of_class: OfClass = None,
    since: Since = None,
    until: Until = None,
    labelled: Annotated[bool, typer.Option("--labelled", help="Only marked images.")] = False,
    zone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Go by the verdict on this zone, if the station has several.")
    ] = None,
) -> None:
    """Copy images into a folder that `shiftwatch-calibrate fit` and `evaluate` read (MVTec layout).

    The copies are whole original frames: give `fit` the same --roi. Images marked good go to `train/good`, defects to
    `test/defect`. Of the others, OK images go to `train/good`, a fifth of them to `test/good`, NotOK images to
    `test/defect`; NotDecidable ones are left out. Nothing is overwritten; the same command continues after an
    interruption.

    Example: `shiftwatch-agent archive export new-parts --config station.yaml --since 1w`
    """
    folder = _folder(config)
    query = _query(of_class, since, until, labelled=labelled)
    done, owner = Exported(), _owner_of(folder)
    # A folder that the owner could lead elsewhere is written with the owner's rights, too.
    is_apart = owner is not None and not owns_part_of(owner, target)
    copies = Target(target, present_rights() if is_apart else None)
    with progress_bar() as progress, acting_as(owner), open_reader(folder) as archive:
        total = archive.count(query)
        for number, image in enumerate(archive.each(query), 1):
            export_image(folder, copies, image, done, zone)
            progress("export", number, max(number, total))
    for line in rendering.outcome(target, done, zone):
        console.print(escape(line), soft_wrap=True)
    if done.elsewhere:
        error_console.print("[yellow]marked since an earlier export, and now in the wrong folder; move them:[/]")
        for path in done.elsewhere:
            error_console.print(escape(f"  {path}"), soft_wrap=True)


def _folder(config: Path) -> Path:
    return configuration.load(config).state_dir / "archive"


def _owner_of(archive: Path) -> Rights | None:
    return owner_of(archive.parent, archive)


def _query(  # noqa: PLR0913 - one for each question
    of_class: Class | None,
    since: str | None,
    until: str | None,
    *,
    part_id: str | None = None,
    min_score: float | None = None,
    labelled: bool = False,
) -> ArchiveQuery:
    asked_at_ms, default = now_ms(), ArchiveQuery()
    return ArchiveQuery(
        evaluation=None if of_class is None else CLASSES[of_class.value],
        since_ms=default.since_ms if since is None else time_ms(since, asked_at_ms),
        until_ms=default.until_ms if until is None else time_ms(until, asked_at_ms),
        part_id=None if part_id is None else storable(part_id),
        min_score=min_score,
        labelled=labelled,
    )
