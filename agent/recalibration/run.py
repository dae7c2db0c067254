"""One recalibration: parts -> worker -> refit -> acceptance -> shadow run -> swap.

The loop gives parts to a worker process (`worker`), which refits the bundle, checks whether the new one is acceptable,
and then scores parts that the active bundle decides on. Only the swap changes anything at the station.
"""

from __future__ import annotations

import threading
import time
from datetime import datetime
from typing import TYPE_CHECKING

from agent.clock import now_ms
from agent.commands.bundle_swap import SwapReason
from agent.commands.schema import MOST_PARTS
from agent.errors import CommandRefusedError, RecalibrationError
from agent.recalibration.bundle_folder import BundleFolder
from agent.recalibration.ipc import WorkerOrder
from agent.recalibration.labelled_images import labelled_images_in
from agent.recalibration.part_sampler import PartSampler
from agent.recalibration.progress import audit_fields
from agent.recalibration.worker_handle import WorkerHandle
from calibration.errors import ShiftwatchError
from calibration.plain_text import counted

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from agent.commands.bundle_swap import BundleSwap
    from agent.inspection.score import PartInspection
    from agent.messages.records import Payload
    from agent.recalibration.ipc import WorkerReport
    from agent.recalibration.plan import RecalibrationPlan, Task
    from agent.recalibration.progress import ProgressReporter

_TICK_S = 0.1
_LONGEST_SILENCE_S = 180.0
_PHASES = {"preparing": (0.0, 0.01), "collecting": (0.01, 0.5), "learning": (0.5, 0.8), "judging beside": (0.8, 0.95)}
"""Progress at the beginning and at the end of each."""
_STEPS = ("scoring", "drawing", "learning", "accepting")


class RecalibrationRun:
    """Its own thread calls `run`, the loop `note`, any thread `cancel`.

    Args:
        plan: Settings of the station.
        task: What to do.
        swap: Activates the new bundle.
        reporter: Gets progress and result.
        state: Gives the state of the station and its reason.
        closing: Set when the loop has ended.

    Attributes:
        figures: As far as there are any.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - each once
        self,
        plan: RecalibrationPlan,
        task: Task,
        swap: BundleSwap,
        reporter: ProgressReporter,
        state: Callable[[], tuple[str, str]],
        closing: threading.Event,
    ) -> None:
        self.figures: Payload = {"mode": task.arguments.mode}
        self._plan = plan
        self._task = task
        self._swap = swap
        self._reporter = reporter
        self._state = state
        self._closing = closing
        self._bundles = BundleFolder(task.zone.folder / "bundles")
        made = task.base.bundle
        self._labelled_since_ms = task.zone.versions.learnt_ms(made.identity) or _ms(made.manifest.created_at)
        self._began_ms = now_ms()
        self._sampler: PartSampler | None = None
        self._cancelled: str | None = None
        self._over = threading.Event()
        self._last_report_s = 0.0

    def note(self, part: PartInspection) -> None:
        """Take a part that the loop has inspected."""
        sampler = self._sampler
        if sampler is not None:
            sampler.offer(part)

    def cancel(self, why: str) -> None:
        """End it soon, from any thread."""
        self._cancelled = why

    def run(self) -> None:
        """Make a new bundle and activate it; errors are reported, not raised."""
        try:
            path = self._new_bundle()
            if path is None:
                self._end("tried", None)
            else:
                self._swap_in(path)
        except ShiftwatchError as error:
            self._end("refused" if isinstance(error, CommandRefusedError) else "failed", error)
        finally:
            if not self._over.is_set():
                what = "the recalibration did not finish"
                self._end("failed", RecalibrationError(what=what, remedy="see the log; `info` shows the active bundle"))

    def _new_bundle(self) -> Path | None:
        """Folder of the accepted bundle; None after a dry run."""
        try:
            with self._bundles.workplace() as (workplace, lock):
                with WorkerHandle(self._order(workplace), lock) as worker:
                    self._last_report_s = time.monotonic()
                    self._wait_for("ready", "preparing", worker)
                    self._collect_parts(worker)
                    self._refit(worker)
                    self._shadow_run(worker)
                if self._task.arguments.dry_run:
                    return None
                return self._bundles.accept(workplace / "bundle", self.figures["bundle"])
        finally:
            self._sampler = None

    def _order(self, workplace: Path) -> WorkerOrder:
        plan, arguments, base = self._plan, self._task.arguments, self._task.base
        labelled = labelled_images_in(plan.archive, self._labelled_since_ms, self._task.zone.name)
        return WorkerOrder(
            bundle=str(base.bundle.path.absolute()),
            identity=base.bundle.identity,
            target=str((workplace / "bundle").absolute()),
            parts_folder=str((workplace / "parts").absolute()),
            mode=arguments.mode,
            backbone=arguments.backbone,
            old_weight=plan.old_weight if arguments.old_weight is None else arguments.old_weight,
            false_reject_rate=arguments.false_reject_rate,
            sequential=plan.sequential,
            parts=self._parts,
            expected=0 if arguments.seconds is not None else self._parts,
            min_detection=plan.min_detection,
            least_detection=plan.least_detection,
            threshold=base.recipe.rules.threshold,
            defects=labelled.defects,
            good=labelled.good if arguments.mode in {"mean", "full"} else (),
        )

    @property
    def _parts(self) -> int:
        arguments = self._task.arguments
        return MOST_PARTS if arguments.seconds is not None else arguments.parts or self._plan.parts

    def _new_sampler(self, worker: WorkerHandle, parts: int) -> PartSampler:
        is_other_product = self._task.arguments.mode == "teach"
        return PartSampler(worker.offer, parts, self._task.zone.name, other_product=is_other_product)

    def _collect_parts(self, worker: WorkerHandle) -> None:
        sampler = self._sampler = self._new_sampler(worker, self._parts)
        began_s, seconds = time.monotonic(), self._task.arguments.seconds

        def done() -> float:
            return sampler.given / sampler.parts if seconds is None else (time.monotonic() - began_s) / seconds

        kept = 0
        while not sampler.is_full and done() < 1:
            report = self._next_report(worker, is_busy=kept < sampler.given)
            kept = kept if report is None else report["parts"]
            self._refuse_standstill(sampler, began_s)
            self._report("collecting", done())
        self._sampler = None
        self.figures |= {"collected": sampler.given, "notCollected": dict(sampler.missed)}

    def _refit(self, worker: WorkerHandle) -> None:
        worker.refit()
        # Collected during the refit, to save time in the shadow run.
        self._sampler = self._new_sampler(worker, self._plan.shadow_parts)
        self._report("learning", 0.0)
        report = self._wait_for("fitted", "learning", worker)
        self._add_figures(report, thresholdBefore=self._task.base.recipe.rules.threshold)
        if report["objections"] and not self._task.arguments.force:
            raise CommandRefusedError(
                what="; ".join(report["objections"]),
                remedy="collect more and better parts; or give --force, which the audit log records",
            )

    def _shadow_run(self, worker: WorkerHandle) -> None:
        sampler = self._sampler
        assert sampler is not None  # noqa: S101 - since the refit began
        began_s = sampler.last_s = time.monotonic()
        scored = 0
        while scored < sampler.parts:
            report = self._next_report(worker, is_busy=scored < sampler.given)
            if report is not None:
                scored = report["shadowParts"]
                self._add_figures(report)
            self._refuse_standstill(sampler, began_s)
            self._report("judging beside", scored / sampler.parts)

    def _swap_in(self, path: Path) -> None:
        task, swap = self._task, self._swap
        self._reporter.progress(task, "taking over", 0.95)
        try:
            swap.reserve()
        except CommandRefusedError:
            self._bundles.remove(path)
            raise
        errors: list[ShiftwatchError | None] = []

        def ended(error: ShiftwatchError | None, audit_hash: str | None) -> None:
            errors.append(error)
            self._report_result(error, audit_hash)

        swap.activate(task.zone, path, self.figures["bundle"], self._swap_reason(), ended, self._refuse_void)
        while not self._over.wait(1.0):
            if self._closing.is_set():
                return  # the loop has ended, and activates nothing any more
        if errors == [None]:
            in_use = [task.zone.active.bundle.path, task.zone.configured, task.base.bundle.path]  # the last: rollback
            self._bundles.prune(self._plan.keep_bundles, in_use)
        else:
            self._bundles.remove(path)

    def _swap_reason(self) -> SwapReason:
        command, arguments = self._task.command, self._task.arguments
        because = f": {arguments.reason}" if arguments.reason else ""
        return SwapReason(
            "recalibrated",
            command.command_id,
            command.by,
            f"recalibrated, {arguments.mode}, {counted(self.figures['parts'], 'part')}{because}",
            self._labelled_since_ms if arguments.mode == "threshold" else self._began_ms,
            audit_fields(self._task, self.figures),
        )

    def _end(self, event: str, error: ShiftwatchError | None) -> None:
        """After a run that changed nothing."""
        self._report_result(error, self._reporter.note(self._task, self.figures, event, error))

    def _report_result(self, error: ShiftwatchError | None, audit_hash: str | None) -> None:
        self._over.set()
        self._reporter.result(self._task, self.figures, error, audit_hash)

    def _add_figures(self, report: WorkerReport, **more: float) -> None:
        self.figures |= {name: value for name, value in report.items() if name != "kind"} | more

    def _report(self, phase: str, share: float) -> None:
        first, last = _PHASES[phase]
        self._reporter.progress(self._task, phase, first + min(1.0, share) * (last - first))

    def _wait_for(self, kind: str, phase: str, worker: WorkerHandle) -> WorkerReport:
        while True:
            report = self._next_report(worker, is_busy=True)
            if report is not None and report["kind"] == kind:
                return report
            if report is not None and report["kind"] == "progress":
                step, done = report["step"], report["done"] / max(1, report["total"])
                self._report(phase, (_STEPS.index(step) + done) / len(_STEPS) if step in _STEPS else done)

    def _next_report(self, worker: WorkerHandle, *, is_busy: bool) -> WorkerReport | None:
        """The worker's next report, if there is one soon; one that ``is_busy`` may not be silent for long."""
        self._refuse_void()
        report = worker.next_report(_TICK_S)
        now_s = time.monotonic()
        if report is not None or not is_busy:
            self._last_report_s = now_s
        elif now_s - self._last_report_s > _LONGEST_SILENCE_S:
            raise RecalibrationError(
                what=f"the recalibration worker has reported nothing for {now_s - self._last_report_s:.0f} s",
                remedy="see what else takes the processor and the memory of this device",
            )
        return report

    def _refuse_void(self) -> None:
        """Refuse if it was cancelled, or if bundle or threshold have changed since it began."""
        if self._cancelled is not None:
            raise CommandRefusedError(what=self._cancelled, remedy="the active bundle stays")
        if self._task.zone.active is not self._task.base:
            raise CommandRefusedError(
                what="another bundle or threshold is active than when the recalibration began",
                remedy="give the command again; it then starts from the active bundle",
            )

    def _refuse_standstill(self, sampler: PartSampler, began_s: float) -> None:
        now_s = time.monotonic()
        if sampler.is_full or now_s - sampler.last_s <= self._plan.quiet_s:
            return
        self.figures |= {"notCollected": dict(sampler.missed)}
        state, reason = self._state()
        idle = "no part came" if state == "running" else f"the station is {state}"
        because = f" ({reason})" if reason else ""
        raise CommandRefusedError(
            what=f"{sampler.given} of {sampler.parts} parts in {now_s - began_s:.0f} s: "
            f"{sampler.causes() or idle}{because}",
            remedy="fix the cause, let the line run, and give the command again",
        )


def _ms(created_at: str) -> int:
    return round(datetime.fromisoformat(created_at).timestamp() * 1000)
