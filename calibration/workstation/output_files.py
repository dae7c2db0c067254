"""Files that the commands write, with one message for all that can go wrong."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from calibration.errors import StorageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@contextmanager
def accessible(path: Path, option: str, action: str = "write") -> Iterator[None]:
    """Turn errors of reading or writing a file or folder into StorageError; ``option`` is how to name another."""
    try:
        yield
    except (OSError, UnicodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text in UTF-8"
        raise StorageError(
            what=f"cannot {action} {path.absolute()}: {reason}", remedy=f"give another location with {option}"
        ) from error
