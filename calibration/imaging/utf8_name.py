"""Names of files for OpenCV, which crashes at one that is not UTF-8."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def utf8_name(path: str | Path) -> Iterator[str]:
    """The path, or another name of the same file where the path is not UTF-8; empty if that cannot be opened."""
    name = str(path)
    try:
        name.encode()
    except UnicodeEncodeError:
        with _other_name(name) as other:
            yield other
    else:
        yield name


@contextmanager
def _other_name(path: str) -> Iterator[str]:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        yield ""
        return
    try:
        yield f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)
