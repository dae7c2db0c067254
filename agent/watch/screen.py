"""The board on a terminal screen, in as many lines as fit."""

from __future__ import annotations

import math
from itertools import islice
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from agent.messages.payloads import NO_LOSS
from agent.messages.records import Evaluation
from agent.watch.rendering import VERDICTS, clock, code_text, outcome_text, score_ratio, state_text, station_labels

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import TypeAlias

    from rich.console import RenderableType

    from agent.watch.board import StationBoard, StationView

    Labels: TypeAlias = Mapping[str, str]
    Cell: TypeAlias = Text | str

_MOST_RESULTS, _LEAST_RESULTS = 15, 3
_MOST_ALERTS = 5
_SILENT_AFTER_MS = 15_000  # three times the interval of health messages
_MANY_WAITING = 100  # more than are in flight at once
_COLOURS = {"OK": "green", "NotOK": "bold red", "NotDecidable": "yellow", "Undefined": "yellow"}


class _Section:
    """A blank line, a table, and notes below it.

    Args:
        columns: Headings. ``>`` in front: right-aligned; ``...`` at the end: may be shortened on a narrow terminal.
        height: Most lines that it may have.
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
    """The board on at most ``height`` lines; the results take what the other sections leave."""
    labels = station_labels(board.stations)
    parts: list[RenderableType] = [_counts(board), _on_one_line(connection), _on_one_line(Text(topic, "dim"))]
    left = height - len(parts) - 1  # the cursor is on the last one
    kept = _LEAST_RESULTS + 2
    sections: tuple[Callable[[StationBoard, Labels, int, int], _Section], ...] = (_stations, _alerts, _acks)
    for build in sections:
        room = min(left - kept, height // 2 - 1)  # stations must leave something to alerts
        section = build(board, labels, now_ms, room)
        parts += section.parts()
        left -= room - section.height_left if section.rows else 0
    if not board.stations:
        parts += [Text(), Text("No station has published anything yet.", "dim")]
    return Group(*parts, *_results(board, labels, now_ms, max(left, kept)).parts())


def _counts(board: StationBoard) -> Text:
    counts = Text(f"stations: {len(board.stations)}   results: {board.result_count:,}", "bold")
    if board.malformed:
        counts.append(f"   malformed messages: {board.malformed:,}", "bold yellow")
    return counts


def _stations(board: StationBoard, labels: Labels, now_ms: int, height: int) -> _Section:
    names = ("station...", "state...", ">fps", ">p99 ms", ">waiting", ">dropped", ">plc", ">invalid")
    section = _Section(*names, height=height)
    problems = {root: _problem(station, now_ms) for root, station in board.stations.items()}
    # Stations with a problem come first, so that none of them is left out where there is no room for all.
    ranked = sorted(board.stations, key=lambda root: (problems[root] is None, labels[root]))
    for root in ranked:
        if section.height_left > 1 or not section.rows:
            station, problem = board.stations[root], problems[root]
            section.add(labels[root], _state(station, problem), *_figures(station))
            if problem and section.height_left > 1:
                section.note(f"{labels[root]}: {problem}", "yellow")
    if section.rows < len(ranked):
        section.note(f"and {len(ranked) - section.rows} more; a larger terminal shows them", "dim")
    return section


def _problem(station: StationView, now_ms: int) -> str | None:
    """Why a station needs attention; None if it runs."""
    status, health = station.status, station.health
    if status is None:
        return "has not reported whether it is online"
    if not status.online or status.state != "running":
        return status.reason or state_text(status)
    if health is not None and now_ms - station.health_at_ms > _SILENT_AFTER_MS:
        return f"no health for {(now_ms - station.health_at_ms) // 1000} s; its figures are old"
    return None


def _state(station: StationView, problem: str | None) -> Text:
    is_there = station.status is not None and station.status.online
    return Text(state_text(station.status), "green" if problem is None else "yellow" if is_there else "red")


def _figures(station: StationView) -> list[Cell]:
    figures: list[Cell] = ["", "", "", ""]
    health = station.health
    if health is not None and (station.status is None or station.status.online):
        figures = [
            _decimal(health.fps),
            _decimal(health.p99_ms.get("total", math.nan)),
            Text(f"{health.outbox_depth:,}", "yellow" if health.outbox_depth >= _MANY_WAITING else ""),
            f"{sum(count for reason, count in health.dropped.items() if reason not in NO_LOSS):,}",
        ]
    if not station.plc:
        return [*figures, "", ""]
    return [*figures, f"{station.plc:,}", Text(f"{station.plc_invalid:,}", "red" if station.plc_invalid else "")]


def _alerts(board: StationBoard, labels: Labels, now_ms: int, height: int) -> _Section:
    section = _Section("active alert", "station...", ">severity", "cause...", height=height)
    active = [(root, alert) for root, station in board.stations.items() for alert in station.alerts.values()]
    active.sort(key=lambda each: each[1].started_at_ms, reverse=True)
    for root, alert in active[: min(_MOST_ALERTS, max(0, section.height_left - 1))]:
        since = Text(f"since {clock(alert.started_at_ms, now_ms)}", "bold red")
        section.add(since, labels[root], f"{alert.severity}", alert.cause)
    if section.rows < len(active):
        section.note(f"and {len(active) - section.rows} more", "bold red")
    return section


def _acks(board: StationBoard, labels: Labels, now_ms: int, height: int) -> _Section:
    section = _Section("command...", "station...", "answered", "...", height=height)
    for root, at_ms, ack in islice(reversed(board.acks), max(0, section.height_left)):
        is_well = ack.accepted and not ack.error
        outcome = Text(outcome_text(ack), "green" if is_well else "yellow")
        section.add(ack.command or str(ack.command_id or ""), labels[root], clock(at_ms, now_ms), outcome)
    return section


def _results(board: StationBoard, labels: Labels, now_ms: int, height: int) -> _Section:
    section = _Section("result", "station...", "part...", "verdict", ">score/thr.", "code...", height=height)
    for root, result in islice(reversed(board.results), min(_MOST_RESULTS, section.height_left)):
        ratio, verdict = score_ratio(result), VERDICTS[result.evaluation]
        zone = "" if result.evaluation == Evaluation.OK else result.zone or ""
        notes = (code_text(result), zone, "historical" if result.historical else "")
        section.add(
            clock(result.created_at_ms, now_ms),
            labels[root],
            result.part_id or "",
            Text(verdict, _COLOURS[verdict]),
            "" if ratio is None else f"{ratio:,.2f}",
            ", ".join(note for note in notes if note),
        )
    return section


def _decimal(number: float) -> str:
    return "" if math.isnan(number) else f"{number:.1f}"


def _on_one_line(cell: Cell) -> Text:
    text = Text(cell) if isinstance(cell, str) else cell
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
