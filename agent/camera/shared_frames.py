"""Pictures from a capture process to its parent: memory that both see, and messages about it.

The memory holds some slots with room for one picture each, and **a slot belongs to one process at a time**. At first
all are the child's. It writes a picture into one of its own and tells the slot's number; from then on the slot is the
parent's, who copies the picture and gives the number back. Numbers travel as messages over a socket, in order, and
sending and receiving are system calls, which order the accesses to memory on every architecture. So nobody reads a slot
that the other may write, no picture is ever torn, and no lock can be left locked: a child that is killed while it
writes has not told of that slot. Each child has a memory of its own, so that one which cannot be killed does no harm.

The memory is anonymous, ends with the last process that has it, and takes room only where it was written.
"""

from __future__ import annotations

import json
import mmap
import os
from typing import TYPE_CHECKING, Literal, NamedTuple, TypeAlias

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibration.imaging.preprocess import Image

SLOTS = 3
"""One that is written, one that is copied, and one in hand for a parent that is a little late."""
SLOT_BYTES = 128 * 1024 * 1024
LONGEST_MESSAGE_BYTES = 65_536

Kind: TypeAlias = Literal["opened", "frame", "superseded", "unreadable", "failed"]


class FrameReport(NamedTuple):
    """What a capture process tells: of each frame that it grabs one message, and what becomes of its source.

    Attributes:
        kind: ``opened``; ``frame``, whose picture is in ``slot``; ``superseded``, one for which no slot was free;
            ``unreadable``, one that cannot be decoded or is garbage; ``failed``, the end.
        captured_at_ms: Wall clock, ms since 1970, UTC, right after the grab.
        captured_ns: Monotonic clock, as above.
        rows: Of the picture.
        columns: Of the picture.
        texts: Of ``opened``, the settings that were not taken; of ``failed``, what is wrong and its remedy.
    """

    kind: Kind
    captured_at_ms: int = 0
    captured_ns: int = 0
    slot: int = 0
    rows: int = 0
    columns: int = 0
    texts: Sequence[str] = ()

    def as_bytes(self) -> bytes:
        """One message."""
        return json.dumps(self).encode()

    @classmethod
    def from_bytes(cls, message: bytes) -> FrameReport:
        """The opposite of ``as_bytes``."""
        return cls(*json.loads(message))


class SharedFrames:
    """The memory, in either process.

    Args:
        descriptor: Of `new_memory`; may be closed afterwards.
    """

    def __init__(self, descriptor: int) -> None:
        self._memory = mmap.mmap(descriptor, SLOTS * SLOT_BYTES)

    def write(self, slot: int, image: Image) -> None:
        """Copy a picture, at most `SLOT_BYTES`, into a slot."""
        np.copyto(self._picture(slot, *image.shape[:2]), image)

    def copy(self, slot: int, rows: int, columns: int) -> Image:
        """The picture in a slot, as a copy of its own."""
        copied: Image = self._picture(slot, rows, columns).copy()
        return copied

    def close(self) -> None:
        """Let go of the memory."""
        self._memory.close()

    def _picture(self, slot: int, rows: int, columns: int) -> Image:
        picture: Image = np.ndarray((rows, columns, 3), np.uint8, self._memory, slot * SLOT_BYTES)
        return picture


def new_memory() -> int:
    """The descriptor of a memory for `SharedFrames`, to be closed by the caller; OSError where there is no room."""
    descriptor = os.memfd_create("shiftwatch-frames")
    try:
        os.truncate(descriptor, SLOTS * SLOT_BYTES)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor
