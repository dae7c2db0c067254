"""The words in which stations are shown, on the page and in lines."""

from __future__ import annotations

import json
from datetime import datetime
from typing import TYPE_CHECKING

from agent.messages.records import Evaluation, ResultCode
from agent.watch.incoming import Alert, CommandAnswer, Result, Status

if TYPE_CHECKING:
    from collections.abc import Collection

    from agent.watch.incoming import Message

VERDICTS = {
    Evaluation.UNDEFINED: "Undefined",
    Evaluation.OK: "OK",
    Evaluation.NOT_OK: "NotOK",
    Evaluation.NOT_DECIDABLE: "NotDecidable",
}
_CODES = {code.value: code.name.lower().replace("_", " ") for code in ResultCode}


def verdict(result: Result) -> str:
    """As the README spells it."""
    return VERDICTS[Evaluation(result.result_evaluation)]


def code(result: Result) -> str:
    """Number and meaning of the result code; nothing for 0."""
    return f"{result.result_code} {_CODES.get(result.result_code, '')}".rstrip() if result.result_code else ""


def state(status: Status | None) -> str:
    """In one word."""
    if status is None:
        return "?"
    return (status.state or "online") if status.online else "offline"


def outcome(answer: CommandAnswer) -> str:
    """What became of a command."""
    if not answer.accepted:
        return f"refused: {answer.error or 'no reason given'}"
    if answer.error:
        return f"failed: {answer.error}"
    return "accepted" if answer.progress is None else f"accepted, {answer.progress:g} done"


def labels(roots: Collection[str]) -> dict[str, str]:
    """The shortest ends of the topic roots that tell them apart, without the level ``vision``."""
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
    """One line for ``grep``; None for what is shown on the page only."""
    if isinstance(message, Result):
        words = ["result", verdict(message), f"part={_word(message.part_id)}", f"score/threshold={_ratio(message)}"]
        words += [f"zone={_word(message.zone)}"] if message.zone else []
        words += [f"code={message.result_code}", *(["historical"] if message.historical else [])]
        return _line(root, message.creation_time, words)
    if isinstance(message, Alert):
        words = ["alert", message.type, f"severity={message.severity}", f"cause={_word(message.cause)}"]
        return _line(root, now_ms, [*words, *(["historical"] if message.historical else [])])
    if isinstance(message, Status):
        return _line(root, now_ms, ["status", state(message), f"reason={_word(message.reason)}"])
    if isinstance(message, CommandAnswer):
        return _line(root, now_ms, ["ack", message.command, f"id={_word(message.command_id)}", outcome(message)])
    return None


def _line(root: str, time_ms: int, words: list[str]) -> str:
    time = datetime.fromtimestamp(time_ms / 1000).astimezone()
    return " ".join([time.isoformat(timespec="milliseconds"), root, *words])


def _ratio(result: Result) -> str:
    return "none" if result.ratio is None else f"{result.ratio:.4g}"


def _word(text: str | None) -> str:
    """In quotes where it would not be one word."""
    if text is None:
        return "none"
    return text if text and not set(text) & set(" \"'") else json.dumps(text, ensure_ascii=False)
