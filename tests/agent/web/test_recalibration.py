"""What the page's process remembers of a recalibration."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from agent.web.recalibration import Recalibration

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.messages.records import Payload


def answers(_: str, __: Payload) -> Iterator[Payload]:
    yield {"accepted": True, "progress": 0.0, "error": None}
    yield {"accepted": True, "progress": 1.0, "error": None}


def completed(recalibration: Recalibration, arguments: Payload) -> Payload:
    """The first answer, once all have come."""
    first = recalibration.start(arguments)
    for thread in threading.enumerate():
        if thread.name == "recalibration":
            thread.join()
    return first


def test_the_end_of_a_recalibration_is_remembered() -> None:
    recalibration = Recalibration(answers)
    assert completed(recalibration, {})["progress"] == 0
    assert recalibration.ended()["isActive"] is True


def test_the_answer_to_a_cancellation_is_not_how_the_recalibration_ended() -> None:
    recalibration = Recalibration(answers)
    before = recalibration.ended()
    assert completed(recalibration, {"cancel": True})["progress"] == 0
    assert recalibration.ended() == before
