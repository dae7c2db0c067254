"""Checks that the times of a station fit together: camera rate, delay, frames of a part, network, deadline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.camera.sources import kind_of
from agent.doctor.finding import Finding, ok

if TYPE_CHECKING:
    from collections.abc import Iterator

    from agent.config.model import AgentConfig
    from agent.doctor.finding import Level


@dataclass(frozen=True, slots=True)
class Pace:
    """What was measured.

    Attributes:
        frames_per_s: Of the camera; None if unknown, or if it waits for the agent.
        p50_ms, p99_ms: Of the networks of all zones together; 0 if unknown.
    """

    frames_per_s: float | None
    p50_ms: float = 0.0
    p99_ms: float = 0.0

    @property
    def interval_ms(self) -> float:
        """From one frame to the next; 0 if unknown."""
        return 1000 / self.frames_per_s if self.frames_per_s else 0.0


def timing_findings(config: AgentConfig, pace: Pace) -> Iterator[Finding]:
    """Check the configured times against each other and against what was measured."""
    yield deadline_finding(config, pace)
    yield from _camera_timeout(config, pace)
    yield from _recalibration_patience(config, pace)
    if config.trigger.source == "command" and "trigger" not in config.commands.accept:
        found = "parts come with cmd/trigger, but commands.accept has no `trigger`: over MQTT each one is refused"
        yield Finding("trigger", "warning", found, "add trigger to commands.accept")


def deadline_finding(config: AgentConfig, pace: Pace) -> Finding:
    """Check whether verdicts can come within the deadline.

    A part that the line names has its first frame up to one interval after trigger and delay; others begin with it.
    """
    trigger, deadline_ms = config.trigger, config.plc.deadline_ms
    is_named = trigger.source == "command"
    frames_ms = (trigger.frames_per_part - 1) * pace.interval_ms
    delay_ms = trigger.delay_ms if is_named else 0
    least_ms = delay_ms + frames_ms + pace.p50_ms
    most_ms = delay_ms + frames_ms + pace.interval_ms * is_named + pace.p99_ms
    found = (
        f"a verdict takes about {_range(least_ms, most_ms)} ms from the {'trigger' if is_named else 'first frame'} on "
        f"({_parts_of_it(config, pace, delay_ms)}); plc.deadline_ms is {deadline_ms}"
    )
    figures = {"least_ms": least_ms, "most_ms": most_ms}
    if most_ms < deadline_ms:
        return ok("deadline", found, **figures)
    always = least_ms >= deadline_ms
    # Only a line that names its parts surely waits for the answer.
    level: Level = "fault" if always and is_named else "warning"
    shorter = ["lower trigger.delay_ms"] * (delay_ms > 0)
    shorter += ["lower trigger.frames_per_part"] * (trigger.frames_per_part > 1)
    remedy = (
        f"{'every part' if always else 'some parts'} will be answered `valid: false`: give plc.deadline_ms more than "
        f"{most_ms:.0f}, and the controller a longer time-out; or "
        f"{', or '.join([*shorter, 'use a faster camera or network'])}"
    )
    return Finding("deadline", level, found, remedy, figures)


def _range(least_ms: float, most_ms: float) -> str:
    return f"{least_ms:.0f}" if round(least_ms) == round(most_ms) else f"{least_ms:.0f} to {most_ms:.0f}"


def _parts_of_it(config: AgentConfig, pace: Pace, delay_ms: int) -> str:
    count, interval = config.trigger.frames_per_part, f"a frame every {pace.interval_ms:.0f} ms"
    parts = [
        f"delay_ms {delay_ms}" if delay_ms else "",
        f"{count} frames" if count > 1 else "",
        interval if pace.frames_per_s else "the camera's rate is unknown",
        f"network {_range(pace.p50_ms, pace.p99_ms)} ms" if pace.p99_ms else "the network was not timed",
    ]
    return ", ".join(filter(None, parts))


def _camera_timeout(config: AgentConfig, pace: Pace) -> Iterator[Finding]:
    timeout_ms = config.camera.read_timeout_s * 1000
    if kind_of(config.camera.source) != "path" and pace.interval_ms >= timeout_ms:
        found = (
            f"the camera gives a frame every {pace.interval_ms / 1000:.1f} s, but without one for "
            f"camera.read_timeout_s {config.camera.read_timeout_s:g} it is lost and opened again"
        )
        remedy = f"give camera.read_timeout_s more than {pace.interval_ms / 1000:.1f}, or a shorter exposure"
        yield Finding("camera timeout", "fault", found, remedy)


def _recalibration_patience(config: AgentConfig, pace: Pace) -> Iterator[Finding]:
    trigger, quiet_s = config.trigger, config.recalibration.quiet_s
    part_s = max(trigger.every, trigger.frames_per_part) * pace.interval_ms / 1000
    if trigger.source == "every_frame" and part_s >= quiet_s:
        found = (
            f"a part comes every {part_s:.0f} s, but a recalibration gives up after recalibration.quiet_s {quiet_s:g}"
        )
        yield Finding("recalibration", "warning", found, f"give recalibration.quiet_s more than {part_s:.0f}")
