"""What libjpeg prints while it decodes a frame: some of it says that the frame is damaged, none of it is for a log."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

_STDERR = 2
_DAMAGE = (b"premature end", b"bad Huffman code")
"""Not ``extraneous bytes``, which many cheap cameras send in every frame, and which change no pixel."""
_LONGEST = 4096


class DecoderWarnings:
    """Takes stderr from enter to exit, as often as needed; for a process with one thread.

    Attributes:
        is_damaged: Whether the last frame was, by what was printed.
    """

    def __init__(self) -> None:
        self.is_damaged = False
        self._stderr = os.dup(_STDERR)
        self._printed = os.memfd_create("decoder warnings", os.MFD_CLOEXEC)

    def __enter__(self) -> Self:
        """Take stderr."""
        self.is_damaged = False
        os.dup2(self._printed, _STDERR)
        return self

    def __exit__(self, *_: object) -> None:
        """Give stderr back."""
        os.dup2(self._stderr, _STDERR)
        if os.fstat(self._printed).st_size:
            text = os.pread(self._printed, _LONGEST, 0)
            self.is_damaged = any(words in text for words in _DAMAGE)
            os.ftruncate(self._printed, 0)
            os.lseek(self._printed, 0, os.SEEK_SET)
