"""Fixtures for tests that break things."""

from tests.support.station_fixtures import bundle, command, listen, mosquitto

__all__ = ["bundle", "command", "listen", "mosquitto"]
