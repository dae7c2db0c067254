"""Times in the addresses that browsers ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

LATEST_MS = 2**53


def time_in(asked: Mapping[str, str], name: str, default_ms: int) -> int:
    """The time of that name in a query, in ms since 1970; the default if it is absent or empty.

    Raises:
        ValueError: It is not a time from 0 to `LATEST_MS`.
    """
    time_ms = int(asked.get(name) or default_ms)
    if not 0 <= time_ms <= LATEST_MS:
        message = f"{time_ms} is not a time in ms since 1970"
        raise ValueError(message)
    return time_ms
