"""``shiftwatch-agent audit``: verify and read the audit log."""

from __future__ import annotations

import sys
from datetime import datetime
from itertools import islice
from pathlib import Path
from string import hexdigits
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from agent.audit.entry import newest_lines, older_file, parse_line
from agent.audit.log import audit_file_errors
from agent.audit.verify import Break, Findings, verify
from agent.config import model as configuration
from agent.config.option import only_station
from agent.messages.records import to_json
from agent.state_owner import acting_as, owner_of
from calibration.errors import SettingError
from calibration.plain_text import counted
from calibration.terminal import EXIT_ERROR, console, error_console, escape

if TYPE_CHECKING:
    from agent.audit.entry import Entry
    from agent.state_owner import Rights

FILE_NAME = "audit.jsonl"
_HASH_DIGITS = 64

app = typer.Typer(
    help="Verify and read the log of commands and changes.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
LogFile = Annotated[Path | None, typer.Argument(metavar="FILE", help=f"The log file: {FILE_NAME} in the state_dir.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config", "-c", metavar="FILE.yaml", help="Use the log of this station; default: the only one here."
    ),
]


@app.command("verify")
def verify_command(
    file: LogFile = None,
    *,
    config: ConfigFile = None,
    head: Annotated[
        str | None,
        typer.Option(metavar="HASH", help="`auditHash` of an acknowledgement: check that its entry is still there."),
    ] = None,
) -> None:
    """Check that no line was changed, removed, inserted or moved. Exit code 2, with the line, if one was.

    Entries cut off the end are only noticed with `--head` and a hash that you kept.

    Examples: `shiftwatch-agent audit verify --config station.yaml`; `shiftwatch-agent audit verify FILE --head HASH`
    """
    path, owner = _log_of(file, config)
    with acting_as(owner):
        found = verify(path, None if head is None else _parse_hash(head))
    console.print(escape(_summary(path, found)), soft_wrap=True)
    if found.broken is not None:
        where = f"{_position(path, found, found.broken)}: {found.broken.reason}: {found.broken.meaning}"
        console.print(f"[bold red]not intact:[/] {escape(where)}", soft_wrap=True)
        console.print("  compare the file with a copy if you have one")
    if found.head_found is False:
        console.print("[bold red]the entry with this hash is missing:[/] it was cut off, or belongs to another log")
        if found.removed:
            console.print("  or it was one of the oldest entries, which the agent removed")
    elif found.head_found:
        console.print("the entry with this hash is present")
    if not found.is_sound:
        raise typer.Exit(EXIT_ERROR)
    console.print("[green]intact[/]")


@app.command("show")
def show_command(
    file: LogFile = None,
    *,
    config: ConfigFile = None,
    last: Annotated[int, typer.Option(metavar="N", min=1, help="Number of entries, the newest last.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print each as one JSON object.")] = False,
) -> None:
    """Print the last entries.

    Example: `shiftwatch-agent audit show --config station.yaml --last 50`
    """
    path, owner = _log_of(file, config)
    with acting_as(owner), audit_file_errors("read", path):
        lines = list(islice(newest_lines(path), last))[::-1]
    entries = [parse_line(line) for line in lines]
    if as_json:
        for line, entry in zip(lines, entries, strict=True):
            sys.stdout.write(_escaped_json(line.decode()) if entry else "")
    else:
        console.print(_table(entries))
    if damaged := entries.count(None):
        error_console.print(f"damaged lines among them: {damaged}; run shiftwatch-agent audit verify")


def _log_of(file: Path | None, config: Path | None) -> tuple[Path, Rights | None]:
    """The log, and who owns it; a file that is named belongs to those who name it."""
    if file is None:
        path = configuration.load(config or only_station()).state_dir / FILE_NAME
        return path, owner_of(path.parent)
    if config is not None:
        raise SettingError(what="both FILE and --config are given", remedy="give one of them")
    return file, None


def _parse_hash(head: str) -> str:
    digits = head.strip().lower()
    if len(digits) != _HASH_DIGITS or set(digits) - set(hexdigits):
        raise SettingError(
            what=f"--head {head}: not a valid hash", remedy=f"give all {_HASH_DIGITS} digits of an auditHash"
        )
    return digits


def _summary(path: Path, found: Findings) -> str:
    if found.first_ms is None or found.last_ms is None:
        return f"{path}: no entries"
    cuts = f", continued {counted(found.recoveries, 'time')} after a power cut" if found.recoveries else ""
    removed = f", after {found.removed} older ones that were removed" if found.removed else ""
    entries = counted(found.entries, "entry")
    return f"{path}: {entries}, {_local(found.first_ms)} to {_local(found.last_ms)}{removed}{cuts}"


def _position(path: Path, found: Findings, broken: Break) -> str:
    if broken.line <= found.older_lines:
        return f"{older_file(path).name}, line {broken.line}"
    return f"line {broken.line - found.older_lines}"


def _table(entries: list[Entry | None]) -> Table:
    table = Table(box=None, pad_edge=False, header_style="bold")
    table.add_column("when", no_wrap=True)
    table.add_column("event", no_wrap=True)
    table.add_column("by")
    table.add_column("what", overflow="fold")
    for entry in entries:
        if entry is None:
            table.add_row("", Text("damaged", "red"))
            continue
        fields = {key: _without_null(value) for key, value in entry.fields.items() if key != "by" and value is not None}
        what = " ".join(f"{key}={_value(value)}" for key, value in fields.items())
        by = entry.fields.get("by")
        table.add_row(
            _local(entry.time_ms), Text(_value(entry.event)), Text("" if by is None else _value(by)), Text(what)
        )
    return table


def _without_null(value: object) -> object:
    """The arguments of a command without those that were not given."""
    return {key: each for key, each in value.items() if each is not None} if isinstance(value, dict) else value


def _value(value: object) -> str:
    """A value on one line, with control characters escaped, because they could control the terminal."""
    return value if isinstance(value, str) and value.isprintable() else to_json([value])[1:-1]


def _escaped_json(line: str) -> str:
    """The same JSON, with escapes for what does not print."""
    return "".join(each if each.isprintable() or each == "\n" else to_json([each])[2:-2] for each in line)


def _local(time_ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(time_ms / 1000).astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # a line that this agent did not write
        return f"{time_ms} ms"
