"""Fixtures for whole stations."""

from tests.support.station_fixtures import bundle, command, listen, mosquitto

__all__ = ["bundle", "command", "listen", "mosquitto"]
