"""Writes files so that a power cut leaves either the old content or the new."""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING, BinaryIO

if TYPE_CHECKING:
    from pathlib import Path


def replace_file(path: Path, content: bytes, mode: int | None = None, owner: tuple[int, int] | None = None) -> None:
    """Replace a file's content; it is on disk when this returns. Not for concurrent writers.

    Args:
        path: A link of this name is replaced, not followed.
        content: The new content.
        mode: Permissions of the file; None leaves them to the process (its umask).
        owner: User and group of the file; None: those of the process.

    Raises:
        OSError: Writing failed; the old content is kept, and no partial file is left.
    """
    part = path.with_name(f".{path.name}.part")
    part.unlink(missing_ok=True)  # left by a power cut
    try:
        write_flushed(part, content, mode, owner)
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)
    flush_folder(path.parent)


def write_flushed(path: Path, content: bytes, mode: int | None = None, owner: tuple[int, int] | None = None) -> None:
    """Write a new file. Its content is on disk when this returns, its name after ``flush_folder``.

    Until all of it is written, a file with a ``mode`` is readable by nobody else.

    Raises:
        OSError: The disk refuses, or the name is taken, also by a link.
    """
    with open(create_exclusively(path, 0o666 if mode is None else 0o600), "wb") as file:
        file.write(content)
        if owner is not None:
            os.fchown(file.fileno(), *owner)
        if mode is not None:
            os.fchmod(file.fileno(), mode)
        file.flush()
        os.fsync(file.fileno())


def create_exclusively(path: Path | str, mode: int, folder: int | None = None) -> int:
    """A descriptor for writing to a new file; the path may be below an open folder.

    Raises:
        OSError: The disk refuses, or the name is taken, also by a link.
    """
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode, dir_fd=folder)


def open_regular(path: Path, flags: int = 0) -> BinaryIO:
    """Open a file for reading; a pipe, which would wait for a writer, or a device, which may never end, is refused.

    Raises:
        OSError: It cannot be read, or is none of the usual files.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | flags)
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return open(descriptor, "rb")  # noqa: PTH123 - a descriptor
    os.close(descriptor)
    raise OSError(errno.EINVAL, "not a regular file", str(path))


def flush_folder(path: Path) -> None:
    """Flush a folder: created, renamed and removed names are on disk when this returns."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
