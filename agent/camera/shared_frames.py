"""Frames from a capture process to its parent: shared memory, and reports about it.

The memory holds a few slots with room for one image each, and **a slot belongs to one process at a time**. At first all
belong to the child. It writes an image into one of its own and reports the slot's number. From then on the slot belongs
to the parent, which copies the image and sends the number back. Numbers travel over a socket, in order; sending and
receiving are system calls, which order the accesses to memory on every architecture. So no process reads a slot that
the other may write, no image is ever torn, and no lock can be left locked: a child that is killed while it writes has
not reported that slot. Each child has its own memory, so that one that cannot be killed does no harm.

The memory is anonymous, ends with the last process that has it, and takes room only where it was written.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import mmap
    from collections.abc import Sequence

    from calibration.imaging.preprocess import Image

TRIGGER = b"\xff"
"""From the parent, instead of a slot that it gives back: let the camera take an image now."""
SLOTS = 3
"""One being written, one being copied, and one in hand for a parent that is a little late."""
SLOT_BYTES = 128 * 1024 * 1024
MEMORY_BYTES = SLOTS * SLOT_BYTES


class FrameReport(NamedTuple):
    """A message of a capture process, as a JSON list: one for each frame that it grabs, and what becomes of its source.

    Attributes:
        kind: ``opened``; ``frame``, whose image is in ``slot``; ``superseded``, one for which no slot was free;
            ``unreadable``, one that cannot be decoded or is garbage; ``waiting``, twice a second while a camera waits
            for its trigger, and answers; ``failed``, the end.
        captured_at_ms: Wall clock, ms since 1970, UTC, right after the grab.
        captured_ns: Monotonic clock, at the same moment.
        texts: With ``opened``, the settings that were not taken; with ``failed``, what is wrong and its remedy.
        stamp: What the camera says of a ``frame``, its number and its time in ns; empty where it says nothing.
    """

    kind: Literal["opened", "frame", "superseded", "unreadable", "waiting", "failed"]
    captured_at_ms: int = 0
    captured_ns: int = 0
    slot: int = 0
    rows: int = 0
    columns: int = 0
    texts: Sequence[str] = ()
    stamp: Sequence[int] = ()


class SharedFrames:
    """The memory of `MEMORY_BYTES`, in either process."""

    def __init__(self, memory: mmap.mmap) -> None:
        self._memory = memory

    def write(self, slot: int, image: Image) -> None:
        """Copy an image of at most `SLOT_BYTES` into a slot."""
        np.copyto(self._image(slot, *image.shape[:2]), image)

    def copy(self, slot: int, rows: int, columns: int) -> Image:
        """A copy of the image in a slot."""
        copied: Image = self._image(slot, rows, columns).copy()
        return copied

    def _image(self, slot: int, rows: int, columns: int) -> Image:
        image: Image = np.ndarray((rows, columns, 3), np.uint8, self._memory, slot * SLOT_BYTES)
        return image
