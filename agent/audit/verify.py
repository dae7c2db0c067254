"""Proof that an audit log is as it was written, or the first place where it is not."""

from __future__ import annotations

from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Literal, TypeAlias

from agent.audit.entry import BEGINNING, RECOVERED, Entry, from_line
from agent.audit.log import audit_file_errors

if TYPE_CHECKING:
    from pathlib import Path

Reason: TypeAlias = Literal["changed", "removed", "inserted", "reordered", "torn"]


@dataclass(frozen=True, slots=True)
class Break:
    """Where the chain does not hold.

    Attributes:
        line: Number in the file, from 1.
        reason: What happened to the line.
        meaning: The same in a sentence.
    """

    line: int
    reason: Reason
    meaning: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Findings:
    """What a walk over the whole log found.

    Attributes:
        entries: Lines that hold what they were written with.
        first_ms: Time of the first; None without any.
        last_ms: Time of the last.
        recoveries: Power cuts that the log was continued after, nothing else being wrong there.
        broken: The first place where the chain does not hold; None where it does.
        head_found: Whether the log has the entry asked for; None when none was.
    """

    entries: int
    first_ms: int | None
    last_ms: int | None
    recoveries: int
    broken: Break | None
    head_found: bool | None

    @property
    def is_sound(self) -> bool:
        """Nothing is wrong with it."""
        return self.broken is None and self.head_found is not False


def verify(path: Path, head: str | None = None) -> Findings:
    """Walk over the whole log, a line at a time.

    Args:
        path: Of the log.
        head: Hash of an entry that somebody wrote down; only this shows that entries were cut off the end.

    Raises:
        AuditError: The file cannot be read.
    """
    walk = _Walk(head)
    with audit_file_errors("read", path), path.open("rb") as file:
        for number, line in enumerate(file, 1):
            walk.pass_line(number, line)
    return walk.findings()


class _Lost:
    """Lines in a row that hold no entry."""

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

    def is_told_by(self, entry: Entry) -> bool:
        told = (entry.event, entry.fields.get("lostBytes"), entry.fields.get("lostSha256"))
        return told == (RECOVERED, self._bytes, self._hash.hexdigest())

    def _take(self, part: bytes) -> None:
        self._bytes += len(part)
        self._hash.update(part)


class _Walk:
    """Over the lines of a log, from the first to the last."""

    def __init__(self, head: str | None) -> None:
        self._head = head
        self._head_found = False
        self._entries = self._recoveries = 0
        self._first_ms: int | None = None
        self._last: Entry | None = None
        self._lost: _Lost | None = None
        self._broken: Break | None = None
        self._missed: str | None = None  # hash before the gap: what follows it may have been moved

    def pass_line(self, number: int, line: bytes) -> None:
        """The next line, numbered from 1."""
        found = from_line(line) if line.endswith(b"\n") else None
        if found is None:
            self._lost = self._lost or _Lost(number)
            self._lost.add(line)
            return
        self._look_at_lost(number, found)
        self._look_at_link(number, found)
        self._entries += 1
        self._head_found = self._head_found or found.hash == self._head
        self._first_ms = found.time_ms if self._first_ms is None else self._first_ms
        self._last, self._lost = found, None

    def findings(self) -> Findings:
        """When all lines have passed."""
        if self._lost is not None and self._lost.lines == 1 and not self._lost.has_newline:
            self._break(
                self._lost.first,
                "torn",
                "the last line ends in its middle: the power was cut, the disk was full, or somebody cut it. "
                "The agent's next start notes it and goes on",
            )
        elif self._lost is not None:
            self._break(self._lost.first, "changed", "the line is not as it was written")
        return Findings(
            entries=self._entries,
            first_ms=self._first_ms,
            last_ms=None if self._last is None else self._last.time_ms,
            recoveries=self._recoveries,
            broken=self._broken,
            head_found=None if self._head is None else self._head_found,
        )

    def _look_at_lost(self, number: int, found: Entry) -> None:
        lost = self._lost
        if lost is None:
            if found.event == RECOVERED:
                self._break(number, "removed", "the half-written line that it speaks of is not before it")
        elif not lost.is_told_by(found):
            self._break(lost.first, "changed", "the line is not as it was written")
        elif found.fields.get("torn") is True and lost.lines == 1:
            self._recoveries += 1
        else:
            self._break(lost.first, "changed", "the line was damaged when the agent started, by more than a power cut")

    def _look_at_link(self, number: int, found: Entry) -> None:
        seq, previous = (0, BEGINNING) if self._last is None else (self._last.seq, self._last.hash)
        if self._broken is not None:
            if self._missed is not None and found.previous == self._missed:
                self._broken = Break(self._broken.line, "reordered", f"what belongs here stands in line {number}")
                self._missed = None
        elif found.seq > seq + 1:
            self._missed = previous
            self._break(number, "removed", f"{found.seq - seq - 1} entries before this line are missing")
        elif found.seq <= seq:
            self._break(
                number, "inserted", f"this line or the one before does not belong here: number {found.seq} again"
            )
        elif found.previous != previous:
            self._break(number, "changed", "this line or the one before was changed, and given a new hash")

    def _break(self, line: int, reason: Reason, meaning: str) -> None:
        if self._broken is None:
            self._broken = Break(line, reason, meaning)
