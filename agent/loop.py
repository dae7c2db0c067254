"""The inspection loop: camera -> score -> decide -> record, on one page."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent.decision import State
from agent.look import look

if TYPE_CHECKING:
    from collections.abc import Callable

    from agent.camera import Camera
    from agent.decision import Rules
    from agent.look import Seen
    from calibration.engine import Engine
    from calibration.preprocess import Preprocess

log = logging.getLogger(__name__)


def inspect(  # noqa: PLR0913, PLR0917 - the parts of an agent, each once
    camera: Camera,
    preprocess: Preprocess,
    engine: Engine,
    rules: Rules,
    record: Callable[[Seen], None],
    heartbeat: Callable[[Seen], None],
) -> State:
    """Give every frame a verdict, until the camera ends or is stopped.

    Args:
        camera: Entered already.
        preprocess: Of the bundle.
        engine: Entered already.
        rules: When a score is a defect.
        record: Puts the verdict on disk before the network sees it.
        heartbeat: Called last, so that a hang anywhere above starves the watchdog.

    Returns:
        The state of the alerts at the end.
    """
    state, fault = State(), None
    for frame in camera:
        seen = look(frame, preprocess, engine, rules, state)
        record(seen)
        _log_change(fault, seen.fault)
        state, fault = seen.decision.state, seen.fault
        heartbeat(seen)
    return state


def _log_change(before: str | None, now: str | None) -> None:
    """Say once that frames cannot be judged, and once that they can again."""
    if now is not None and before is None:
        log.error("frames cannot be judged: %s", now)
    elif now is None and before is not None:
        log.info("frames can be judged again")
