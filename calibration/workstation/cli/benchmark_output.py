"""Tables of a benchmark: one for each data set, and one over all of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich import box
from rich.table import Table

from calibration.terminal import console, escape, say
from calibration.workstation.cli.output import print_some
from calibration.workstation.evaluation.averages import over_runs, over_sets

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibration.workstation.evaluation.averages import Average, Row
    from calibration.workstation.evaluation.benchmark import Run

_WIDEST, _WIDEST_NAME = 10_000, 28


@dataclass(frozen=True, slots=True)
class _Column:
    """Title and format of a figure."""

    title: str
    figure: str
    digits: int
    percent: bool = False

    def cell(self, average: Average) -> str:
        """The mean, and its standard error below it."""
        if average.mean is None:
            return "-"
        scale, unit = (100, "%") if self.percent else (1, "")
        mean = f"{scale * average.mean:.{self.digits}f}{unit}"
        error = average.standard_error
        return mean if error is None else f"{mean}\n±{scale * error:.{self.digits}f}"


_QUALITY = (
    _Column("image\nAUROC", "image_auroc", 3),
    _Column("avg.\nprec.", "average_precision", 3),
    _Column("pixel\nAUROC", "pixel_auroc", 3),
    _Column("\nPRO", "region_overlap", 3),
    _Column("best\nF1", "best_f1", 3),
)
_OPERATION = (
    _Column("rejects if\nall found", "false_reject_rate_at_full_detection", 1, percent=True),
    _Column("rejects,\n{promised} promised", "false_reject_rate", 1, percent=True),
    _Column("\nfound", "detection_rate", 1, percent=True),
    _Column("fit\ns", "fit_s", 1),
    _Column("network\nms", "network_ms", 1),
    _Column("bundle\nMB", "bundle_mb", 1),
)


def print_benchmark(runs: Sequence[Run]) -> None:
    """Print a table for each set, and for several sets a last one over all of them."""
    rows = over_runs(runs)
    for name in dict.fromkeys(row.set for row in rows):
        of_set = [run for run in runs if run.set == name]
        _print_table(_title(of_set), [row for row in rows if row.set == name])
    if len({row.set for row in rows}) > 1:
        _print_all(rows)
    print_some("findings about images", sorted({found for run in runs for found in run.findings}))
    print_some("images skipped", sorted({reason for run in runs for reason in run.skipped}))


def _print_all(rows: Sequence[Row]) -> None:
    overall = over_sets(rows)
    sets = max(row.over for row in overall)
    _print_table(f"mean of {sets} sets, each counting the same, and ± standard error over sets", overall)
    masked = min(row.figures["pixel_auroc"].values for row in overall)
    if 0 < masked < sets:
        console.print(f"pixel AUROC and PRO: of the {masked} sets with masks")


def _title(runs: Sequence[Run]) -> str:
    first = runs[0]
    each = sum((run.backbone, run.detector) == (first.backbone, first.detector) for run in runs)
    repeated = f"; {each} runs each, mean and ± standard error" if each > 1 else ""
    learned, good = _span([run.learnt for run in runs]), _span([run.good for run in runs])
    brightness = sum(run.brightness_auroc for run in runs) / len(runs)
    return (
        f"[bold]{escape(first.set)}[/]: {learned} good images learned, {good} good and {first.defective} defective "
        f"tested{repeated}; image AUROC of mean brightness alone {brightness:.3f}"
    )


def _span(counts: Sequence[int]) -> str:
    low, high = min(counts), max(counts)
    return str(low) if low == high else f"{low} to {high}"


def _print_table(title: str, rows: Sequence[Row]) -> None:
    """One table, or two where the terminal is too narrow; a file gets it whole, however wide."""
    say(title)
    whole = _table((*_QUALITY, *_OPERATION), rows)
    width = console.measure(whole, options=console.options.update(width=_WIDEST)).maximum
    if console.is_terminal and width > console.width:
        console.print(_table(_QUALITY, rows), _table(_OPERATION, rows))
    else:
        whole.width = width
        console.print(whole, crop=False)


def _table(columns: Sequence[_Column], rows: Sequence[Row]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), leading=1)
    table.add_column("backbone\ndetector", max_width=_WIDEST_NAME, overflow="fold")
    for column in columns:
        table.add_column(column.title.format(promised=_promised(rows)), justify="right")
    for row in rows:
        cells = (column.cell(row.figures[column.figure]) for column in columns)
        table.add_row(f"{escape(row.backbone)}\n{escape(row.detector)}", *cells)
    return table


def _promised(rows: Sequence[Row]) -> str:
    return f"{100 * (rows[0].figures['promised_false_reject_rate'].mean or 0.0):g}%"
