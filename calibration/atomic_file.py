"""Writes files so that a power cut leaves either the old content or the new."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def replace_file(path: Path, content: bytes) -> None:
    """Replace a file's content; it is on disk when this returns. Not for concurrent writers.

    Raises:
        OSError: Writing failed; the old content is kept, and no partial file is left.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        write_flushed(part, content)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    flush_folder(path.parent)


def write_flushed(path: Path, content: bytes) -> None:
    """Write a file. Its content is on disk when this returns, its name after ``flush_folder``."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def flush_folder(path: Path) -> None:
    """Flush a folder: created, renamed and removed names are on disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
