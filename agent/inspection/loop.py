"""The inspection loop: camera -> part -> look -> combine and decide -> record, on one page."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent.alerts.defect import State
from agent.drift.report import REMEDY
from agent.inspection.combine import FrameCombiner
from agent.inspection.score import score_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import TypeAlias

    from agent.camera import Camera, Frame
    from agent.inspection.score import PartInspection, ZoneScore
    from agent.messages.records import Alert
    from agent.trigger.part import Part
    from agent.trigger.trigger import Trigger
    from agent.zones.recipe import Recipe

    Look: TypeAlias = Sequence[ZoneScore]  # at one frame: each zone

log = logging.getLogger(__name__)

_ONE_FRAME = FrameCombiner()


def inspect(  # noqa: PLR0913, PLR0917 - the stations of a part, in order
    camera: Camera,
    trigger: Trigger,
    recipes: Callable[[], Sequence[Recipe]],
    record: Callable[[PartInspection], None],
    heartbeat: Callable[[PartInspection | None], None],
    combine: FrameCombiner = _ONE_FRAME,
) -> State:
    """Give every part a verdict, until the camera ends or is stopped.

    Args:
        camera: Entered already.
        trigger: Says which frames show a part.
        recipes: What judges the zones of the next part; asked between two parts, because commands exchange it.
        record: Puts the verdict on disk before the network sees it.
        heartbeat: Called last, so that a hang anywhere above starves the watchdog; also when no part was complete.
        combine: How many frames a part has, and what they say together.

    Returns:
        The state of the alerts at the end.
    """
    state, fault = State(), None
    for looks in _parts(camera, trigger, recipes, combine.frames_per_part):
        if not looks:
            heartbeat(None)
            continue
        seen = combine(looks, state)
        record(seen)
        _log_change(fault, seen.fault)
        _log_drift(seen.decision.drift_event)
        state, fault = seen.decision.state, seen.fault
        heartbeat(seen)
    return state


def _parts(
    camera: Camera, trigger: Trigger, recipes: Callable[[], Sequence[Recipe]], frames_per_part: int
) -> Iterator[list[Look]]:
    """What was seen of each part; nothing wherever none is complete.

    A part has so many frames, or fewer when it is interrupted: the frame after it does not show it any more, the
    camera is lost, or the frames end.
    """
    looks: list[Look] = []
    for frame in camera:
        in_hand = looks[0][0].part if looks else None
        part = _part_shown(camera, trigger, frame, in_hand)
        if looks and part is not in_hand:
            yield looks
            looks = []
        if not looks:
            judging = recipes()
        if frame is not None:
            looks += _looked_at(frame, part, judging)
        if len(looks) == frames_per_part:
            yield looks
            looks = []
        else:
            yield []
    if looks:
        yield looks


def _part_shown(camera: Camera, trigger: Trigger, frame: Frame | None, in_hand: Part | None) -> Part | None:
    if frame is not None:
        return trigger(frame, in_hand)
    return in_hand if camera.state == "running" else None  # a slow one may yet give the next frame


def _looked_at(frame: Frame, part: Part | None, judging: Sequence[Recipe]) -> list[Look]:
    if part is not None:
        return [[score_frame(frame, part, recipe) for recipe in judging]]
    for recipe in judging:
        if recipe.checks is not None:
            recipe.checks.pass_over(frame.image)
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
