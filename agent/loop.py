"""The inspection loop: camera -> part -> look -> combine and decide -> record, on one page."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent.combining import Combining
from agent.decision import State
from agent.drift.report import REMEDY
from agent.look import look

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from agent.camera import Camera, Frame
    from agent.look import Seen, View
    from agent.parts import Part
    from agent.parts.trigger import Trigger
    from agent.recipe import Recipe
    from agent.records import Alert

log = logging.getLogger(__name__)

_ONE_FRAME = Combining()


def inspect(  # noqa: PLR0913, PLR0917 - the stations of a part, in order
    camera: Camera,
    trigger: Trigger,
    recipe: Callable[[], Recipe],
    record: Callable[[Seen], None],
    heartbeat: Callable[[Seen | None], None],
    combine: Combining = _ONE_FRAME,
) -> State:
    """Give every part a verdict, until the camera ends or is stopped.

    Args:
        camera: Entered already.
        trigger: Says which frames show a part.
        recipe: What judges the next part; asked between two parts, because commands exchange it.
        record: Puts the verdict on disk before the network sees it.
        heartbeat: Called last, so that a hang anywhere above starves the watchdog; also when no part was complete.
        combine: How many frames a part has, and what they say together.

    Returns:
        The state of the alerts at the end.
    """
    state, fault = State(), None
    for views in _parts(camera, trigger, recipe, combine.frames_per_part):
        if not views:
            heartbeat(None)
            continue
        seen = combine(views, state)
        record(seen)
        _log_change(fault, seen.fault)
        _log_drift(seen.decision.drift_event)
        state, fault = seen.decision.state, seen.fault
        heartbeat(seen)
    return state


def _parts(
    camera: Camera, trigger: Trigger, recipe: Callable[[], Recipe], frames_per_part: int
) -> Iterator[list[View]]:
    """What was seen of each part; nothing wherever none is complete.

    A part has so many frames, or fewer when it is interrupted: the frame after it does not show it any more, the
    camera is lost, or the frames end.
    """
    views: list[View] = []
    for frame in camera:
        in_hand = views[0].part if views else None
        part = _part_shown(camera, trigger, frame, in_hand)
        if views and part is not in_hand:
            yield views
            views = []
        if not views:
            judging = recipe()
        if frame is not None:
            views += _looked_at(frame, part, judging)
        if len(views) == frames_per_part:
            yield views
            views = []
        else:
            yield []
    if views:
        yield views


def _part_shown(camera: Camera, trigger: Trigger, frame: Frame | None, in_hand: Part | None) -> Part | None:
    if frame is not None:
        return trigger(frame, in_hand)
    return in_hand if camera.state == "running" else None  # a slow one may yet give the next frame


def _looked_at(frame: Frame, part: Part | None, judging: Recipe) -> list[View]:
    if part is not None:
        return [look(frame, part, judging)]
    if judging.checks is not None:
        judging.checks.pass_over(frame.image)
    return []


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
