"""A real broker on a free port of this machine, and a listener that hears all of it."""

from __future__ import annotations

import signal
import sys
from typing import TYPE_CHECKING

import pytest

from agent.cli import main
from tests.support.real_broker import Listener, Mosquitto, broker_in
from tests.support.stations import Outcome, teach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that is not started yet."""
    with broker_in(tmp_path / "mosquitto") as broker:
        yield broker


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Taught once for all tests; whoever changes a bundle changes a copy."""
    return teach(tmp_path_factory.mktemp("taught") / "bundle")


@pytest.fixture
def listen() -> Iterator[Callable[[int], Listener]]:
    """Makes listeners, and closes them at the end."""
    listeners: list[Listener] = []

    def make(port: int) -> Listener:
        listeners.append(Listener(port))
        return listeners[-1]

    yield make
    for listener in listeners:
        listener.close()


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Callable[..., Outcome]]:
    """Runs ``shiftwatch-agent`` as its console script does."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)}

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["shiftwatch-agent", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        return Outcome(int(ended.value.code or 0), *capfd.readouterr())

    yield run
    for number, handler in handlers.items():
        signal.signal(number, handler)
