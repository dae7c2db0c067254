"""A real broker on a free port of this machine, and a listener that hears all of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from real_broker import Listener, Mosquitto, mosquitto_binary
from stations import teach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that is not started yet."""
    binary = mosquitto_binary()
    if binary is None:
        message = "mosquitto is not installed: apt-get install mosquitto"
        if os.environ.get("CI"):
            pytest.fail(message)
        pytest.skip(message)
    folder = tmp_path / "mosquitto"
    folder.mkdir()
    broker = Mosquitto(binary, folder)
    yield broker
    broker.stop()


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
