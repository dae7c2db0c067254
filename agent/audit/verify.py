"""Verifies that an audit log is unchanged, or finds the first line that is not."""

from __future__ import annotations

from dataclasses import dataclass, replace
from hashlib import sha256
from typing import TYPE_CHECKING, Literal, TypeAlias

from agent.audit.entry import BEGINNING, RECOVERED, ROTATED, Entry, older_file, parse_line
from agent.audit.log import audit_file_errors
from calibration.atomic_file import open_regular

if TYPE_CHECKING:
    from pathlib import Path

Reason: TypeAlias = Literal["changed", "removed", "inserted", "reordered", "torn"]


@dataclass(frozen=True, slots=True)
class Break:
    """A break in the chain: line number, from 1 in the older file, and what happened to the line."""

    line: int
    reason: Reason
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """The result of reading the whole log.

    Attributes:
        entries: Number of undamaged lines.
        first_ms: Time of the first entry; None without entries.
        last_ms: Time of the last entry; None without entries.
        recoveries: Number of power cuts after which the log continued without other damage.
        broken: The first break in the chain; None if there is none.
        older_lines: Number of lines in the older file; 0 without one.
        removed: Number of the oldest entries, which were removed when the files were full.
        head_found: Whether the log has the entry with the given hash; None if no hash was given.
    """

    entries: int
    first_ms: int | None
    last_ms: int | None
    recoveries: int
    broken: Break | None
    head_found: bool | None
    older_lines: int = 0
    removed: int = 0

    @property
    def is_sound(self) -> bool:
        """Whether nothing is wrong."""
        return self.broken is None and self.head_found is not False


def verify(path: Path, head: str | None = None) -> Findings:
    """Check the whole log, and whether it has the entry with the hash ``head``, which was kept elsewhere.

    Without such a hash, entries cut off the end are not noticed.

    Raises:
        AuditError: The file cannot be read.
    """
    older, number = older_file(path), 0
    verifier = _Verifier(head, has_older=older.exists())
    for each in (older, path) if older.exists() else (path,):
        older_lines = number
        with audit_file_errors("read", each), open_regular(each) as file:
            for number, line in enumerate(file, number + 1):  # noqa: B020 - goes on in the next file
                verifier.add_line(number, line)
    return replace(verifier.findings(), older_lines=older_lines)


class _DamagedLines:
    """Successive lines that hold no entry."""

    def __init__(self, first: int) -> None:
        self.first = first
        self.lines = 0
        self.has_newline = True
        self._bytes = 0
        self._hash = sha256()

    def add(self, line: bytes) -> None:
        if self.lines:
            self._take(b"\n")
        self._take(line.removesuffix(b"\n"))
        self.lines += 1
        self.has_newline = line.endswith(b"\n")

    def is_described_by(self, entry: Entry) -> bool:
        description = (entry.event, entry.fields.get("lostBytes"), entry.fields.get("lostSha256"))
        return description == (RECOVERED, self._bytes, self._hash.hexdigest())

    def _take(self, part: bytes) -> None:
        self._bytes += len(part)
        self._hash.update(part)


class _Verifier:
    """Follows the chain from the first line to the last."""

    def __init__(self, head: str | None, *, has_older: bool = False) -> None:
        self._head = head
        self._has_older = has_older
        self._removed: Entry | None = None  # the first entry, if entries before it were removed
        self._is_removal_confirmed = False
        self._head_found = False
        self._entries = self._recoveries = 0
        self._first_ms: int | None = None
        self._last: Entry | None = None
        self._damaged: _DamagedLines | None = None
        self._broken: Break | None = None
        self._missed: str | None = None  # hash before a gap: the missing entry may have been moved

    def add_line(self, number: int, line: bytes) -> None:
        """Check the next line, numbered from 1."""
        found = parse_line(line) if line.endswith(b"\n") else None
        if found is None:
            self._damaged = self._damaged or _DamagedLines(number)
            self._damaged.add(line)
            return
        self._check_damage(number, found)
        self._check_link(number, found)
        self._entries += 1
        self._head_found = self._head_found or found.hash == self._head
        self._first_ms = found.time_ms if self._first_ms is None else self._first_ms
        self._last, self._damaged = found, None

    def findings(self) -> Findings:
        """The result after the last line."""
        if self._damaged is not None and self._damaged.lines == 1 and not self._damaged.has_newline:
            meaning = "the last line is incomplete: the power failed, the disk was full, or the file was cut. "
            meaning += "At its next start the agent records this and continues"
            self._break(self._damaged.first, "torn", meaning)
        elif self._damaged is not None:
            self._break(self._damaged.first, "changed", "the line is not as it was written")
        if self._removed is not None and not self._is_removal_confirmed:
            self._broken = Break(1, "removed", f"{self._removed.seq - 1} entries before this line are missing")
        return Findings(
            entries=self._entries,
            first_ms=self._first_ms,
            last_ms=None if self._last is None else self._last.time_ms,
            recoveries=self._recoveries,
            broken=self._broken,
            head_found=None if self._head is None else self._head_found,
            removed=0 if self._removed is None else self._removed.seq - 1,
        )

    def _check_damage(self, number: int, found: Entry) -> None:
        damaged = self._damaged
        if damaged is None:
            if found.event == RECOVERED:
                self._break(number, "removed", "the half-written line that it describes is missing")
        elif not damaged.is_described_by(found):
            self._break(damaged.first, "changed", "the line is not as it was written")
        elif found.fields.get("torn") is True and damaged.lines == 1:
            self._recoveries += 1
        else:
            meaning = "the line was damaged by more than a power cut when the agent started"
            self._break(damaged.first, "changed", meaning)

    def _check_link(self, number: int, found: Entry) -> None:
        if self._last is None and self._has_older and found.seq > 1:
            self._removed = found
            return
        if self._removed is not None and found.event == ROTATED:
            beginning = {"oldest": self._removed.seq, "oldestPrevious": self._removed.previous}
            self._is_removal_confirmed = self._is_removal_confirmed or found.fields == beginning
        seq, previous = (0, BEGINNING) if self._last is None else (self._last.seq, self._last.hash)
        if self._broken is not None:
            if self._missed is not None and found.previous == self._missed:
                self._broken = Break(self._broken.line, "reordered", f"the entry that belongs here is in line {number}")
                self._missed = None
        elif found.seq > seq + 1:
            self._missed = previous
            self._break(number, "removed", f"{found.seq - seq - 1} entries before this line are missing")
        elif found.seq <= seq:
            meaning = f"this line or the one before does not belong here: number {found.seq} appears again"
            self._break(number, "inserted", meaning)
        elif found.previous != previous:
            self._break(number, "changed", "this line or the one before was changed, and given a new hash")

    def _break(self, line: int, reason: Reason, meaning: str) -> None:
        if self._broken is None:
            self._broken = Break(line, reason, meaning)
