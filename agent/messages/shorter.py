"""Shorter forms of a message, for brokers that do not take long ones."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from agent.messages.records import to_json

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.messages.records import Payload

LEFT_OUT_FIRST: Payload = {
    "regions": [],
    "processingTimes": {},
    "figures": None,
    "drift": None,
    "recalibration": None,
    "p50": {},
    "p99": {},
    "zones": {},
}
"""The keys that a message can do without, in this order, and what they are then."""
_TEXTS = ("error", "reason", "backendReason")
_TEXT_LENGTH = 60


def shorter_forms(text: str) -> Iterator[str]:
    """A message shorter and shorter: verdicts, counts and identities stay.

    Of the regions the last ones go first.
    """
    payload: Payload = json.loads(text)
    while payload.get("regions"):
        payload["regions"] = payload["regions"][:-1]
        yield to_json(payload)
    for key, nothing in LEFT_OUT_FIRST.items():
        if payload.get(key):
            payload[key] = nothing
            yield to_json(payload)
    for key in _TEXTS:
        if isinstance(payload.get(key), str) and len(payload[key]) > _TEXT_LENGTH:
            payload[key] = payload[key][:_TEXT_LENGTH] + "..."
            yield to_json(payload)
