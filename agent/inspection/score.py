"""One zone of one frame: checked, prepared, scored; and what such views say of a part."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

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


@dataclass(frozen=True, slots=True)
class ZoneScore:
    """One zone of one frame of a part.

    Attributes:
        recipe: What scored it.
        prepared: Network input; None when the frame could not be prepared.
        region: What was inspected, where the part lay; None likewise.
        inference: Score and map; None when the frame could not be scored.
        code: Why not; ``NONE`` when it could.
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
        return float("nan") if self.inference is None else self.inference.score


@dataclass(frozen=True, slots=True)
class ZoneVerdict:
    """One zone of a part.

    Attributes:
        view: The decisive one.
        code: Why it could not be decided; ``NONE`` when it could.
        verdict: On this zone alone.
    """

    view: ZoneScore
    code: ResultCode
    verdict: Verdict

    @property
    def inference(self) -> Inference | None:
        """Score and map; None when the zone could not be decided."""
        return self.view.inference if self.code is ResultCode.NONE else None

    @property
    def score(self) -> float:
        """Squared distance; NaN when the zone could not be decided."""
        return float("nan") if self.inference is None else self.inference.score

    @property
    def ratio(self) -> float:
        """Score by threshold."""
        return self.score / self.view.recipe.rules.threshold

    @property
    def fault(self) -> str | None:
        """Why frames cannot be judged, for people."""
        fault = self.view.fault
        return about_zone(self.view.recipe.zone, fault) if fault is not None and self.view.code is self.code else None


@dataclass(frozen=True, slots=True)
class PartInspection:
    """What was made of one part.

    Attributes:
        zones: Each of them; one where the station has one bundle.
        decisive: The one of them that speaks for the part.
        decision: Verdict, alert, next state.
        frames: How many the part had.
        times_ms: Duration of each stage so far, of the decisive frame.
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
        """The decisive one."""
        return self.decisive.view.frame

    @property
    def recipe(self) -> Recipe:
        """What judged the decisive zone."""
        return self.decisive.view.recipe

    @property
    def region(self) -> Region | None:
        """What was inspected there; None when the frame could not be prepared."""
        return self.decisive.view.region

    @property
    def inference(self) -> Inference | None:
        """Score and map of the decisive zone; None when the part could not be decided."""
        return self.decisive.inference

    @property
    def code(self) -> ResultCode:
        """Why not; ``NONE`` when it could."""
        return self.decisive.code

    @property
    def fault(self) -> str | None:
        """Why frames, or some zone of them, cannot be judged, for people."""
        return next((zone.fault for zone in (self.decisive, *self.zones) if zone.fault is not None), None)


def score_frame(frame: Frame, part: Part, recipe: Recipe) -> ZoneScore:
    """Score what a recipe inspects of a frame; one that cannot be trusted or scored says why.

    A frame that cannot be trusted is not scored: what the network makes of a blocked view says nothing of the part.
    """
    watch = _Stages()
    inference, code, fault = None, ResultCode.NONE, None
    place: PartLocation | None = None
    prepared: Image | None = None
    try:
        distrust = None if recipe.checks is None else recipe.checks.of_frame(frame.image)
        watch.ends("checks")
        place = recipe.preprocess.locate(frame.image)
        prepared = recipe.preprocess.network_input(frame.image, place.region)
        watch.ends("preprocess")
        if recipe.checks is not None:
            distrust = distrust or recipe.checks.of_input(prepared, place)
            watch.ends("checks")
        if distrust is None:
            inference = recipe.engine(prepared)
            if not math.isfinite(inference.score):
                code, fault = ResultCode.ENGINE_FAULT, f"{recipe.engine.backend} gave the score {inference.score}"
        else:
            code, fault = distrust
    except DatasetError as error:
        code, fault = ResultCode.FRAME_UNUSABLE, str(error)
    except EngineError as error:
        code, fault = ResultCode.ENGINE_FAULT, str(error)
    watch.ends("inference")
    region = None if place is None else place.region
    times_ms = watch.times_ms(frame.captured_ns)
    return ZoneScore(frame, part, recipe, prepared, region, inference, code, fault, times_ms)


class _Stages:
    """How long each stage took; one that did not happen took no time."""

    def __init__(self) -> None:
        self._began_ns = self._last_ns = time.monotonic_ns()
        self._spent_ns = {"checks": 0, "preprocess": 0, "inference": 0}

    def ends(self, stage: str) -> None:
        now_ns = time.monotonic_ns()
        self._spent_ns[stage] += now_ns - self._last_ns
        self._last_ns = now_ns

    def times_ms(self, captured_ns: int) -> dict[str, float]:
        return {
            "waiting": (self._began_ns - captured_ns) / 1e6,
            **{stage: spent_ns / 1e6 for stage, spent_ns in self._spent_ns.items()},
            "total": (time.monotonic_ns() - captured_ns) / 1e6,
        }
