"""Scores one zone of one frame: check, prepare, run the network. Also the types in which results travel on."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from agent.belt.part_camera import PartFrame
from agent.frame_checks.camera_checks import FrameFault, without_measurement
from agent.messages.records import ResultCode
from agent.zones.recipe import about_zone
from calibration.errors import DatasetError, EngineError

if TYPE_CHECKING:
    from agent.alerts.defect import Decision, Verdict
    from agent.camera import Frame
    from agent.trigger.part import Part
    from agent.zones.recipe import Recipe
    from calibration.engine.contract import Inference
    from calibration.imaging.preprocess import Image, PartLocation, Region

_NAN = float("nan")
_DAMAGED = FrameFault(
    ResultCode.DAMAGED, "the frame is damaged: it ends too early, or is not what the camera announced"
)


@dataclass(frozen=True, slots=True)
class ZoneScore:
    """The score of one zone in one frame of a part.

    Attributes:
        recipe: What scored it.
        prepared: Network input; None when the frame could not be prepared.
        region: Inspected region, moved with the part; None when the frame could not be prepared.
        inference: Score and map; None when the frame could not be scored.
        code: Why it could not be scored or trusted; ``NONE`` when it could.
        fault: The same for people.
        times_ms: Duration of each stage.
    """

    frame: Frame
    part: Part
    recipe: Recipe
    prepared: Image | None
    region: Region | None
    inference: Inference | None
    code: ResultCode
    fault: str | None
    times_ms: dict[str, float]

    @property
    def score(self) -> float:
        """Squared distance; NaN when the frame could not be scored."""
        return _NAN if self.inference is None else self.inference.score


FrameScores: TypeAlias = Sequence[ZoneScore]
"""All zones of one frame."""


@dataclass(frozen=True, slots=True)
class ZoneVerdict:
    """The verdict on one zone of a part.

    Attributes:
        frame_score: The score in the decisive frame.
        code: Why the zone could not be decided; ``NONE`` when it could.
        verdict: The verdict on this zone alone.
    """

    frame_score: ZoneScore
    code: ResultCode
    verdict: Verdict

    @property
    def inference(self) -> Inference | None:
        """Score and map; None when the zone could not be decided."""
        return self.frame_score.inference if self.code is ResultCode.NONE else None

    @property
    def score(self) -> float:
        """Squared distance; NaN when the zone could not be decided."""
        return _NAN if self.inference is None else self.inference.score

    @property
    def ratio(self) -> float:
        """Score divided by threshold."""
        return self.score / self.frame_score.recipe.rules.threshold

    @property
    def fault(self) -> str | None:
        """Why the zone could not be decided, for people, if its decisive frame says so."""
        return self._about_zone(self.frame_score.fault)

    @property
    def lasting_fault(self) -> str | None:
        """The same, without what changes from frame to frame."""
        fault = self.frame_score.fault
        return self._about_zone(None if fault is None else without_measurement(self.code, fault))

    def _about_zone(self, fault: str | None) -> str | None:
        if fault is None or self.frame_score.code is not self.code:
            return None
        return about_zone(self.frame_score.recipe.zone, fault)


@dataclass(frozen=True, slots=True)
class PartInspection:
    """The result of inspecting one part.

    Attributes:
        zones: The verdict on each zone, at least one.
        decisive: The one of them that decides about the part.
        decision: Verdict, alert events and next state.
        frames: Number of frames of the part.
        times_ms: Duration of each stage so far, for the decisive frame.
    """

    result_id: str
    part: Part
    zones: tuple[ZoneVerdict, ...]
    decisive: ZoneVerdict
    decision: Decision
    frames: int = 1
    times_ms: dict[str, float] = field(default_factory=dict)

    @property
    def frame(self) -> Frame:
        """The decisive frame."""
        return self.decisive.frame_score.frame

    @property
    def recipe(self) -> Recipe:
        """The recipe of the decisive zone."""
        return self.decisive.frame_score.recipe

    @property
    def region(self) -> Region | None:
        """The inspected region of the decisive zone; None when the frame could not be prepared."""
        return self.decisive.frame_score.region

    @property
    def inference(self) -> Inference | None:
        """Score and map of the decisive zone; None when the part could not be decided."""
        return self.decisive.inference

    @property
    def code(self) -> ResultCode:
        """Why the part could not be decided; ``NONE`` when it could."""
        return self.decisive.code

    @property
    def fault(self) -> str | None:
        """Why frames, or some zone of them, cannot be inspected, for people."""
        return next((zone.fault for zone in (self.decisive, *self.zones) if zone.fault is not None), None)

    @property
    def lasting_fault(self) -> str | None:
        """The same, without what changes from frame to frame."""
        zones = (self.decisive, *self.zones)
        return next((zone.lasting_fault for zone in zones if zone.lasting_fault is not None), None)


def score_frame(frame: Frame, part: Part, recipe: Recipe) -> ZoneScore:
    """Score one zone of a frame.

    A frame that cannot be trusted is not scored: the score of a blocked view says nothing about the part.
    """
    stages, image, checks = _Stages(), frame.image, recipe.checks
    if frame.is_damaged:
        return ZoneScore(frame, part, recipe, None, None, None, *_DAMAGED, stages.times_ms(frame.captured_ns))
    if isinstance(frame, PartFrame) and frame.code is not ResultCode.NONE:  # no fault of the camera
        return ZoneScore(frame, part, recipe, None, None, None, frame.code, None, stages.times_ms(frame.captured_ns))
    place: PartLocation | None = None
    prepared: Image | None = None
    inference: Inference | None = None
    try:
        place = recipe.preprocess.locate(image)
        prepared = recipe.preprocess.network_input(image, place.region)
        stages.end("preprocess")
        fault = None if checks is None else checks.of_frame(image) or checks.of_input(prepared, place)
        stages.end("checks")
        if fault is None:
            inference = recipe.engine(prepared)
            if not math.isfinite(inference.score):
                text = f"{recipe.engine.backend} gave the score {inference.score}"
                fault = FrameFault(ResultCode.ENGINE_FAULT, text)
    except DatasetError as error:
        fault = FrameFault(ResultCode.FRAME_UNUSABLE, str(error))
    except EngineError as error:
        fault = FrameFault(ResultCode.ENGINE_FAULT, str(error))
    stages.end("inference")
    code, reason = fault or (ResultCode.NONE, None)
    region = None if place is None else place.region
    return ZoneScore(frame, part, recipe, prepared, region, inference, code, reason, stages.times_ms(frame.captured_ns))


class _Stages:
    """Duration of each stage; one that did not happen took no time."""

    def __init__(self) -> None:
        self._began_ns = self._last_ns = time.monotonic_ns()
        self._spent_ns = {"checks": 0, "preprocess": 0, "inference": 0}

    def end(self, stage: str) -> None:
        now_ns = time.monotonic_ns()
        self._spent_ns[stage] = now_ns - self._last_ns
        self._last_ns = now_ns

    def times_ms(self, captured_ns: int) -> dict[str, float]:
        return {
            "waiting": (self._began_ns - captured_ns) / 1e6,
            **{stage: spent_ns / 1e6 for stage, spent_ns in self._spent_ns.items()},
            "total": (self._last_ns - captured_ns) / 1e6,
        }
