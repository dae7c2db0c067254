"""What both commands print to the terminal: errors with exit codes, and progress bars."""

from __future__ import annotations

import io
import math
import signal
import sys
import time
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.markup import escape as escape_markup
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    ProgressColumn,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bars
from rich.text import Text

from calibration.errors import ShiftwatchError
from calibration.plain_text import printable

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    import typer
    from rich.console import ConsoleOptions, RenderableType
    from rich.progress import Task
    from rich.segment import Segment

    from calibration.progress import Progress

EXIT_ERROR = 2
EXIT_INTERRUPTED = 130
_ANNOUNCED_AFTER_S = 20.0


class _Terminal(Console):
    """Escapes all that could steer the terminal."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        """See Console."""
        for segment in super().render(renderable, options):
            is_own = segment.control is not None
            yield segment if is_own else segment._replace(text=printable(segment.text, keep="\n"))


console = _Terminal(highlight=False, emoji=False)
error_console = _Terminal(stderr=True, highlight=False, emoji=False)

say = partial(console.print, soft_wrap=True)
"""Print a text that a terminal may wrap, and a file gets as one line."""


def run(app: typer.Typer) -> None:
    """Run a command; an error that the user can fix is printed without a traceback and ends it with exit code 2.

    What the terminal's encoding lacks is printed with a backslash: finished work must not be lost over a name.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        app()
    except ShiftwatchError as error:
        _end_with(error.what, error.remedy)
    except PermissionError as error:  # a file of another user
        remedy = "give the command as the user who owns it, or correct its owner or permissions"
        _end_with(f"{error.filename or 'a file'}: {error.strerror}", remedy)
    except SystemExit as ended:
        if ended.code == EXIT_INTERRUPTED:  # typer on Ctrl-C, without a message
            error_console.print("interrupted")
        raise


def _end_with(what: str, remedy: str) -> NoReturn:
    error_console.print(f"[bold red]error:[/] {escape(what)}", soft_wrap=True)
    error_console.print(f"  {escape(remedy)}", soft_wrap=True)
    sys.exit(EXIT_ERROR)


def ending_signals() -> list[signal.Signals]:
    """Signals that end a program; SIGHUP is not among them where it is ignored, as below ``nohup``."""
    hang_up = [] if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN else [signal.SIGHUP]
    return [signal.SIGINT, signal.SIGTERM, *hang_up]


def escape(text: str) -> str:
    """Text for rich, with its markup escaped, and whatever does not print; lines stay lines."""
    return escape_markup(printable(text, keep="\n"))


class TimeLeft(ProgressColumn):
    """Time left by the mean speed since the start; rich's own column uses the last half minute."""

    def render(self, task: Task) -> Text:
        """Hours, minutes and seconds."""
        if not task.completed or task.elapsed is None or task.total is None:
            return Text("-:--:-- left")
        left_s = task.elapsed * (task.total - task.completed) / task.completed
        return Text(f"{timedelta(seconds=round(left_s))} left")


class _Speed(ProgressColumn):
    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text(f"{speed:6.1f}/s" if speed else "      /s")


@contextmanager
def progress_bar() -> Iterator[Progress]:
    """A bar for each step, with speed and time left; yields the function that updates it.

    Where there is no terminal for a bar, a step that takes long says once how much time is left.
    """
    columns = (
        TextColumn("{task.description:>10}"),
        BarColumn(),
        MofNCompleteColumn(),
        _Speed(),
        TimeRemainingColumn(elapsed_when_finished=True),
    )
    bars = Bars(*columns, console=error_console)
    tasks: dict[str, TaskID] = {}
    counts: dict[str, int] = {}
    starts: dict[str, tuple[float, int]] = {}

    def update(step: str, done: int, total: int) -> None:
        if not tasks:
            bars.start()
        if step not in tasks:
            tasks[step] = bars.add_task(step, total=total, completed=done)
            starts[step] = time.monotonic(), done
        bars.update(tasks[step], completed=done, total=total)
        counts[step] = done
        start_s, at_start = starts.get(step, (math.inf, done))
        elapsed_s = time.monotonic() - start_s
        if done > at_start and elapsed_s > _ANNOUNCED_AFTER_S and not error_console.is_terminal:
            del starts[step]
            left = timedelta(seconds=round(elapsed_s * (total - done) / (done - at_start)))
            error_console.print(f"{step}: {done:,} of {total:,}, about {left} left", soft_wrap=True)

    try:
        yield update
        for step, count in counts.items():  # a step may need fewer rounds than it announced
            bars.update(tasks[step], total=count)
    finally:
        if tasks:
            bars.stop()


@contextmanager
def runs_bar(runs: int) -> Iterator[Callable[[str, float], None]]:
    """A bar over runs of minutes each, with time left; yields its update function (current run, runs done)."""
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeLeft())
    with Bars(*columns, console=error_console) as bars:
        bar = bars.add_task("", total=runs)

        def update(run: str, done: float) -> None:
            bars.update(bar, description=escape(run), completed=done)

        yield update
