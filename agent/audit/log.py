"""What was commanded and changed, on disk for good: lines that can be added to, and not changed unseen.

Each line holds the hash of the line before, so that whoever changes, removes, inserts or moves one breaks the chain.
There is no key: who can write the file can also make the whole chain anew, or cut entries off its end. Against that
helps a hash that somebody else has written down, and each command's acknowledgement tells one.
"""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager, suppress
from hashlib import sha256
from typing import TYPE_CHECKING, NamedTuple

from agent.audit.entry import OWN_FIELDS, RECOVERED, Entry, entry, from_line, lines_backwards, to_line
from agent.clock import now_ms
from agent.errors import AuditError
from calibration.atomic_file import flush_folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path


class AuditLog:
    """The log, open for appending, from any thread; one process at a time, which `state_lock` sees to.

    A line that a power cut left half-written, or that is damaged, is kept; an entry ``recovered`` says what it held.

    Args:
        path: Of the file; made if it is not there. Its folder is.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._is_continued = False
        self._last: Entry | None = None
        with suppress(AuditError):  # an agent is not to stop for it: whatever is to be written down says so
            self._continue()

    def append(self, event: str, **fields: object) -> str:
        """Add an entry, and return its hash when it is on disk.

        Args:
            event: What happened.
            fields: More about it, as JSON has it; a number that JSON does not know becomes null.

        Raises:
            AuditError: It is not on disk, and no part of it is, unless even taking it back failed.
        """
        if taken := OWN_FIELDS & fields.keys():
            problem = f"an entry has {', '.join(sorted(taken))} of its own"
            raise TypeError(problem)
        with self._lock:
            if not self._is_continued:
                self._continue()
            try:
                following = entry(self._last, now_ms(), event, fields)
            except RecursionError as error:
                raise AuditError(what=f"{event}: nested too deeply for the audit log", remedy="send less") from error
            self._write(to_line(following))
            self._last = following
            return following.hash

    def _continue(self) -> None:
        with audit_file_errors("read", self._path):
            self._path.touch()
            with self._path.open("rb") as file:
                end = _end_of(lines_backwards(file))
        self._last, repair = end.last, b"" if end.has_newline else b"\n"
        if end.lost:
            lost = end.lost.removesuffix(b"\n")
            fields = {"lostBytes": len(lost), "lostSha256": sha256(lost).hexdigest(), "torn": not end.has_newline}
            self._last = entry(end.last, now_ms(), RECOVERED, fields)
            repair += to_line(self._last)
        self._write(repair)
        self._is_continued = True

    def _write(self, content: bytes) -> None:
        self._is_continued = False  # until this is on disk; else the next one reads the end of the file again
        with audit_file_errors("write", self._path), self._path.open("ab", buffering=0) as file:
            length = file.tell()
            try:
                if file.write(content) != len(content):
                    raise OSError(None, "the disk took only a part")  # noqa: TRY301 - mended as any other failure
                os.fsync(file.fileno())
                if not length:
                    flush_folder(self._path.parent)
            except OSError:
                with suppress(OSError):  # what stays is recovered by the next one
                    file.truncate(length)
                raise
        self._is_continued = True


class _End(NamedTuple):
    last: Entry | None
    lost: bytes
    has_newline: bool


def _end_of(lines: Iterable[bytes]) -> _End:
    """The last good entry, and what follows it, from lines of which the last comes first."""
    lost: list[bytes] = []
    has_newline = True
    last = None
    for number, line in enumerate(lines):
        has_newline = has_newline if number else line.endswith(b"\n")
        last = from_line(line)
        if last is not None:
            break
        lost.append(line)
    return _End(last, b"".join(reversed(lost)), has_newline)


@contextmanager
def audit_file_errors(doing: str, path: Path) -> Iterator[None]:
    """Translate what the file system says.

    Raises:
        AuditError: The file cannot be read or written.
    """
    try:
        yield
    except OSError as error:
        raise AuditError(
            what=f"cannot {doing} the audit log {path}: {error.strerror}",
            remedy="make room on its disk, or mend its permissions",
        ) from error
