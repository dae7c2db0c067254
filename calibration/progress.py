"""How a long step reports its progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, int, int], None]
"""Receives (step, done, total): the name of the step, and how many of its units are complete."""


def silent(_step: str, _done: int, _total: int) -> None:
    """Show no progress."""
