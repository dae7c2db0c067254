"""The board as a page for a terminal: as many lines as it has, and no more."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from agent.messages.records import Evaluation
from agent.watch import rendering as words

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from rich.console import RenderableType

    from agent.watch.board import StationBoard, StationView

    Labels: TypeAlias = Mapping[str, str]
    Cell: TypeAlias = Text | str

_RESULTS_AT_MOST, _RESULTS_AT_LEAST = 15, 3
_ALERTS_AT_MOST = 5
_SILENT_AFTER_MS = 15_000  # three times as long as health may take
_MANY_WAITING = 100  # more than are under way at once
_COLOURS = {"OK": "green", "NotOK": "bold red", "NotDecidable": "yellow", "Undefined": "yellow"}


class _Section:
    """A blank line, a table, and notes below it.

    Args:
        columns: Names; one that begins with ``>`` is of figures, one that ends with ``...`` of names, which give way
            where the terminal is narrow.
        height: Lines that it may have.
    """

    def __init__(self, *columns: str, height: int) -> None:
        self.height_left = height - 2
        self.rows = 0
        self._table = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
        self._notes: list[Text] = []
        for name in columns:
            is_figure = name.startswith(">")
            text = name.lstrip(">").removesuffix("...")
            self._table.add_column(text, justify="right" if is_figure else "left", no_wrap=not name.endswith("..."))

    def add(self, *cells: Cell) -> None:
        self._table.add_row(*(_on_one_line(cell) for cell in cells))
        self.rows += 1
        self.height_left -= 1

    def note(self, text: str, style: str) -> None:
        self._notes.append(_on_one_line(Text(text, style)))
        self.height_left -= 1

    def parts(self) -> list[RenderableType]:
        return [Text(), self._table, *self._notes] if self.rows else []


def render_screen(board: StationBoard, connection: Text, topic: str, now_ms: int, height: int) -> RenderableType:
    """What is known, on at most so many lines; the results take what the rest leaves.

    Args:
        board: What is known.
        connection: The line to the broker, in words.
        topic: What we listen to.
        now_ms: Now.
        height: Of the terminal, in lines.
    """
    labels = words.labels(board.stations)
    parts: list[RenderableType] = [_counts(board), _on_one_line(connection), _on_one_line(Text(topic, "dim"))]
    left = height - len(parts) - 1  # the cursor stands in the last one
    kept = _RESULTS_AT_LEAST + 2
    sections: tuple[Callable[[StationBoard, Labels, int, int], _Section], ...] = (_stations, _alerts, _answers)
    for build in sections:
        room = min(left - kept, height // 2 - 1)  # stations must leave something to alerts
        section = build(board, labels, now_ms, room)
        parts += section.parts()
        left -= room - section.height_left if section.rows else 0
    if not board.stations:
        parts += [Text(), Text("No station has been heard yet.", "dim")]
    return Group(*parts, *_results(board, labels, now_ms, max(left, kept)).parts())


def _counts(board: StationBoard) -> Text:
    counts = Text(f"stations: {len(board.stations)}   results: {board.result_count:,}", "bold")
    if board.malformed:
        counts.append(f"   malformed messages: {board.malformed:,}", "bold yellow")
    return counts


def _stations(board: StationBoard, labels: Labels, now_ms: int, height: int) -> _Section:
    names = ("station...", "state...", ">fps", ">p99 ms", ">waiting", ">dropped", ">plc", ">invalid")
    section = _Section(*names, height=height)
    troubles = {root: _trouble(station, now_ms) for root, station in board.stations.items()}
    # Those in trouble first: where there is no room for all, they must not be the ones that are left out.
    ranked = sorted(board.stations, key=lambda root: (troubles[root] is None, labels[root]))
    for root in ranked:
        if section.height_left > 1 or not section.rows:
            station, trouble = board.stations[root], troubles[root]
            section.add(labels[root], _state(station, trouble), *_figures(station))
            if trouble and section.height_left > 1:
                section.note(f"{labels[root]}: {trouble}", "yellow")
    if section.rows < len(ranked):
        section.note(f"and {len(ranked) - section.rows} more; a larger terminal shows them", "dim")
    return section


def _trouble(station: StationView, now_ms: int) -> str | None:
    """Why a person should look at a station; None if it runs."""
    status, health = station.status, station.health
    if status is None:
        return "has not said whether it is online"
    if not status.online or status.state != "running":
        return status.reason or words.state(status)
    if health is not None and now_ms - station.health_at_ms > _SILENT_AFTER_MS:
        return f"no health for {(now_ms - station.health_at_ms) // 1000} s; its figures are old"
    return None


def _state(station: StationView, trouble: str | None) -> Text:
    is_there = station.status is not None and station.status.online
    return Text(words.state(station.status), "green" if trouble is None else "yellow" if is_there else "red")


def _figures(station: StationView) -> list[Cell]:
    figures: list[Cell] = ["", "", "", ""]
    health = station.health
    if health is not None and (station.status is None or station.status.online):
        figures = [
            f"{health.fps:.1f}",
            "" if health.p99_ms is None else f"{health.p99_ms:.1f}",
            Text(f"{health.outbox_depth:,}", "yellow" if health.outbox_depth >= _MANY_WAITING else ""),
            f"{sum(health.dropped.values()):,}",
        ]
    if not station.plc:
        return [*figures, "", ""]
    return [*figures, f"{station.plc:,}", Text(f"{station.plc_invalid:,}", "red" if station.plc_invalid else "")]


def _alerts(board: StationBoard, labels: Labels, now_ms: int, height: int) -> _Section:
    section = _Section("active alert", "station...", ">severity", "cause...", height=height)
    active = [(root, alert) for root, station in board.stations.items() for alert in station.alerts.values()]
    active.sort(key=lambda each: each[1].start_time, reverse=True)
    for root, alert in active[: min(_ALERTS_AT_MOST, max(0, section.height_left - 1))]:
        since = Text(f"since {words.clock(alert.start_time, now_ms)}", "bold red")
        section.add(since, labels[root], f"{alert.severity}", alert.cause)
    if section.rows < len(active):
        section.note(f"and {len(active) - section.rows} more", "bold red")
    return section


def _answers(board: StationBoard, labels: Labels, now_ms: int, height: int) -> _Section:
    section = _Section("command...", "station...", "answered", "...", height=height)
    for root, at_ms, answer in islice(reversed(board.answers), max(0, section.height_left)):
        is_well = answer.accepted and not answer.error
        outcome = Text(words.outcome(answer), "green" if is_well else "yellow")
        section.add(answer.command or answer.command_id, labels[root], words.clock(at_ms, now_ms), outcome)
    return section


def _results(board: StationBoard, labels: Labels, now_ms: int, height: int) -> _Section:
    section = _Section("result", "station...", "part...", "verdict", ">score/thr.", "code...", height=height)
    for root, result in islice(reversed(board.results), min(_RESULTS_AT_MOST, section.height_left)):
        verdict = words.verdict(result)
        zone = "" if result.result_evaluation == Evaluation.OK else result.zone or ""
        notes = (words.code(result), zone, "historical" if result.historical else "")
        section.add(
            words.clock(result.creation_time, now_ms),
            labels[root],
            result.part_id or "",
            Text(verdict, _COLOURS[verdict]),
            "" if result.ratio is None else f"{result.ratio:,.2f}",
            ", ".join(note for note in notes if note),
        )
    return section


def _on_one_line(cell: Cell) -> Text:
    text = Text(cell) if isinstance(cell, str) else cell
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
