"""From scores to verdicts and alerts: thresholds and hysteresis, without a clock and without input or output."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from agent.alerts.camera import CameraState, camera_alert_step
from agent.errors import ConfigError
from agent.messages.records import Alert, Evaluation

_HIGHEST_SEVERITY = 1000


@dataclass(frozen=True, slots=True)
class Rules:
    """When a score is a defect, and when defects are an alert.

    Attributes:
        threshold: A score above it is NotOK; positive.
        raise_after: NotOK results that begin an alert.
        raise_within: So many decidable results, the last ones since the alert before, must hold them; None: they must
            come in a row.
        clear_after: Clear results in a row that end it.
        clear_ratio: A result is clear at or below this share of the threshold, 0 to 1 (0 excluded). What lies between
            is OK, but ends no alert.
        update_every_ms: A lasting alert is repeated so often, as long as NotOK results come.
        untrusted_after_ms: Frames that cannot be trusted for so long begin an alert of their own.

    Raises:
        ConfigError: A value is outside these limits.
    """

    threshold: float
    raise_after: int = 1
    clear_after: int = 3
    clear_ratio: float = 0.9
    update_every_ms: int = 10_000
    untrusted_after_ms: int = 2_000
    raise_within: int | None = None

    def __post_init__(self) -> None:
        """Refuse rules that could never raise or never clear an alert."""
        problems = [
            f"{name}: {value!r} is not allowed; use {allowed}"
            for name, value, fits, allowed in (
                ("threshold", self.threshold, 0 < self.threshold < math.inf, "a number above 0"),
                ("raise_after", self.raise_after, self.raise_after >= 1, "1 or more"),
                ("raise_within", self.raise_within, self.window >= self.raise_after, "raise_after or more"),
                ("clear_after", self.clear_after, self.clear_after >= 1, "1 or more"),
                ("clear_ratio", self.clear_ratio, 0 < self.clear_ratio <= 1, "a number above 0, at most 1"),
                ("update_every_ms", self.update_every_ms, self.update_every_ms >= 1, "1 or more"),
                ("untrusted_after_ms", self.untrusted_after_ms, self.untrusted_after_ms >= 0, "0 or more"),
            )
            if not fits
        ]
        if problems:
            raise ConfigError(what="the rules of decision are not usable", problems=problems)

    @property
    def window(self) -> int:
        """Decidable results that are looked at for the beginning of an alert."""
        return self.raise_after if self.raise_within is None else self.raise_within


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one score means.

    Attributes:
        margin: (score - threshold) / threshold, as in the result; None when the score is not finite.
    """

    evaluation: Evaluation
    margin: float | None


@dataclass(frozen=True, slots=True)
class State:
    """What is remembered between two results; ``State()`` is the beginning.

    Attributes:
        alert: The last event of the active alert; None when there is none.
        alert_at_ms: When that event was.
        lately: The last decidable results since the alert before, oldest first: the time of a NotOK one, None for OK.
        clear_in_a_row: Clear results since the last one that was not.
        camera: Whether frames can be trusted.
        drift: The active alert about drift; None when there is none.
    """

    alert: Alert | None = None
    alert_at_ms: int = 0
    lately: tuple[int | None, ...] = ()
    clear_in_a_row: int = 0
    camera: CameraState = field(default_factory=CameraState)
    drift: Alert | None = None


@dataclass(frozen=True, slots=True)
class Decision:
    """One step: the verdict, the events to send (if any), and the state for the next step."""

    verdict: Verdict
    event: Alert | None
    state: State
    camera_event: Alert | None = None
    drift_event: Alert | None = None


def decide(  # noqa: PLR0913, PLR0917 - a pure step names all that it depends on
    rules: Rules, state: State, score: float, result_id: str, now_ms: int, untrusted: str | None = None
) -> Decision:
    """Judge one frame.

    Args:
        rules: May differ from those of the step before; an active alert goes on.
        state: From the step before.
        score: Squared distance of the network; NaN when there is none that can be trusted.
        result_id: Identity of this result.
        now_ms: Wall clock, ms since 1970. It may be set back: times of an alert never run backwards for it.
        untrusted: Cause of an alert, where the frame, or a zone of it, cannot be trusted.
    """
    camera_event, camera = camera_alert_step(state.camera, untrusted, rules.untrusted_after_ms, result_id, now_ms)
    return replace(_decide(rules, replace(state, camera=camera), score, result_id, now_ms), camera_event=camera_event)


def _decide(rules: Rules, state: State, score: float, result_id: str, now_ms: int) -> Decision:
    """Judge one score.

    A score that is not finite is NotDecidable and leaves the state as it is: it neither raises nor clears, and rows
    of results go on behind it.
    """
    verdict = judge(score, rules.threshold)
    if verdict.evaluation is Evaluation.NOT_DECIDABLE:
        return Decision(verdict, None, state)
    if verdict.evaluation is Evaluation.NOT_OK:
        event, camera_alert_step = _after_bad(rules, state, severity_of(score, rules.threshold), result_id, now_ms)
    else:
        event, camera_alert_step = _after_good(rules, state, score, result_id, now_ms)
    return Decision(verdict, event, camera_alert_step)


def judge(score: float, threshold: float) -> Verdict:
    """NotOK above the threshold, OK at or below it, NotDecidable (never OK) without a finite score."""
    if not math.isfinite(score):
        return Verdict(Evaluation.NOT_DECIDABLE, None)
    margin = (score - threshold) / threshold
    return Verdict(Evaluation.NOT_OK if score > threshold else Evaluation.OK, margin if math.isfinite(margin) else None)


def severity_of(score: float, threshold: float) -> int:
    """Severity of a score, 1 to 1000 as OPC UA (Part 9) numbers it: higher is more urgent, in steps of 200.

    1000 * score / (score + threshold): 500 (medium) at the threshold, 667 at twice, 801 (urgent) from about four
    times the threshold; no score exceeds 1000, so that no far outlier makes all others look harmless.
    """
    return max(1, round(_HIGHEST_SEVERITY / (1 + threshold / score))) if score > 0 else 1


def end(state: State, now_ms: int, result_id: str | None = None) -> tuple[Alert | None, State]:
    """End the alert about defects without a clear result: at shutdown, or when one was left over at start.

    Returns:
        The ``end`` event, None when no alert is active; and the state with which to go on.
    """
    return (None if state.alert is None else state.alert.ended(now_ms, result_id)), State(drift=state.drift)


def _after_bad(rules: Rules, state: State, severity: int, result_id: str, now_ms: int) -> tuple[Alert | None, State]:
    state = replace(state, lately=_with(rules, state, now_ms), clear_in_a_row=0)
    event = None
    if state.alert is None:
        bad_at_ms = [at_ms for at_ms in state.lately if at_ms is not None]
        if len(bad_at_ms) >= rules.raise_after:
            event = Alert(
                type="new",
                severity=severity,
                cause="defect",
                started_at_ms=bad_at_ms[0],
                result_id=result_id,
                alert_id=f"defect-{result_id}",  # so that a replay gives it again
            )
    elif severity > state.alert.severity or _is_update_due(rules, state, now_ms):
        highest = max(severity, state.alert.severity)
        event = replace(state.alert, type="update", severity=highest, result_id=result_id)
    return event, state if event is None else replace(state, alert=event, alert_at_ms=now_ms)


def _after_good(rules: Rules, state: State, score: float, result_id: str, now_ms: int) -> tuple[Alert | None, State]:
    is_clear = score <= rules.clear_ratio * rules.threshold
    clear_in_a_row = state.clear_in_a_row + 1 if is_clear else 0
    state = replace(state, lately=_with(rules, state, None), clear_in_a_row=clear_in_a_row)
    if state.alert is None or state.clear_in_a_row < rules.clear_after:
        return None, state
    return end(state, now_ms, result_id)


def _with(rules: Rules, state: State, bad_at_ms: int | None) -> tuple[int | None, ...]:
    return (*state.lately, bad_at_ms)[-rules.window :]


def _is_update_due(rules: Rules, state: State, now_ms: int) -> bool:
    # A clock that was set back must not silence the alert until it has caught up.
    return not 0 <= now_ms - state.alert_at_ms < rules.update_every_ms
