"""The inspection loop: camera -> part -> score -> decide -> record, on one page."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent.decision import State
from agent.drift.report import REMEDY
from agent.look import look

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.camera import Camera
    from agent.look import Seen
    from agent.parts.trigger import Trigger
    from agent.recipe import Recipe
    from agent.records import Alert

log = logging.getLogger(__name__)


def inspect(
    camera: Camera,
    trigger: Trigger,
    recipe: Callable[[], Recipe],
    record: Callable[[Seen], None],
    heartbeat: Callable[[Seen | None], None],
) -> State:
    """Give every part a verdict, until the camera ends or is stopped.

    Args:
        camera: Entered already.
        trigger: Says which frames show a part.
        recipe: What judges the next frame; asked between two frames, because commands exchange it.
        record: Puts the verdict on disk before the network sees it.
        heartbeat: Called last, so that a hang anywhere above starves the watchdog; also when there was nothing to see.

    Returns:
        The state of the alerts at the end.
    """
    state, fault = State(), None
    for frame in camera:
        judging = recipe()
        part = None if frame is None else trigger(frame)
        if frame is None or part is None:
            if frame is not None and judging.checks is not None:
                judging.checks.pass_over(frame.image)
            heartbeat(None)
            continue
        seen = look(frame, part, judging, state)
        record(seen)
        _log_change(fault, seen.fault)
        _log_drift(seen.decision.drift_event)
        state, fault = seen.decision.state, seen.fault
        heartbeat(seen)
    return state


def _log_change(before: str | None, now: str | None) -> None:
    """Say once that frames cannot be judged, and once that they can again."""
    if now is not None and before is None:
        log.error("frames cannot be judged: %s", now)
    elif now is None and before is not None:
        log.info("frames can be judged again")


def _log_drift(event: Alert | None) -> None:
    if event is not None and event.type == "end":
        log.info("%s: it is gone", event.cause)
    elif event is not None:
        log.warning("%s; rejects of good parts may rise: %s", event.cause, REMEDY)
