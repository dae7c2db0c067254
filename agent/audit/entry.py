"""Formats and parses one line of the audit log, and reads lines from the end of the file."""

from __future__ import annotations

import json
import os
from hashlib import sha256
from typing import TYPE_CHECKING, Any, BinaryIO, NamedTuple

from agent.messages.records import to_json
from calibration.atomic_file import open_regular

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from agent.messages.records import Payload

BEGINNING = "0" * 64
"""``previous`` of the first entry."""
RECOVERED = "recovered"
ROTATED = "rotated"
"""First entry of a file that follows another; names the beginning of that one, before which entries were removed."""
OWN_FIELDS = frozenset({"seq", "time", "event", "previous", "hash"})

_BLOCK = 65_536


class Entry(NamedTuple):
    """An undamaged line.

    Attributes:
        seq: 1, 2, 3 and so on.
        time_ms: Time of writing by this device's clock, in Unix milliseconds.
        previous: Hash of the entry before.
        fields: The remaining fields.
    """

    seq: int
    time_ms: int
    event: str
    previous: str
    hash: str
    fields: Payload


def older_file(path: Path) -> Path:
    """The file that holds the entries before those in ``path``, once it was full."""
    return path.with_name(f"{path.name}.1")


def newest_lines(path: Path) -> Iterator[bytes]:
    """Lines of the log, the last one first, each with its newline; also those in the older file."""
    for each in (path, older_file(path)):
        if each is path or each.exists():
            with open_regular(each) as file:
                yield from lines_backwards(file)


def next_entry(last: Entry | None, time_ms: int, event: str, fields: Mapping[str, Any]) -> Entry:
    """The entry that follows ``last``; the first entry if there is none."""
    seq, previous = (1, BEGINNING) if last is None else (last.seq + 1, last.hash)
    # Through JSON and back, so that values that JSON lacks (NaN, tuples) have the same hash when they are read.
    plain = json.loads(to_json(dict(fields)))
    content = {**plain, "seq": seq, "time": time_ms, "event": event, "previous": previous}
    return Entry(seq, time_ms, event, previous, sha256(_canonical(content)).hexdigest(), plain)


def format_line(entry: Entry) -> bytes:
    """The entry as canonical JSON with a newline."""
    own = {"seq": entry.seq, "time": entry.time_ms, "event": entry.event}
    return _canonical({**entry.fields, **own, "previous": entry.previous, "hash": entry.hash}) + b"\n"


def parse_line(line: bytes) -> Entry | None:
    """The entry of a line, with or without its newline; None if the line is not exactly as written."""
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
    """Lines of a file, the last one first, each with its newline; only the last line of the file may lack it."""
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
    # Half a surrogate pair, as from a file name, has no UTF-8, but its escape is the same JSON.
    return text.encode("utf-8", "backslashreplace")
