"""Records commands and changes in an append-only file in which changes can be detected.

Each line holds the hash of the line before, so a changed, removed, inserted or moved line breaks the chain. There is no
key: a writer of the file can also rebuild the whole chain, or cut entries off its end. To detect this, keep a hash
elsewhere: the acknowledgement of each command contains one.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from agent.audit.entry import (
    OWN_FIELDS,
    RECOVERED,
    ROTATED,
    Entry,
    format_line,
    newest_lines,
    next_entry,
    older_file,
    parse_line,
)
from agent.clock import now_ms
from agent.errors import AuditError
from calibration.atomic_file import flush_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


_MOST_BYTES = 4 * 1024 * 1024
"""Size of one file: ten thousand entries or more, which are the commands of years."""


class AuditLog:
    """Appends to the log, from any thread of the one process that holds the `state_lock`.

    A line that is half-written after a power cut, or damaged, is kept; an entry ``recovered`` describes it. The file is
    created if it does not exist. A full file takes the place of the older one, and the chain goes on in a new file.

    Args:
        path: The newer file.
        most_bytes: Size at which a file is full.
    """

    def __init__(self, path: Path, most_bytes: int = _MOST_BYTES) -> None:
        self._path = path
        self._most_bytes = most_bytes
        self._lock = threading.Lock()
        self._is_continued = False
        self._last: Entry | None = None
        with suppress(AuditError):  # the agent must start all the same; `append` raises the error again
            self._continue()

    def append(self, event: str, **fields: object) -> str:
        """Add an entry with JSON values as details, and return its hash once it is on disk.

        Raises:
            AuditError: The entry is not on disk, nor any part of it, unless removing that part failed as well.
        """
        if taken := OWN_FIELDS & fields.keys():
            problem = f"reserved fields of an entry: {', '.join(sorted(taken))}"
            raise TypeError(problem)
        with self._lock:
            if not self._is_continued:
                self._continue()
            self._make_room()
            try:
                following = next_entry(self._last, now_ms(), event, fields)
            except RecursionError as error:
                raise AuditError(what=f"{event}: nested too deeply for the audit log", remedy="send less") from error
            self._write(format_line(following))
            self._last = following
            return following.hash

    def _make_room(self) -> None:
        with audit_file_errors("write", self._path):
            if not self._path.exists() or self._path.stat().st_size < self._most_bytes:
                return
            self._is_continued = False
            self._path.replace(older_file(self._path))
            flush_folder(self._path.parent)
        self._continue()

    def _continue(self) -> None:
        with audit_file_errors("read", self._path):
            self._path.touch()
            end = _end_of(newest_lines(self._path))
            is_new = not self._path.stat().st_size
        self._last, repair = end.last, b"" if end.has_newline else b"\n"
        if end.lost:
            lost = end.lost.removesuffix(b"\n")
            fields = {"lostBytes": len(lost), "lostSha256": sha256(lost).hexdigest(), "torn": not end.has_newline}
            self._last = next_entry(end.last, now_ms(), RECOVERED, fields)
            repair += format_line(self._last)
        elif is_new and end.last is not None:
            self._last = next_entry(end.last, now_ms(), ROTATED, _beginning(older_file(self._path)))
            repair += format_line(self._last)
        self._write(repair)
        self._is_continued = True

    def _write(self, content: bytes) -> None:
        self._is_continued = False  # if writing fails, the next entry reads the end of the file again
        with audit_file_errors("write", self._path), self._path.open("ab", buffering=0) as file:
            length = file.tell()
            try:
                if file.write(content) != len(content):
                    raise OSError(None, "only a part was written")  # noqa: TRY301 - handled like any other failure
                os.fsync(file.fileno())
                if not length:
                    flush_folder(self._path.parent)
            except OSError:
                with suppress(OSError):  # the next entry recovers what stays
                    file.truncate(length)
                raise
        self._is_continued = True


def _beginning(path: Path) -> dict[str, object]:
    """Number of the first entry of a file, and the hash before it."""
    with audit_file_errors("read", path), path.open("rb") as file:
        first = parse_line(file.readline())
    return {} if first is None else {"oldest": first.seq, "oldestPrevious": first.previous}


class _End(NamedTuple):
    last: Entry | None
    lost: bytes
    has_newline: bool


def _end_of(lines: Iterable[bytes]) -> _End:
    """The last undamaged entry and the lines after it, from lines in reverse order."""
    lost: list[bytes] = []
    has_newline = True
    last = None
    for number, line in enumerate(lines):
        has_newline = has_newline if number else line.endswith(b"\n")
        last = parse_line(line)
        if last is not None:
            break
        lost.append(line)
    return _End(last, b"".join(reversed(lost)), has_newline)


@contextmanager
def audit_file_errors(doing: str, path: Path) -> Iterator[None]:
    """Translate errors of the file system.

    Raises:
        AuditError: The file cannot be read or written.
    """
    try:
        yield
    except OSError as error:
        raise AuditError(
            what=f"cannot {doing} the audit log {path}: {error.strerror}",
            remedy="free space on its disk, or correct its permissions",
        ) from error
