"""The command ``recalibrate``: begun, told about, cancelled, ended."""

from __future__ import annotations

import logging
import shutil
import threading
from datetime import datetime
from typing import TYPE_CHECKING

from agent.clock import now_ms
from agent.commands.bundle_swap import SwapReason
from agent.commands.dispatcher import final_ack
from agent.errors import CommandRefusedError, RecalibrationError
from agent.recalibration.bundle_folder import BundleFolder
from agent.recalibration.labelled_images import labelled_images_in
from agent.recalibration.plan import Task
from agent.recalibration.progress import ProgressReporter, noted
from agent.recalibration.run import RecalibrationRun
from agent.zones.recipe import about_zone
from calibration.errors import ShiftwatchError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from typing_extensions import Self

    from agent.audit.log import AuditLog
    from agent.commands.bundle_swap import BundleSwap
    from agent.commands.dispatcher import Command, Effect
    from agent.commands.schema import RecalibrateArguments
    from agent.inspection.score import PartInspection
    from agent.messages.records import Payload
    from agent.recalibration.labelled_images import LabelledImages
    from agent.recalibration.plan import RecalibrationPlan
    from agent.zones.controls import StationControls
    from agent.zones.zone import Zone

log = logging.getLogger(__name__)

_SEE_LOG = "the log tells why; what judges now is in `info`"
_LOOK_UP_S = 1.0
_STOPS_WITHIN_S = 0.5


class RecalibrationCommand:
    """One at a time; entered before commands come, and left when the loop has ended.

    Args:
        terms: Of the station.
        controls: What judges: one zone at a time learns on.
        exchange: Brings the new bundle in.
        state: Of the station: a word and a reason.
        follow_up: Told how a command goes on; from any thread.
    """

    def __init__(  # noqa: PLR0913 - each once
        self,
        terms: RecalibrationPlan,
        controls: StationControls,
        audit: AuditLog,
        exchange: BundleSwap,
        *,
        state: Callable[[], tuple[str, str]],
        follow_up: Callable[[Payload], None],
    ) -> None:
        self._terms = terms
        self._controls = controls
        self._telling = ProgressReporter(audit, follow_up)
        self._follow_up = follow_up
        self._exchange = exchange
        self._state = state
        self._course: RecalibrationRun | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        """Remove what an agent left that was killed while it learnt."""
        for zone in self._controls.zones:
            _bundles_of(zone).remove_left_overs()
        return self

    def __exit__(self, *_: object) -> None:
        """End what is under way, at once."""
        self._closing.set()
        course = self._course
        if course is not None:
            course.cancel("the agent was stopped")
        if self._thread is not None:
            self._thread.join(_STOPS_WITHIN_S)

    @property
    def under_way(self) -> Payload | None:
        """How far it has come; None where none is under way."""
        at = self._telling.at
        if at is None:
            return None
        zone = {"zone": at.zone} if at.zone else {}
        return {"commandId": at.command_id, **zone, "phase": at.phase, "progress": round(at.share, 3)}

    def note(self, seen: PartInspection) -> None:
        """The loop has judged a part."""
        course = self._course
        if course is not None:
            course.note(seen)

    def prepare(self, command: Command, arguments: RecalibrateArguments) -> Effect:
        """See `commands.Action`."""
        if arguments.cancel:
            return self._prepare_cancel(command, arguments.zone)
        at = self._telling.at
        if at is not None:
            raise CommandRefusedError(
                what=about_zone(at.zone, f"a recalibration is under way: {at.phase}, {at.share:.0%} done"),
                remedy="wait until it is done, or cancel it: recalibrate --cancel",
            )
        if arguments.parts is not None and arguments.seconds is not None:
            raise CommandRefusedError(what="parts and seconds are both given", remedy="give one of them")
        zone = self._controls.zone(arguments.zone)
        base = zone.served
        fixed, own = base.base_threshold, base.bundle.manifest.working_point.threshold
        if fixed != own:
            raise CommandRefusedError(
                what=f"the configuration fixes the threshold at {fixed:g}, which means nothing to a new bundle",
                remedy="remove decision.threshold from it, start again, and recalibrate",
            )
        return lambda: self._begin(Task(command, arguments, zone, zone.served))

    def _prepare_cancel(self, command: Command, zone: str | None) -> Effect:
        course, at = self._course, self._telling.at
        if course is None or at is None:
            raise CommandRefusedError(what="no recalibration is under way", remedy="nothing is to be done")
        if zone is not None and self._controls.zone(zone).name != at.zone:
            raise CommandRefusedError(
                what=f"no recalibration of {zone} is under way, but one of {at.zone}",
                remedy=f"cancel that of {at.zone}",
            )
        if at.phase == "taking over":
            raise CommandRefusedError(
                what="the new bundle is taking over already",
                remedy="wait for that, then go back to the one before: rollback",
            )

        def cancel() -> None:
            course.cancel(f"cancelled{f' by {command.by}' if command.by else ''}")
            # Whoever cancels gets this before the last word on what was cancelled, or after it.
            threading.Thread(target=self._acknowledge_cancel, args=(command,), name="cancel", daemon=True).start()

        return cancel

    def _acknowledge_cancel(self, command: Command) -> None:
        thread = self._thread
        if thread is not None:
            thread.join()
        self._follow_up(final_ack(command))

    def _begin(self, task: Task) -> None:
        self._telling.progress(task, "preparing", 0.001)
        self._course = RecalibrationRun(
            self._terms,
            task,
            self._state,
            lambda phase, share: self._telling.progress(task, phase, share),
        )
        self._thread = threading.Thread(target=self._work, args=(task, self._course), name="recalibration", daemon=True)
        self._thread.start()

    def _work(self, task: Task, course: RecalibrationRun) -> None:
        zone, made_of = task.zone, task.base.bundle
        known_ms = zone.versions.learnt_ms(made_of.identity) or _made_ms(made_of.manifest.created_at)
        read_ms = now_ms()
        try:
            path = self._learnt(task, course, labelled_images_in(self._terms.archive, known_ms, zone.name))
            if path is None:
                self._end(task, course, "tried", None)
            else:
                self._take_over(task, course, path, known_ms if task.arguments.mode == "threshold" else read_ms)
        except ShiftwatchError as error:
            event = "refused" if isinstance(error, CommandRefusedError) else "failed"
            self._end(task, course, event, error)
        finally:
            if self._course is course:  # it has had no last word
                unfinished = RecalibrationError(what="the recalibration was not brought to its end", remedy=_SEE_LOG)
                self._end(task, course, "failed", unfinished)

    def _learnt(self, task: Task, course: RecalibrationRun, marks: LabelledImages) -> Path | None:
        """Where the new bundle lies; None where nothing is to be kept of it."""
        bundles = _bundles_of(task.zone)
        workplace = bundles.workplace()
        try:
            made = course.learn(workplace, marks)
            return None if task.arguments.dry_run else bundles.accept(made, course.found["bundle"])
        finally:
            shutil.rmtree(workplace, ignore_errors=True)

    def _take_over(self, task: Task, course: RecalibrationRun, path: Path, learnt_ms: int) -> None:
        self._telling.progress(task, "taking over", 0.95)
        bundles = _bundles_of(task.zone)
        try:
            self._exchange.reserve()
        except CommandRefusedError:
            bundles.remove(path)
            raise
        over = threading.Event()
        failed: list[ShiftwatchError] = []

        def ended(error: ShiftwatchError | None, audit_hash: str | None) -> None:
            failed.extend([] if error is None else [error])
            self._say_last(task, course, error, audit_hash)
            over.set()

        occasion = self._occasion(task, course, learnt_ms)
        self._exchange.activate(task.zone, path, course.found["bundle"], occasion, ended, course.refuse_void)
        while not over.wait(_LOOK_UP_S):
            if self._closing.is_set():
                return  # the loop has ended, and takes nothing any more
        if failed:
            bundles.remove(path)
        else:
            bundles.prune(self._terms.keep_bundles, [task.zone.served.bundle.path, task.zone.configured])

    def _occasion(self, task: Task, course: RecalibrationRun, learnt_ms: int) -> SwapReason:
        command, arguments, parts = task.command, task.arguments, course.found["parts"]
        because = f": {arguments.reason}" if arguments.reason else ""
        return SwapReason(
            "recalibrated",
            command.command_id,
            command.by,
            f"recalibrated, {arguments.mode}, {parts} parts{because}",
            learnt_ms,
            noted(task, course.found),
        )

    def _end(self, task: Task, course: RecalibrationRun, event: str, error: ShiftwatchError | None) -> None:
        """Nothing was changed, whatever the reason."""
        audit_hash = self._telling.note(task, course.found, event, error)
        self._say_last(task, course, error, audit_hash)

    def _say_last(
        self, task: Task, course: RecalibrationRun, error: ShiftwatchError | None, audit_hash: str | None
    ) -> None:
        self._forget(course)  # first: whoever hears the last word may begin another one
        self._telling.last(task, course.found, error, audit_hash)

    def _forget(self, course: RecalibrationRun) -> None:
        if self._course is course:
            self._course = self._telling.at = None


def _bundles_of(zone: Zone) -> BundleFolder:
    return BundleFolder(zone.folder / "bundles")


def _made_ms(created_at: str) -> int:
    return round(datetime.fromisoformat(created_at).timestamp() * 1000)
