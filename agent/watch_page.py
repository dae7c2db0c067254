"""The board as a page for a terminal."""

from __future__ import annotations

from itertools import islice
from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from agent import watch_text as words

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rich.console import RenderableType

    from agent.watch import Board, ShownResult, StationView

_RESULTS_AT_MOST, _RESULTS_AT_LEAST = 15, 3
_ALERTS_AT_MOST = 5
_SILENT_AFTER_MS = 15_000  # three times as long as health may take
_COLOURS = {"OK": "green", "NotOK": "bold red", "NotDecidable": "yellow", "Undefined": "yellow"}


class _Section:
    """A table below a blank line, and how many rows it takes."""

    def __init__(self, *columns: tuple[str, str], rows: int) -> None:
        self.rows_left = rows
        self.height = 2
        self.table = Table(box=None, pad_edge=False, header_style="bold dim", padding=(0, 2, 0, 0))
        for name, justify in columns:
            # Where the terminal is narrow names give way, never figures; and each row stays one line.
            is_name = justify == "..."
            self.table.add_column(name, justify="right" if justify == ">" else "left", no_wrap=not is_name)

    def add(self, *cells: Text | str) -> None:
        self.table.add_row(*(_cut(Text(cell) if isinstance(cell, str) else cell) for cell in cells))
        self.height += 1
        self.rows_left -= 1


def page(board: Board, connection: Text, topic: str, now_ms: int, height: int) -> RenderableType:
    """What is known, on at most so many lines.

    Args:
        board: What is known.
        connection: The line to the broker, in words.
        topic: What we listen to.
        now_ms: Now.
        height: Of the terminal, in lines.
    """
    labels = words.labels(board.stations)
    parts: list[RenderableType] = [_counts(board), _cut(connection), _cut(Text(topic, "dim"))]
    height -= len(parts) + 1  # the cursor stands in the last line
    for lines, section in (
        _stations(board, labels, now_ms, max(3, height // 3)),
        _alerts(board, labels, now_ms),
        _answers(board, labels, now_ms, max(1, height // 6)),
    ):
        parts += section
        height -= lines
    return Group(*parts, *_results(board, labels, now_ms, min(_RESULTS_AT_MOST, max(_RESULTS_AT_LEAST, height - 2))))


def _counts(board: Board) -> Text:
    counts = Text(f"{len(board.stations)} stations, {board.result_count:,} results", "bold")
    if board.malformed:
        counts.append(f", {board.malformed:,} malformed messages", "bold yellow")
    return counts


def _stations(board: Board, labels: Mapping[str, str], now_ms: int, room: int) -> tuple[int, list[RenderableType]]:
    if not board.stations:
        return 2, [Text(), Text("No station has been heard yet.", "dim")]
    columns = ("station", "..."), ("state", "<"), ("fps", ">"), ("p99 ms", ">"), ("waiting", ">"), ("dropped", ">")
    section = _Section(*columns, ("plc", ">"), ("invalid", ">"), rows=room)
    # Those in trouble first: where there is no room for all, they must not be the ones that are left out.
    ranked = sorted(board.stations.items(), key=lambda each: (_trouble(each[1], now_ms) is None, labels[each[0]]))
    reasons: list[RenderableType] = []
    for root, station in ranked:
        trouble = _trouble(station, now_ms)
        if section.rows_left <= 0:
            break
        section.add(labels[root], _state(station, trouble), *_figures(station))
        if trouble and section.rows_left > 0:
            reasons.append(_cut(Text(f"{labels[root]}: {trouble}", "yellow")))
            section.rows_left -= 1
    left_out = len(ranked) - section.table.row_count
    if left_out:
        reasons.append(Text(f"and {left_out} more stations; a larger terminal shows them", "dim"))
    return section.height + len(reasons), [Text(), section.table, *reasons]


def _state(station: StationView, trouble: str | None) -> Text:
    is_there = station.status is not None and station.status.online
    return Text(words.state(station.status), "green" if trouble is None else "yellow" if is_there else "red")


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


def _figures(station: StationView) -> list[Text | str]:
    health = station.health
    plc: list[Text | str] = [f"{station.plc:,}", Text(f"{station.plc_invalid:,}", "red" if station.plc_invalid else "")]
    plc = plc if station.plc else ["", ""]
    if health is None or (station.status is not None and not station.status.online):
        return ["", "", "", "", *plc]
    dropped = sum(health.dropped.values())
    return [
        f"{health.fps:.1f}",
        "" if health.p99_ms is None else f"{health.p99_ms:.1f}",
        Text(f"{health.outbox_depth:,}", "yellow" if health.outbox_depth > 1 else ""),
        Text(f"{dropped:,}", "yellow" if dropped else ""),
        *plc,
    ]


def _alerts(board: Board, labels: Mapping[str, str], now_ms: int) -> tuple[int, list[RenderableType]]:
    active = [(root, alert) for root, station in board.stations.items() for alert in station.alerts.values()]
    if not active:
        return 0, []
    section = _Section(
        ("active alert", "<"), ("station", "..."), ("severity", ">"), ("cause", "..."), rows=_ALERTS_AT_MOST
    )
    for root, alert in sorted(active, key=lambda each: each[1].start_time, reverse=True)[:_ALERTS_AT_MOST]:
        since = Text(f"since {words.clock(alert.start_time, now_ms)}", "bold red")
        section.add(since, labels[root], f"{alert.severity}", alert.cause)
    more = len(active) - _ALERTS_AT_MOST
    rest = [Text(f"and {more} more", "dim")] if more > 0 else []
    return section.height + len(rest), [Text(), section.table, *rest]


def _answers(board: Board, labels: Mapping[str, str], now_ms: int, room: int) -> tuple[int, list[RenderableType]]:
    if not board.answers:
        return 0, []
    section = _Section(("command", "<"), ("station", "..."), ("answered", "<"), ("", "..."), rows=room)
    for root, at_ms, answer in islice(reversed(board.answers), room):
        is_well = answer.accepted and not answer.error
        outcome = Text(words.outcome(answer), "green" if is_well else "yellow")
        section.add(answer.command or answer.command_id, labels[root], words.clock(at_ms, now_ms), outcome)
    return section.height, [Text(), section.table]


def _results(board: Board, labels: Mapping[str, str], now_ms: int, room: int) -> list[RenderableType]:
    if not board.results:
        return []
    columns = (
        ("result", "<"),
        ("station", "..."),
        ("part", "..."),
        ("verdict", "<"),
        ("score/thr.", ">"),
        ("code", "..."),
    )
    section = _Section(*columns, rows=room)
    for shown in islice(reversed(board.results), room):
        section.add(*_result_cells(shown, labels, now_ms))
    return [Text(), section.table]


def _result_cells(shown: ShownResult, labels: Mapping[str, str], now_ms: int) -> list[Text | str]:
    result = shown.result
    verdict = words.verdict(result)
    note = ", ".join(each for each in (words.code(result), "historical" if result.historical else "") if each)
    return [
        words.clock(result.creation_time, now_ms),
        labels[shown.root],
        result.part_id or "",
        Text(verdict, _COLOURS[verdict]),
        "" if result.ratio is None else f"{result.ratio:,.2f}",
        note,
    ]


def _cut(text: Text) -> Text:
    """On one line."""
    text.no_wrap, text.overflow = True, "ellipsis"
    return text
