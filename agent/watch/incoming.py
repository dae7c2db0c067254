"""Messages of stations as another program receives them: checked, since anybody may publish there.

Text is made harmless for a terminal: what does not print becomes a question mark.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final, Literal, NamedTuple

from agent.messages.payloads import MESSAGES

if TYPE_CHECKING:
    from agent.messages.fields import Message

_LONGEST_TEXT = 200


class Incoming(NamedTuple):
    """A message below a topic root; ``content`` is the JSON object as it came."""

    root: str
    content: object
    message: Message


MALFORMED: Final = "malformed"


def read(topic: str, payload: bytes) -> Incoming | Literal["malformed"] | None:
    """The message of a station; None for a topic on which stations publish nothing."""
    levels = topic.split("/")
    for count in (2, 1):
        root, kind = "/".join(levels[:-count]), "/".join(levels[-count:])
        if root and kind in MESSAGES:
            try:
                content = json.loads(payload.decode(), parse_constant=_refuse)
                return Incoming(printable(root), content, MESSAGES[kind].read(_printable(content)))
            except (ValueError, RecursionError):  # pydantic's are ValueErrors, too
                return MALFORMED
    return None


def printable(text: str) -> str:
    """The same on one line, at most 200 characters, with ``?`` for whatever could steer a terminal."""
    return "".join(letter if letter.isprintable() else "?" for letter in text[:_LONGEST_TEXT])


def _refuse(constant: str) -> None:
    raise ValueError(constant)


def _printable(content: Any) -> Any:  # noqa: ANN401 - any JSON value
    if isinstance(content, str):
        return printable(content)
    if isinstance(content, dict):
        return {printable(key): _printable(value) for key, value in content.items()}
    return [_printable(value) for value in content] if isinstance(content, list) else content
