"""Hands values from a thread that cannot wait to one that must not fall behind."""

from __future__ import annotations

import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class LatestValue(Generic[T]):
    """Room for one item between two threads; a newer item replaces one that still waits."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._item: T | None = None
        self._closed = False

    def put(self, item: T) -> T | None:
        """Offer an item; never waits.

        Returns:
            The item that is lost: the one that waited, ``item`` itself after ``close``, or None.
        """
        with self._changed:
            if self._closed:
                return item
            superseded, self._item = self._item, item
            self._changed.notify()
            return superseded

    def take(self, timeout_s: float | None = None) -> T | None:
        """Wait for an item; None if none comes in time, or if closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._closed, timeout_s)
            item, self._item = self._item, None
            return item

    @property
    def is_exhausted(self) -> bool:
        """Closed and empty."""
        with self._changed:
            return self._closed and self._item is None

    def close(self) -> None:
        """Refuse further items; one that waits can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
