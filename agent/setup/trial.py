"""The trial of a set-up: parts are inspected as the station will do it, but nothing is sent to the line."""

from __future__ import annotations

import threading
from collections import deque
from contextlib import ExitStack
from typing import TYPE_CHECKING

from agent.alerts.defect import State
from agent.errors import SetupError
from agent.from_config import combiner_of, trigger_of
from agent.inspection.score import score_frame
from agent.messages.records import CODE_NAMES, Evaluation, ResultCode
from agent.station.bundle_loader import BundleLoader, configured_bundle
from agent.trigger.plc_handshake import Handshake
from agent.trigger.trigger import OnCommand
from agent.web.picture import as_jpeg
from calibration.deployment.backends import choose_backend
from calibration.imaging.heatmap import overlay
from calibration.imaging.score_map import cover_region, map_threshold

if TYPE_CHECKING:
    from typing_extensions import Self

    from agent.camera import Frame
    from agent.config.model import AgentConfig
    from agent.inspection.score import FrameScores, PartInspection
    from agent.messages.records import Payload
    from agent.trigger.part import Part
    from agent.zones.recipe import Recipe

_KEPT, _MOST_BYTES = 30, 2**28
_SIZE_PX = 900
_WORDS = {Evaluation.OK: "ok", Evaluation.NOT_OK: "defect", Evaluation.NOT_DECIDABLE: "not decidable"}


class Trial:
    """Inspects frames from enter to exit; called by one thread, the other methods by any.

    Args:
        config: The station as it would be now.
    """

    def __init__(self, config: AgentConfig) -> None:
        self._config = config
        self._lock = threading.Lock()
        self._shown: deque[tuple[str, Payload, PartInspection]] = deque(maxlen=_KEPT)
        self._counts = dict.fromkeys(_WORDS.values(), 0)
        self._resources = ExitStack()
        self._recipes: list[Recipe] = []
        self._handshake = Handshake(config.plc.deadline_ms, lambda: ResultCode.TOO_LATE)
        self._trigger = trigger_of(config.trigger, self._handshake, lambda: self._recipes)
        self._combine = combiner_of(config.trigger, lambda: ResultCode.TOO_LATE)
        self._part: Part | None = None
        self._scored: list[FrameScores] = []
        self._alerts = State()

    def __enter__(self) -> Self:
        """Load the networks.

        Raises:
            ShiftwatchError: A bundle or its network cannot be used.
        """
        config, stop = self._config, threading.Event()
        loader = BundleLoader(config, choose_backend(config.engine.backend), stop)
        with ExitStack() as stack:
            recipes = []
            for zone, path in config.bundle.items():
                active = loader.load(configured_bundle(zone, path), zone)
                stack.callback(active.close)
                recipes.append(active.recipe)
            self._resources = stack.pop_all()
        self._recipes = recipes
        return self

    def __exit__(self, *_: object) -> None:
        """Close the networks."""
        self._resources.close()

    def ask(self) -> None:
        """Inspect the next frame, where the line will trigger."""
        if isinstance(self._trigger, OnCommand):
            self._trigger.ask(None)

    def __call__(self, frame: Frame) -> None:
        """Inspect the part in this frame, if it shows one."""
        part, self._part = self._part, self._trigger(frame, self._part)
        if self._part is not part:
            self._scored = []
        if self._part is None:
            for recipe in self._recipes:
                recipe.pass_over(frame.image)
        else:
            self._scored.append([score_frame(frame, self._part, recipe) for recipe in self._recipes])
            if len(self._scored) >= self._combine.frames_per_part:
                self._show(self._combine(self._scored, self._alerts))
                self._part, self._scored = None, []
        self._handshake.give_up_all()  # there is no controller
        self._handshake.overdue()
        self._handshake.take()

    def state(self) -> Payload:
        """Counts, and the newest parts first."""
        with self._lock:
            return {"counts": dict(self._counts), "parts": [dict(about) for _, about, _ in reversed(self._shown)]}

    def jpeg(self, result_id: str) -> bytes:
        """The frame of a part, with heat map; raises SetupError if it is not kept any more."""
        inspection = self._inspection(result_id)
        if inspection.inference is None or inspection.region is None:
            return as_jpeg(inspection.frame.image, _SIZE_PX)
        score_map = cover_region(inspection.inference.map, inspection.recipe.grid)
        limit = map_threshold(score_map, inspection.inference.score, inspection.recipe.rules.threshold)
        return as_jpeg(overlay(inspection.frame.image, inspection.region, score_map, limit), _SIZE_PX)

    def frame(self, result_id: str) -> Frame:
        """The frame of a part; raises SetupError if it is not kept any more."""
        return self._inspection(result_id).frame

    def note_wrong(self, result_id: str) -> str:
        """Note that the verdict on this part was wrong; returns the verdict, or nothing if that is noted already."""
        with self._lock:
            for identity, about, _ in self._shown:
                if identity == result_id:
                    was_wrong, about["isWrong"] = about["isWrong"], True
                    return "" if was_wrong else str(about["verdict"])
        raise _not_kept()

    def _inspection(self, result_id: str) -> PartInspection:
        with self._lock:
            for identity, _, inspection in self._shown:
                if identity == result_id:
                    return inspection
        raise _not_kept()

    def _show(self, inspection: PartInspection) -> None:
        word = _WORDS[inspection.decision.verdict.evaluation]
        about: Payload = {
            "id": inspection.result_id,
            "at": inspection.frame.captured_at_ms,
            "verdict": word,
            "ratio": None if inspection.inference is None else inspection.decisive.ratio,
            "zone": inspection.recipe.zone,
            "reason": inspection.fault or ("" if inspection.code is ResultCode.NONE else CODE_NAMES[inspection.code]),
            "isWrong": False,
        }
        with self._lock:
            self._counts[word] += 1
            self._shown.append((inspection.result_id, about, inspection))
            while sum(each.frame.image.nbytes for _, _, each in self._shown) > _MOST_BYTES and len(self._shown) > 1:
                self._shown.popleft()


def _not_kept() -> SetupError:
    return SetupError(what="this part is not kept any more", remedy="only the last ones are")
