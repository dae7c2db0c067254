"""``shiftwatch-agent archive``: look at the pictures that were kept, mark them, take them to calibration."""

from __future__ import annotations

import getpass
import sys
from enum import Enum
from pathlib import Path
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from agent.archive import rendering
from agent.archive.entry import CLASS_NAMES, CLASSES, Mark, storable
from agent.archive.export import Exported
from agent.archive.export import export as export_picture
from agent.archive.label import mark as mark_picture
from agent.archive.query import ArchiveQuery, open_reader
from agent.archive.time_argument import moment_ms
from agent.clock import now_ms
from agent.config import model as configuration
from agent.messages.records import to_json
from calibration.terminal import console, error_console, escape, progress_bar


class Class(str, Enum):
    """Verdict that a picture was kept with."""

    OK = "ok"
    NOT_OK = "not_ok"
    NOT_DECIDABLE = "not_decidable"


class Said(str, Enum):
    """What a person can call a picture."""

    GOOD = "good"
    DEFECT = "defect"


app = typer.Typer(
    help="Look at the pictures that were kept, mark them, and export them for calibration; also while the agent runs.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
ConfigFile = Annotated[Path, typer.Option("--config", "-c", metavar="FILE.yaml", help="Configuration of the station.")]
Result = Annotated[str, typer.Argument(metavar="RESULT", help="resultId, or its beginning, as `list` prints it.")]
OfClass = Annotated[Class | None, typer.Option("--class", help="Only with this verdict.")]
Since = Annotated[
    str | None,
    typer.Option(metavar="WHEN", help="Not older than `30m`, `2h`, `3d`, `1w`, or a date, with a time or not."),
]
Until = Annotated[str | None, typer.Option(metavar="WHEN", help="Not newer; as --since.")]


@app.command("list")
def list_command(  # noqa: PLR0913 - one for each question
    config: ConfigFile,
    *,
    of_class: OfClass = None,
    since: Since = None,
    until: Until = None,
    part: Annotated[str | None, typer.Option(metavar="PART", help="Only of this part.")] = None,
    min_score: Annotated[float | None, typer.Option(metavar="X", help="Only with this score or above.")] = None,
    limit: Annotated[int, typer.Option(metavar="N", min=1, help="So many at most.")] = 50,
    as_json: Annotated[bool, typer.Option("--json", help="Print each as one JSON object a line.")] = False,
) -> None:
    """Print the pictures that were kept, the newest first.

    Example: `shiftwatch-agent archive list --config station.yaml --class not_ok --since 2h`
    """
    folder = _folder(config)
    wanted = _wanted(of_class, since, until, part_id=part, min_score=min_score)
    with open_reader(folder) as archive:
        pictures = archive.newest(wanted, limit)
        if as_json:
            for picture in pictures:
                sys.stdout.write(to_json(rendering.numbers(folder, picture)) + "\n")
            return
        console.print(rendering.table(pictures))
        found = f"{len(pictures)} of {archive.count(wanted)} found. {folder}: {rendering.totals(archive.totals())}"
        console.print(escape(found), soft_wrap=True)


@app.command("show")
def show_command(
    result: Result,
    config: ConfigFile,
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Print everything that was kept of one result, and where its pictures are.

    Example: `shiftwatch-agent archive show 3f2a9c01 --config station.yaml`
    """
    folder = _folder(config)
    with open_reader(folder) as archive:
        picture = archive.named(result)
    numbers = rendering.all_numbers(folder, picture)
    if as_json:
        sys.stdout.write(to_json(numbers) + "\n")
        return
    table = Table(box=None, pad_edge=False, show_header=False)
    table.add_column(no_wrap=True, style="bold")
    table.add_column(overflow="fold")
    for name, value in {"time": rendering.local(picture.created_at_ms), **numbers}.items():
        table.add_row(name, Text(rendering.printable(value)))
    console.print(table)


@app.command("mark")
def mark_command(
    result: Result,
    label: Annotated[Said, typer.Argument(help="What the picture shows.")],
    config: ConfigFile,
    *,
    by: Annotated[str | None, typer.Option(metavar="NAME", help="Who says so; else the user's name.")] = None,
) -> None:
    """Say what a picture shows, whatever the verdict was; what was said before is replaced.

    Example: `shiftwatch-agent archive mark 3f2a9c01 good --by "M. Bauer" --config station.yaml`
    """
    said = Mark("good" if label is Said.GOOD else "defect", storable(by or _user()), now_ms())
    picture = mark_picture(_folder(config), result, said)
    words = f"{picture.result_id}, {CLASS_NAMES[picture.evaluation]}: {said.label}, says {rendering.printable(said.by)}"
    console.print(escape(words), soft_wrap=True)


@app.command("export")
def export_command(  # noqa: PLR0913 - one for each question
    target: Annotated[Path, typer.Argument(metavar="DIR", help="Where to; made if it is not there.")],
    config: ConfigFile,
    *,
    of_class: OfClass = None,
    since: Since = None,
    until: Until = None,
    labelled: Annotated[bool, typer.Option("--labelled", help="Only pictures that somebody has marked.")] = False,
    zone: Annotated[
        str | None, typer.Option(metavar="NAME", help="Of a station with several zones: go by what was found in it.")
    ] = None,
) -> None:
    """Copy pictures into a folder that `shiftwatch-calibrate fit` and `evaluate` read (MVTec layout).

    Whole frames, as they were taken: give `fit` the same --roi. Pictures that were marked good go to `train/good`,
    defects to `test/defect`. Of the others OK ones go to `train/good`, a fifth of them to `test/good`, NotOK ones to
    `test/defect`; NotDecidable ones stay. Nothing is overwritten; the same command goes on after an interruption.

    Example: `shiftwatch-agent archive export learnt --config station.yaml --since 1w`
    """
    folder = _folder(config)
    wanted = _wanted(of_class, since, until, labelled=labelled)
    done = Exported()
    with open_reader(folder) as archive, progress_bar() as progress:
        total = archive.count(wanted)
        for number, picture in enumerate(archive.each(wanted), 1):
            export_picture(folder, target, picture, done, zone)
            progress("export", number, max(number, total))
    for line in rendering.outcome(target, done, zone):
        console.print(escape(line), soft_wrap=True)
    if done.elsewhere:
        error_console.print("[yellow]marked since an earlier export, and now in the wrong folder; move them:[/]")
        for path in done.elsewhere:
            error_console.print(escape(f"  {path}"), soft_wrap=True)


def _folder(config: Path) -> Path:
    return configuration.load(config).state_dir / "archive"


def _wanted(  # noqa: PLR0913 - one for each question
    of_class: Class | None,
    since: str | None,
    until: str | None,
    *,
    part_id: str | None = None,
    min_score: float | None = None,
    labelled: bool = False,
) -> ArchiveQuery:
    asked_at_ms, ever = now_ms(), ArchiveQuery()
    return ArchiveQuery(
        evaluation=None if of_class is None else CLASSES[of_class.value],
        since_ms=ever.since_ms if since is None else moment_ms(since, asked_at_ms),
        until_ms=ever.until_ms if until is None else moment_ms(until, asked_at_ms),
        part_id=None if part_id is None else storable(part_id),
        min_score=min_score,
        labelled=labelled,
    )


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):  # a user without a name, as containers have
        return "unknown"
