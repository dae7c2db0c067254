"""What goes wrong in a plant, on purpose: power, disk, broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from real_broker import Listener, Mosquitto, broker_in
from stations import teach

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that is not started yet."""
    with broker_in(tmp_path / "mosquitto") as broker:
        yield broker


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


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of the good parts that `stations` draws."""
    return teach(tmp_path_factory.mktemp("taught") / "bundle")
