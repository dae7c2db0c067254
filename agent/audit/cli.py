"""``shiftwatch-agent audit``: prove the audit log, and read it."""

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

from agent.audit.entry import from_line, lines_backwards
from agent.audit.log import audit_file_errors
from agent.audit.verify import Findings, verify
from agent.config import model as configuration
from agent.messages.records import to_json
from calibration.errors import SettingError
from calibration.terminal import EXIT_ERROR, console, error_console, escape

if TYPE_CHECKING:
    from agent.audit.entry import Entry
    from agent.audit.verify import Reason

FILE_NAME = "audit.jsonl"
_HASH_DIGITS = 64
_MEANINGS: dict[Reason, str] = {
    "changed": "somebody or something has changed the file",
    "removed": "entries were taken out of the file",
    "inserted": "lines were put into the file",
    "reordered": "lines were moved in the file",
    "torn": "the file ends in the middle of a line",
}

app = typer.Typer(
    help="Prove and read the log of what was commanded and changed.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
LogFile = Annotated[Path | None, typer.Argument(metavar="FILE", help=f"The log, {FILE_NAME} in a state_dir.")]
ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE.yaml", help="Instead: the log of this station.")
]


@app.command("verify")
def verify_command(
    file: LogFile = None,
    *,
    config: ConfigFile = None,
    head: Annotated[
        str | None, typer.Option(metavar="HASH", help="`auditHash` of an acknowledgement: is its entry still there?")
    ] = None,
) -> None:
    """Prove that no line was changed, removed, inserted or moved; exit code 2, with the place, if one was.

    That entries were cut off the end shows only `--head`, with a hash that you wrote down.

    Examples: `shiftwatch-agent audit verify --config station.yaml`; `shiftwatch-agent audit verify FILE --head HASH`
    """
    path = _log_of(file, config)
    found = verify(path, None if head is None else _hash(head))
    console.print(escape(_summary(path, found)), soft_wrap=True)
    if found.broken is not None:
        place = f"line {found.broken.line}: {found.broken.reason}: {found.broken.meaning}"
        console.print(f"[bold red]not as it was written:[/] {escape(place)}", soft_wrap=True)
        console.print(f"  {_MEANINGS[found.broken.reason]}; compare it with a copy, if there is one", soft_wrap=True)
    if found.head_found is False:
        console.print("[bold red]the entry asked for is not there:[/] it was cut off, or is of another log")
    elif found.head_found:
        console.print("the entry asked for is there")
    if not found.is_sound:
        raise typer.Exit(EXIT_ERROR)
    console.print("[green]as it was written[/]")


@app.command("show")
def show_command(
    file: LogFile = None,
    *,
    config: ConfigFile = None,
    last: Annotated[int, typer.Option(metavar="N", min=1, help="So many entries, the newest last.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print each as one JSON object, as it stands.")] = False,
) -> None:
    """Print the last entries.

    Example: `shiftwatch-agent audit show --config station.yaml --last 50`
    """
    path = _log_of(file, config)
    with audit_file_errors("read", path), path.open("rb") as log:
        lines = list(islice(lines_backwards(log), last))[::-1]
    entries = [from_line(line) for line in lines]
    if as_json:
        for line, entry in zip(lines, entries, strict=True):
            sys.stdout.buffer.write(line if entry else b"")
        sys.stdout.flush()
    else:
        console.print(_table(entries))
    if damaged := entries.count(None):
        error_console.print(f"damaged lines among them: {damaged}; see shiftwatch-agent audit verify")


def _log_of(file: Path | None, config: Path | None) -> Path:
    if file is not None and config is None:
        return file
    if config is not None and file is None:
        return configuration.load(config).state_dir / FILE_NAME
    raise SettingError(what="no single log is named", remedy="give either FILE or --config")


def _hash(head: str) -> str:
    plain = head.strip().lower()
    if len(plain) != _HASH_DIGITS or set(plain) - set(hexdigits):
        raise SettingError(
            what=f"--head {head}: not a hash of this log", remedy=f"give all {_HASH_DIGITS} digits of an auditHash"
        )
    return plain


def _summary(path: Path, found: Findings) -> str:
    if found.first_ms is None or found.last_ms is None:
        return f"{path}: no entries"
    cuts = f", {found.recoveries} times continued after a power cut" if found.recoveries else ""
    return f"{path}: {found.entries} entries, {_local(found.first_ms)} to {_local(found.last_ms)}{cuts}"


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
        what = " ".join(f"{key}={_value(value)}" for key, value in entry.fields.items() if key != "by")
        by = entry.fields.get("by")
        table.add_row(
            _local(entry.time_ms), Text(_value(entry.event)), Text("" if by is None else _value(by)), Text(what)
        )
    return table


def _value(value: object) -> str:
    """On one line, whatever it holds: a name with control characters must not steer the terminal."""
    return value if isinstance(value, str) and value.isprintable() else to_json([value])[1:-1]


def _local(time_ms: int) -> str:
    try:
        return f"{datetime.fromtimestamp(time_ms / 1000).astimezone():%Y-%m-%d %H:%M:%S}"
    except (ValueError, OverflowError, OSError):  # a line that this agent has not written
        return f"{time_ms} ms"
