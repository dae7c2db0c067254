"""``shiftwatch-agent stats``: parts, verdicts and causes by hour, shift or day."""

from __future__ import annotations

import csv
import sys
from collections import Counter
from enum import Enum
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table
from rich.text import Text

from agent.clock import now_ms
from agent.config import model as configuration
from agent.config.option import ConfigFile  # noqa: TC001 - typer reads it
from agent.config.time_argument import time_ms
from agent.messages.records import Evaluation
from agent.state_owner import acting_as, owner_of
from agent.statistics.csv_rows import result_rows, total_rows
from agent.statistics.history import FILE_NAME
from agent.statistics.summary import totals_between
from agent.statistics.tables import reading, results_between
from calibration.plain_text import counted, rounded
from calibration.terminal import console, say

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime

    from agent.statistics.summary import Total

app = typer.Typer()
_CAUSES_SHOWN = 10


class By(str, Enum):
    """What results are added up to."""

    HOUR = "hour"
    SHIFT = "shift"
    DAY = "day"


_USUAL_SPAN = {By.HOUR: "24h", By.SHIFT: "1w", By.DAY: "30d"}


@app.command("stats")
def stats_command(  # noqa: PLR0913 - one for each question
    config: ConfigFile,
    *,
    by: Annotated[By, typer.Option(help="What to add up to; shifts are those of statistics.shifts.")] = By.HOUR,
    since: Annotated[
        str | None,
        typer.Option(metavar="WHEN", help="From then on: `2h`, `3d`, `1w`, a date; default: 24h, 1w or 30d."),
    ] = None,
    until: Annotated[str | None, typer.Option(metavar="WHEN", help="Until then; written like --since.")] = None,
    results: Annotated[
        bool, typer.Option("--results", help="Print each result, as far back as statistics.results goes, as CSV.")
    ] = False,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print CSV, for a spreadsheet.")] = False,
) -> None:
    """Print how many parts were OK, NotOK and NotDecidable, why, and how they scored; also while the agent runs.

    Rejects are all that is not OK, as the line rejects it.

    Examples: `shiftwatch-agent stats --by shift`; `shiftwatch-agent stats --results --since 2h > results.csv`
    """
    loaded = configuration.load(config)
    asked_at_ms = now_ms()
    since_ms = time_ms(since or _USUAL_SPAN[by], asked_at_ms)
    until_ms = time_ms(until, asked_at_ms) if until else asked_at_ms
    path = loaded.state_dir / FILE_NAME
    with acting_as(owner_of(loaded.state_dir)), reading(path) as database:
        if results:
            csv.writer(sys.stdout).writerows(result_rows(results_between(database, since_ms, until_ms)))
            return
        found = totals_between(database, since_ms, until_ms, by.value, loaded.statistics.shift_minutes())
    if as_csv:
        csv.writer(sys.stdout).writerows(total_rows(found))
    else:
        _print_table(found, by)


def _print_table(found: Mapping[tuple[datetime, str], Total], by: By) -> None:
    names = ("from", *(["shift"] if by is By.SHIFT else []))
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, 2, 0, 0))
    for name in names:
        table.add_column(name, no_wrap=True)
    for name in ("parts", "OK", "NotOK", "NotDec.", "rejects", "score/thr.", "highest"):
        table.add_column(name, no_wrap=True, justify="right")
    causes: Counter[str] = Counter()
    for (start, shift), total in found.items():
        causes.update(total.causes)
        time = f"{start:%Y-%m-%d}" if by is By.DAY else f"{start:%m-%d %H:%M}"
        table.add_row(
            *map(Text, (time, *([shift] if by is By.SHIFT else []))),
            f"{total.parts:,}",
            *(f"{total.verdicts[each]:,}" for each in (Evaluation.OK, Evaluation.NOT_OK, Evaluation.NOT_DECIDABLE)),
            f"{100 * total.rejects:.1f} %",
            "" if total.mean_ratio is None else f"{total.mean_ratio:.2f}",
            "" if total.highest is None else rounded(total.highest, 3),
        )
    if not found:
        say("no results in this time")
        return
    console.print(table)
    for cause, count in causes.most_common(_CAUSES_SHOWN):
        share = count / causes.total()
        console.print(Text(f"  {count:>9,}  {share:>4.0%}  {cause}"))
    if len(causes) > _CAUSES_SHOWN:
        say(f"  and {counted(len(causes) - _CAUSES_SHOWN, 'more cause')}")
