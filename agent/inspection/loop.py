"""The inspection loop on one page: camera -> trigger -> score -> combine and decide -> record -> heartbeat."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from agent.alerts.defect import State
from agent.inspection.combine import FrameCombiner
from agent.inspection.fault_log import FaultLog
from agent.inspection.score import score_frame

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from agent.camera import Camera, Frame
    from agent.inspection.score import FrameScores, PartInspection
    from agent.trigger.part import Part
    from agent.trigger.trigger import Trigger
    from agent.zones.recipe import Recipe

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
        trigger: Decides which frames show a part.
        recipes: The recipe of each zone for the next part; called between two parts, when bundles may be swapped.
        record: Puts the verdict on disk before the network sees it.
        heartbeat: Called last, so that a hang anywhere above starves the watchdog; with None when no part was complete.
        combine: Makes one verdict of the frames of a part.

    Returns:
        The state of the alerts at the end.
    """
    state, faults = State(), FaultLog()
    for frames in _parts(camera, trigger, recipes, combine.frames_per_part):
        if not frames:
            heartbeat(None)
            continue
        inspection = combine(frames, state)
        record(inspection)
        faults.note(inspection.fault, inspection.frame.captured_ns)
        _log_drift(inspection)
        state = inspection.decision.state
        heartbeat(inspection)
    return state


def _parts(
    camera: Camera, trigger: Trigger, recipes: Callable[[], Sequence[Recipe]], frames_per_part: int
) -> Iterator[list[FrameScores]]:
    """The scored frames of each part, and an empty list for each frame that completes none.

    A part has fewer than ``frames_per_part`` frames if the next frame no longer shows it, the camera is lost, or the
    frames end.
    """
    part: Part | None = None
    scored: list[FrameScores] = []
    active: Sequence[Recipe] = ()
    for frame in camera:
        previous, part = part, _part_in(frame, part, trigger, camera)
        if scored and part is not previous:
            yield scored
            scored = []
        if not scored:
            active = recipes()
        if frame is not None:
            scored += _scores(frame, part, active)
        if len(scored) == frames_per_part:
            yield scored
            part, scored = None, []
        else:
            yield []
    if scored:
        yield scored


def _part_in(frame: Frame | None, current: Part | None, trigger: Trigger, camera: Camera) -> Part | None:
    if frame is not None:
        return trigger(frame, current)
    return current if camera.state == "running" else None  # a camera that is only slow may still show the part


def _scores(frame: Frame, part: Part | None, active: Sequence[Recipe]) -> list[FrameScores]:
    if part is not None:
        return [[score_frame(frame, part, recipe) for recipe in active]]
    for recipe in () if frame.is_damaged else active:
        recipe.pass_over(frame.image)
    return []


def _log_drift(inspection: PartInspection) -> None:
    """Log drift once when it appears, and once when it is gone."""
    event = inspection.decision.drift_event
    if event is not None and event.type == "end":
        log.info("%s: it is gone", event.cause)
    elif event is not None:
        recipes = [zone.frame_score.recipe for zone in inspection.zones]
        reports = [each.drift.report for each in recipes if each.drift is not None and each.drift.report.cause]
        log.warning("%s; %s", event.cause, reports[0].remedy)
