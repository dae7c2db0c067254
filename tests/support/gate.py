from __future__ import annotations

import threading


class Gate:
    """Jitter that keeps a speaker from its next attempt until the test opens it."""

    def __init__(self) -> None:
        self.reached = threading.Event()
        self.open = threading.Event()

    def __call__(self) -> float:
        self.reached.set()
        assert self.open.wait(10)
        return 0.0
