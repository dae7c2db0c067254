"""One line of the audit log: how it is written, and how one that was damaged is told.

Pure but for `lines_backwards`, which reads a file from its end.
"""

from __future__ import annotations

import json
import os
from hashlib import sha256
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from agent.messages.records import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from agent.messages.records import Payload

BEGINNING = "0" * 64
"""What the first entry has as ``previous``."""
RECOVERED = "recovered"
OWN_FIELDS = frozenset({"seq", "time", "event", "previous", "hash"})

_BLOCK = 65_536


class Entry(NamedTuple):
    """A line that holds what it was written with.

    Attributes:
        seq: 1, 2, 3 and so on.
        time_ms: When it was written, by this device's clock.
        previous: Hash of the entry before.
        fields: What else it says.
    """

    seq: int
    time_ms: int
    event: str
    previous: str
    hash: str
    fields: Payload


def entry(after: Entry | None, time_ms: int, event: str, fields: Mapping[str, Any]) -> Entry:
    """The entry that follows ``after``; the first one without."""
    seq, previous = (1, BEGINNING) if after is None else (after.seq + 1, after.hash)
    # Through JSON and back: what no JSON knows (NaN, tuples) must have the same hash now and when it is read.
    plain = json.loads(to_json(dict(fields)))
    content = {**plain, "seq": seq, "time": time_ms, "event": event, "previous": previous}
    return Entry(seq, time_ms, event, previous, sha256(_canonical(content)).hexdigest(), plain)


def to_line(entry: Entry) -> bytes:
    """Canonical JSON and a newline."""
    own = {"seq": entry.seq, "time": entry.time_ms, "event": entry.event}
    return _canonical({**entry.fields, **own, "previous": entry.previous, "hash": entry.hash}) + b"\n"


def from_line(line: bytes) -> Entry | None:
    """The entry of a line, with or without its newline; None unless it is exactly what was once written."""
    line = line.removesuffix(b"\n")
    try:
        content = json.loads(line.decode())
        if not isinstance(content, dict) or _canonical(content) != line:
            return None
        claimed = content.pop("hash", None)
        if claimed != sha256(_canonical(content)).hexdigest():
            return None
    except (ValueError, RecursionError):
        return None
    seq, time_ms, event, previous = (content.pop(key, None) for key in ("seq", "time", "event", "previous"))
    if type(seq) is not int or type(time_ms) is not int or not isinstance(event, str) or not isinstance(previous, str):
        return None
    return Entry(seq, time_ms, event, previous, claimed, content)


def lines_backwards(file: BinaryIO) -> Iterator[bytes]:
    """Lines of a file, the last one first, each with its newline; only the very last may have none."""
    position, pending, newline = file.seek(0, os.SEEK_END), b"", b""
    while position:
        size = min(max(_BLOCK, len(pending)), position)
        position -= size
        file.seek(position)
        pending, *lines = (file.read(size) + pending).split(b"\n")
        for line in reversed(lines):
            if line or newline:
                yield line + newline
            newline = b"\n"
    if pending or newline:
        yield pending + newline


def _canonical(content: Payload) -> bytes:
    text = json.dumps(content, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    # Half a surrogate pair, say from a file name, has no UTF-8; its escape is the same JSON.
    return text.encode("utf-8", "backslashreplace")
