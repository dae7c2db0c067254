"""A station in a thread of this process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from agent.config.model import load
from agent.station.run import Stop, Summary, run_station
from tests.support.stations import PATIENCE_S

if TYPE_CHECKING:
    from pathlib import Path


class Running:
    """A station in a thread of its own, stopped at the latest at the end of the test."""

    def __init__(self, config: Path, stop: Stop | None = None) -> None:
        self.stop = stop or Stop()
        self.summary: Summary | None = None
        self.failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(config,), daemon=True)
        self._thread.start()

    def _run(self, config: Path) -> None:
        try:
            self.summary = run_station(load(config), self.stop)
        except Exception as error:  # noqa: BLE001 - told by `end`
            self.failure = error

    def end(self) -> Summary:
        self.stop.request()
        return self.wait()

    def wait(self) -> Summary:
        """Until it ends by itself."""
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive()
        if self.failure is not None:
            raise self.failure
        assert self.summary is not None
        return self.summary
