"""The broker, the bundle and the listeners of tests/agent, for tests that break things."""

from __future__ import annotations

import importlib.util
from pathlib import Path

_AGENT_TESTS = Path(__file__).resolve().parents[1] / "agent"
_specification = importlib.util.spec_from_file_location("agent_fixtures", _AGENT_TESTS / "conftest.py")
assert _specification is not None
assert _specification.loader is not None
_fixtures = importlib.util.module_from_spec(_specification)
_specification.loader.exec_module(_fixtures)
mosquitto, bundle, listen = _fixtures.mosquitto, _fixtures.bundle, _fixtures.listen
