"""What goes wrong in a plant, on purpose: power, disk, broker."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from real_broker import Mosquitto, broker_in

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def mosquitto(tmp_path: Path) -> Iterator[Mosquitto]:
    """A broker that is not started yet."""
    with broker_in(tmp_path / "mosquitto") as broker:
        yield broker
