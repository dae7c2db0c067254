"""Fixtures for the agent."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from tests.support.station_fixtures import bundle, command, listen, mosquitto

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["bundle", "command", "listen", "mosquitto"]


@pytest.fixture
def use_zone() -> Iterator[Callable[[str], None]]:
    """Sets the time zone of this process until the end of the test."""
    with pytest.MonkeyPatch.context() as patch:

        def use(zone: str) -> None:
            patch.setenv("TZ", zone)
            time.tzset()

        yield use
    time.tzset()
