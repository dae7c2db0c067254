"""The command ``recalibrate``: starts a recalibration, reports on it, cancels it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from agent.commands.dispatcher import final_ack
from agent.errors import CommandRefusedError
from agent.recalibration.bundle_folder import BundleFolder
from agent.recalibration.plan import Task
from agent.recalibration.progress import ProgressReporter
from agent.recalibration.run import RecalibrationRun
from agent.zones.recipe import about_zone

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from agent.audit.log import AuditLog
    from agent.commands.bundle_swap import BundleSwap
    from agent.commands.dispatcher import Command, Effect
    from agent.commands.schema import RecalibrateArguments
    from agent.inspection.score import PartInspection
    from agent.messages.records import Payload
    from agent.recalibration.plan import RecalibrationPlan
    from agent.zones.station_controls import StationControls

_STOPS_WITHIN_S = 0.5


class RecalibrationCommand:
    """One recalibration at a time; entered before commands come, and left when the loop has ended.

    Args:
        plan: Settings of the station.
        controls: The zones; one at a time is recalibrated.
        swap: Activates the new bundle.
        state: Gives the state of the station and its reason.
        follow_up: Gets acknowledgements that follow the first; called from any thread.
    """

    def __init__(  # noqa: PLR0913 - each once
        self,
        plan: RecalibrationPlan,
        controls: StationControls,
        audit: AuditLog,
        swap: BundleSwap,
        *,
        state: Callable[[], tuple[str, str]],
        follow_up: Callable[[Payload], None],
    ) -> None:
        self._plan = plan
        self._controls = controls
        self._reporter = ProgressReporter(audit, follow_up)
        self._follow_up = follow_up
        self._swap = swap
        self._state = state
        self._run: RecalibrationRun | None = None
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def __enter__(self) -> Self:
        """Remove what an agent left that was killed during a recalibration."""
        for zone in self._controls.zones:
            BundleFolder(zone.folder / "bundles").remove_left_overs()
        return self

    def __exit__(self, *_: object) -> None:
        """End the one under way, at once."""
        self._closing.set()
        if self._run is not None and self._thread is not None:
            self._run.cancel("the agent was stopped")
            self._thread.join(_STOPS_WITHIN_S)

    @property
    def under_way(self) -> Payload | None:
        """Progress; None if no recalibration is under way."""
        at = self._reporter.at
        if at is None:
            return None
        zone = {"zone": at.zone} if at.zone else {}
        return {"commandId": at.command_id, **zone, "phase": at.phase, "progress": round(at.share, 3)}

    def note(self, part: PartInspection) -> None:
        """Take a part that the loop has inspected."""
        run = self._run
        if run is not None:
            run.note(part)

    def prepare(self, command: Command, arguments: RecalibrateArguments) -> Effect:
        """See `commands.Action`."""
        if arguments.cancel:
            return self._prepare_cancel(command, arguments.zone)
        at = self._reporter.at
        if at is not None:
            raise CommandRefusedError(
                what=about_zone(at.zone, f"a recalibration is under way: {at.phase}, {at.share:.0%} done"),
                remedy="wait until it is done, or cancel it: recalibrate --cancel",
            )
        if arguments.parts is not None and arguments.seconds is not None:
            raise CommandRefusedError(what="parts and seconds are both given", remedy="give one of them")
        zone = self._controls.zone(arguments.zone)
        fixed, own = zone.active.base_threshold, zone.active.bundle.manifest.working_point.threshold
        if fixed != own:
            raise CommandRefusedError(
                what=f"the configuration fixes the threshold at {fixed:g}, which means nothing to a new bundle",
                remedy="remove decision.threshold from it, start again, and recalibrate",
            )
        return lambda: self._begin(Task(command, arguments, zone, zone.active))

    def _prepare_cancel(self, command: Command, zone: str | None) -> Effect:
        run, at = self._run, self._reporter.at
        if run is None or at is None:
            raise CommandRefusedError(what="no recalibration is under way", remedy="nothing is to be done")
        if zone is not None and self._controls.zone(zone).name != at.zone:
            raise CommandRefusedError(
                what=f"no recalibration of {zone} is under way, but one of {at.zone}",
                remedy=f"cancel that of {at.zone}",
            )
        if at.phase == "taking over":
            raise CommandRefusedError(
                what="the new bundle is being activated already",
                remedy="wait for that, then return to the bundle before: rollback",
            )

        def cancel() -> None:
            run.cancel(f"cancelled{f' by {command.by}' if command.by else ''}")
            # This acknowledgement may come before or after the final one of the cancelled command.
            threading.Thread(target=self._acknowledge_cancel, args=(command,), name="cancel", daemon=True).start()

        return cancel

    def _acknowledge_cancel(self, command: Command) -> None:
        thread = self._thread
        if thread is not None:
            thread.join()
        self._follow_up(final_ack(command))

    def _begin(self, task: Task) -> None:
        self._reporter.progress(task, "preparing", 0.001)
        self._run = RecalibrationRun(self._plan, task, self._swap, self._reporter, self._state, self._closing)
        self._thread = threading.Thread(target=self._run.run, name="recalibration", daemon=True)
        self._thread.start()
