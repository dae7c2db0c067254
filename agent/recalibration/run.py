"""One recalibration, from the first part to the new bundle: collecting, learning, judging beside, taking over."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from agent.commands.schema import MOST_PARTS
from agent.errors import CommandRefusedError, RecalibrationError
from agent.recalibration import results
from agent.recalibration.part_sampler import PartSampler
from agent.recalibration.worker_process import WorkerProcess

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.inspection.score import PartInspection
    from agent.messages.records import Payload
    from agent.recalibration.ipc import Told
    from agent.recalibration.labelled_images import LabelledImages
    from agent.recalibration.plan import RecalibrationPlan, Task

_TICK_S = 0.1
_SILENT_AT_MOST_S = 180.0
_SHARES = {"preparing": (0.0, 0.01), "collecting": (0.01, 0.5), "learning": (0.5, 0.8), "judging beside": (0.8, 0.95)}


class RecalibrationRun:
    """Led by a thread of its own; the loop calls `note`, anybody `cancel`.

    Args:
        terms: Of the station.
        task: What to do.
        state: Of the station: a word and a reason.
        progress: Told phase and progress, 0 to 1, now and then.

    Attributes:
        found: Figures, as far as there are any.
    """

    def __init__(
        self,
        terms: RecalibrationPlan,
        task: Task,
        state: Callable[[], tuple[str, str]],
        progress: Callable[[str, float], None],
    ) -> None:
        self.found: Payload = {"mode": task.arguments.mode}
        self._terms = terms
        self._task = task
        self._state = state
        self._progress = progress
        self._tap: PartSampler | None = None
        self._ended_by: str | None = None
        self._lock = threading.Lock()
        self._process: WorkerProcess | None = None
        self._heard_s = 0.0

    def note(self, seen: PartInspection) -> None:
        """The loop has judged a part."""
        tap = self._tap
        if tap is not None:
            tap.offer(seen)

    def cancel(self, why: str) -> None:
        """End it, from any thread: `learn` raises."""
        with self._lock:
            self._ended_by = why
            if self._process is not None:
                self._process.kill()

    def refuse_void(self) -> None:
        """Raise CommandRefusedError where it was cancelled, or if another bundle or threshold judges than at first."""
        self._refuse_cancelled()
        if self._task.zone.served is not self._task.base:
            raise CommandRefusedError(
                what="another bundle or threshold judges than when the recalibration began",
                remedy="command it again, for what judges now",
            )

    def learn(self, workplace: Path, marks: LabelledImages) -> Path:
        """Collect, learn, and judge beside; the new bundle is inside the workplace, and nothing has been changed.

        Args:
            workplace: A folder that may be made.
            marks: That the bundle does not know.

        Raises:
            CommandRefusedError: Something speaks against it, or it was cancelled.
            RecalibrationError: Learning has failed.
        """
        target = workplace / "bundle"
        with WorkerProcess(self._order(workplace, target, marks)) as process:
            self._begin(process)
            try:
                self._await(process, "ready", "preparing")
                self._collect(process)
                self._learnt(process)
                self._judge_beside(process)
            finally:
                self._tap = None
        return target

    def _order(self, workplace: Path, target: Path, marks: LabelledImages) -> Told:
        task, terms = self._task, self._terms
        arguments = task.arguments
        learns_features = arguments.mode in {"mean", "full"}
        return {
            "kind": "order",
            "bundle": str(task.base.bundle.path.absolute()),
            "identity": task.base.bundle.identity,
            "target": str(target.absolute()),
            "folder": str((workplace / "parts").absolute()),
            "mode": arguments.mode,
            "backbone": arguments.backbone,
            "oldWeight": terms.old_weight if arguments.old_weight is None else arguments.old_weight,
            "falseRejectRate": arguments.false_reject_rate,
            "sequential": terms.sequential,
            "parts": self._wanted,
            "expected": 0 if arguments.seconds is not None else self._wanted,
            "minDetection": terms.min_detection,
            "defects": marks.defects,
            "good": marks.good if learns_features else (),
        }

    @property
    def _wanted(self) -> int:
        if self._task.arguments.seconds is not None:
            return MOST_PARTS
        return self._task.arguments.parts or self._terms.parts

    def _new_tap(self, process: WorkerProcess, wanted: int) -> PartSampler:
        task = self._task
        return PartSampler(process.offer, wanted, task.zone.name, other_product=task.arguments.mode == "teach")

    def _begin(self, process: WorkerProcess) -> None:
        with self._lock:
            self._process = process
            if self._ended_by is not None:
                process.kill()
        self._heard_s = time.monotonic()

    def _collect(self, process: WorkerProcess) -> None:
        tap = self._tap = self._new_tap(process, self._wanted)
        began_s, seconds = time.monotonic(), self._task.arguments.seconds
        kept = 0
        while not (tap.is_full if seconds is None else tap.is_full or time.monotonic() - began_s >= seconds):
            told = self._hear(process, owes=kept < tap.given)
            kept = kept if told is None else told["parts"]
            self._refuse_quiet(tap, began_s)
            share = tap.given / self._wanted if seconds is None else (time.monotonic() - began_s) / seconds
            self._tell("collecting", share)
        self._tap = None
        self.found |= {"collected": tap.given, "notCollected": dict(tap.missed)}
        process.order("learn")
        self._tap = self._new_tap(process, self._terms.shadow_parts)  # some wait until it has learnt: time is saved
        self._tell("learning", 0.0)

    def _learnt(self, process: WorkerProcess) -> None:
        told = self._await(process, "learnt", "learning")
        self.found |= results.refit_results(told, self._task.base.recipe.rules.threshold)
        if told["objections"] and not self._task.arguments.force:
            raise CommandRefusedError(
                what="; ".join(told["objections"]),
                remedy="collect more and better parts; whoever knows better gives --force, which is written down",
            )

    def _judge_beside(self, process: WorkerProcess) -> None:
        wanted = self._terms.shadow_parts
        tap = self._tap
        assert tap is not None  # noqa: S101 - since it collects no more
        began_s = tap.last_s = time.monotonic()
        judged = 0
        while judged < wanted:
            told = self._hear(process, owes=judged < tap.given)
            if told is not None:
                judged = told["parts"]
                self.found |= results.shadow_results(told)
            self._refuse_quiet(tap, began_s)
            self._tell("judging beside", judged / wanted)

    def _await(self, process: WorkerProcess, kind: str, phase: str) -> Told:
        while True:
            told = self._hear(process, owes=True)
            if told is not None and told["kind"] == kind:
                return told
            if told is not None and told["kind"] == "progress":
                steps = ("scoring", "learning", "proving")
                done = told["done"] / max(1, told["total"])
                self._tell(phase, (steps.index(told["step"]) + done) / len(steps) if told["step"] in steps else done)

    def _hear(self, process: WorkerProcess, *, owes: bool) -> Told | None:
        """What it tells next, if it does soon; ``owes``: it has something to do."""
        self.refuse_void()
        try:
            told = process.hear(_TICK_S)
        except RecalibrationError:
            self._refuse_cancelled()
            raise
        self._refuse_cancelled()
        now_s = time.monotonic()
        if told is not None or not owes:
            self._heard_s = now_s
        elif now_s - self._heard_s > _SILENT_AT_MOST_S:
            raise RecalibrationError(
                what=f"the learning process has said nothing for {now_s - self._heard_s:.0f} s",
                remedy="see what else takes the processor and the memory of this device",
            )
        return told

    def _refuse_cancelled(self) -> None:
        if self._ended_by is not None:
            raise CommandRefusedError(what=self._ended_by, remedy="the bundle that judged judges on")

    def _refuse_quiet(self, tap: PartSampler, began_s: float) -> None:
        now_s = time.monotonic()
        if tap.is_full or now_s - tap.last_s <= self._terms.quiet_s:
            return
        self.found |= {"notCollected": dict(tap.missed)}
        state, reason = self._state()
        idle = "no part came by" if state == "running" else f"the station is {state}"
        because = f" ({reason})" if reason else ""
        raise CommandRefusedError(
            what=f"{tap.given} of {tap.wanted} parts in {now_s - began_s:.0f} s: {tap.causes() or idle}{because}",
            remedy="mend that, let the line run, and command it again",
        )

    def _tell(self, phase: str, share: float) -> None:
        first, last = _SHARES[phase]
        self._progress(phase, first + min(1.0, share) * (last - first))
