"""Stations as text, on the screen and in lines."""

from __future__ import annotations

import json
import math
from datetime import datetime
from typing import TYPE_CHECKING

from agent.messages.payloads import CommandAck, Status
from agent.messages.records import CODE_NAMES, Alert, Evaluation, Result

if TYPE_CHECKING:
    from collections.abc import Collection

    from agent.messages.fields import Message

VERDICTS = {
    Evaluation.UNDEFINED: "Undefined",
    Evaluation.OK: "OK",
    Evaluation.NOT_OK: "NotOK",
    Evaluation.NOT_DECIDABLE: "NotDecidable",
}


def code_text(result: Result) -> str:
    """Number and meaning of the result code; empty for 0."""
    return f"{result.code} {CODE_NAMES.get(result.code, '')}".rstrip() if result.code else ""


def state_text(status: Status | None) -> str:
    """One word for the state of a station."""
    if status is None:
        return "?"
    return (status.state or "online") if status.online else "offline"


def outcome_text(ack: CommandAck) -> str:
    """What became of a command."""
    if not ack.accepted:
        return f"refused: {ack.error or 'no reason given'}"
    if ack.error:
        return f"failed: {ack.error}"
    if ack.progress is None or ack.progress >= 1:
        return "done" if ack.progress else "accepted"
    return f"{ack.phase or 'under way'}, {ack.progress:.0%}"


def score_ratio(result: Result) -> float | None:
    """Score divided by threshold: above 1 is NotOK; None without a score."""
    ratio = result.score / result.threshold if result.threshold else math.nan
    return None if math.isnan(ratio) else ratio


def station_labels(roots: Collection[str]) -> dict[str, str]:
    """The shortest ends of the topic roots that distinguish them, without the level ``vision``."""
    levels = {root: [level for level in root.split("/") if level != "vision"] or [root] for root in roots}
    longest = max(map(len, levels.values()), default=0)
    for count in range(1, longest):
        ends = {root: "/".join(each[-count:]) for root, each in levels.items()}
        if len(set(ends.values())) == len(ends):
            return ends
    return {root: "/".join(each) for root, each in levels.items()}


def clock(time_ms: int, now_ms: int) -> str:
    """Local time of day; month, day and minute of another day."""
    time, now = (datetime.fromtimestamp(each / 1000).astimezone() for each in (time_ms, now_ms))
    return f"{time:%H:%M:%S}" if time.date() == now.date() else f"{time:%m-%d %H:%M}"


def line(root: str, message: Message, now_ms: int) -> str | None:
    """One line for ``grep``; None for what only the screen shows."""
    time_ms = now_ms
    if isinstance(message, Result):
        time_ms, ratio = message.created_at_ms, score_ratio(message)
        words = ["result", VERDICTS[message.evaluation], f"part={_word(message.part_id)}"]
        words += [f"score/threshold={'none' if ratio is None else f'{ratio:.4g}'}"]
        words += [f"zone={_word(message.zone)}"] if message.zone else []
        words += [f"code={message.code}", *(["historical"] if message.historical else [])]
    elif isinstance(message, Alert):
        words = ["alert", message.type, f"severity={message.severity}", f"cause={_word(message.cause)}"]
        words += ["historical"] if message.historical else []
    elif isinstance(message, Status):
        words = ["status", state_text(message), f"reason={_word(message.reason)}"]
    elif isinstance(message, CommandAck):
        words = ["ack", message.command, f"id={_word(message.command_id)}", outcome_text(message)]
    else:
        return None
    time = datetime.fromtimestamp(time_ms / 1000).astimezone()
    return " ".join([time.isoformat(timespec="milliseconds"), root, *words])


def _word(value: str | float | None) -> str:
    """The value as text, in quotes where it would not be one word."""
    if value is None:
        return "none"
    text = str(value)
    return text if text and not set(text) & set(" \"'") else json.dumps(text, ensure_ascii=False)
