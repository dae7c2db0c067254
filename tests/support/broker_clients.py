"""What the tests of both clients, the plain one and Sparkplug, have in common."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Any

from agent.messages.records import DefectRegion, Evaluation, Result, to_json

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pytest

    from agent.inspection.recorder import Store


def put_results(store: Store, numbers: Iterable[int], topic: str = "plant/result") -> list[str]:
    """Store a result for each number, which is its ``seq`` and its time; returns their identities."""
    results = [
        Result(seq=number, part_id=None, created_at_ms=number, evaluation=Evaluation.OK, score=1.0, threshold=2.0)
        for number in numbers
    ]
    for result in results:
        store.put("result", result.record_id, topic, to_json(result.payload()), result.created_at_ms)
    return [result.record_id for result in results]


def put_reject(
    store: Store, number: int, part_id: str | None = None, regions: int = 8, topic: str = "plant/result"
) -> str:
    """Store a result with this many regions, the worst first; returns its identity."""
    result = Result(
        seq=number,
        part_id=part_id,
        created_at_ms=number,
        evaluation=Evaluation.NOT_OK,
        score=9.0,
        threshold=2.0,
        regions=tuple(DefectRegion(index, 20, 30, 40, 9.0 - index) for index in range(regions)),
    )
    store.put("result", result.record_id, topic, to_json(result.payload()), number)
    return result.record_id


def remember_connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The connections that clients make from now on, in order."""
    connections: list[Any] = []
    real_connect = sys.modules["agent.mqtt.client_thread"].connect

    def connect(*arguments: object) -> object:
        connections.append(real_connect(*arguments))
        return connections[-1]

    monkeypatch.setattr("agent.mqtt.client_thread.connect", connect)
    return connections
