"""From scores to verdicts and alerts about defects: thresholds and hysteresis, as pure functions."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from agent.alerts.camera import CameraState, camera_alert_step
from agent.errors import ConfigError
from agent.messages.records import Alert, Evaluation

_HIGHEST_SEVERITY = 1000


@dataclass(frozen=True, slots=True)
class Rules:
    """When a score is a defect, and when defects raise an alert.

    Attributes:
        threshold: A score above it is NotOK; positive.
        raise_after: NotOK results that raise an alert.
        raise_within: Number of the latest decidable results, since the last alert, that are counted; None means that
            the NotOK results must come in a row.
        clear_after: Clear results in a row that end it.
        clear_ratio: A result is clear at or below this share of the threshold, 0 to 1 (0 excluded). A result between
            the two is OK, but does not help to end an alert.
        update_every_ms: Interval at which an active alert is repeated while NotOK results come.
        untrusted_after_ms: Time without a trustworthy frame that raises a camera alert.

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
        limits = (
            ("threshold", 0 < self.threshold < math.inf, "a number above 0"),
            ("raise_after", self.raise_after >= 1, "1 or more"),
            ("raise_within", self.window >= self.raise_after, "raise_after or more"),
            ("clear_after", self.clear_after >= 1, "1 or more"),
            ("clear_ratio", 0 < self.clear_ratio <= 1, "a number above 0, at most 1"),
            ("update_every_ms", self.update_every_ms >= 1, "1 or more"),
            ("untrusted_after_ms", self.untrusted_after_ms >= 0, "0 or more"),
        )
        problems = [
            f"{name}: {getattr(self, name)!r} is not allowed; use {allowed}"
            for name, is_valid, allowed in limits
            if not is_valid
        ]
        if problems:
            raise ConfigError(what="the decision rules are not usable", problems=problems)

    @property
    def window(self) -> int:
        """Number of decidable results that are counted to raise an alert."""
        return self.raise_after if self.raise_within is None else self.raise_within


@dataclass(frozen=True, slots=True)
class Verdict:
    """The evaluation of one score.

    Attributes:
        margin: (score - threshold) / threshold, None when the score is not finite.
    """

    evaluation: Evaluation
    margin: float | None


@dataclass(frozen=True, slots=True)
class State:
    """The memory between two results; ``State()`` is the start.

    Attributes:
        alert: The last event of the active alert; None when there is none.
        alert_at_ms: Time of that event.
        recent: The latest decidable results since the last alert, oldest first: time of a NotOK result, None for OK.
        clear_in_a_row: Number of clear results since the last one that was not clear.
        camera: Whether frames can be trusted.
        drift: The active alert about drift; None when there is none.
    """

    alert: Alert | None = None
    alert_at_ms: int = 0
    recent: tuple[int | None, ...] = ()
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
    rules: Rules, state: State, score: float, result_id: str, now_ms: int, camera_fault: str | None = None
) -> Decision:
    """The verdict on one part, and what it does to the alerts.

    A score that is not finite is NotDecidable. It neither raises nor clears an alert, and does not interrupt a row.

    Args:
        rules: May differ from those of the step before; an active alert continues.
        state: From the step before.
        score: Squared distance from the network; NaN when no trustworthy score exists.
        result_id: Identity of this result.
        now_ms: Wall clock, ms since 1970. It may be set back; the times of an alert still never run backwards.
        camera_fault: Cause of a camera alert, where the frame, or a zone of it, cannot be trusted.
    """
    camera_event, camera = camera_alert_step(state.camera, camera_fault, rules.untrusted_after_ms, result_id, now_ms)
    state, event = replace(state, camera=camera), None
    verdict = evaluate(score, rules.threshold)
    if verdict.evaluation is Evaluation.NOT_OK:
        event, state = _after_bad(rules, state, severity_of(score, rules.threshold), result_id, now_ms)
    elif verdict.evaluation is Evaluation.OK:
        event, state = _after_good(rules, state, score, result_id, now_ms)
    return Decision(verdict, event, state, camera_event)


def evaluate(score: float, threshold: float) -> Verdict:
    """NotOK above the threshold, OK at or below it, NotDecidable (never OK) without a finite score."""
    if not math.isfinite(score):
        return Verdict(Evaluation.NOT_DECIDABLE, None)
    margin = (score - threshold) / threshold
    return Verdict(Evaluation.NOT_OK if score > threshold else Evaluation.OK, margin if math.isfinite(margin) else None)


def severity_of(score: float, threshold: float) -> int:
    """Severity of a score on the scale of OPC UA (Part 9), 1 to 1000: higher is more urgent, in steps of 200.

    1000 * score / (score + threshold): 500 (medium) at the threshold, 667 at twice, 801 (urgent) from about four
    times the threshold. The bound keeps one far outlier from making all others look harmless.
    """
    return max(1, round(_HIGHEST_SEVERITY / (1 + threshold / score))) if score > 0 else 1


def _after_bad(rules: Rules, state: State, severity: int, result_id: str, now_ms: int) -> tuple[Alert | None, State]:
    state = replace(state, recent=(*state.recent, now_ms)[-rules.window :], clear_in_a_row=0)
    event = None
    if state.alert is None:
        bad_at_ms = [at_ms for at_ms in state.recent if at_ms is not None]
        if len(bad_at_ms) >= rules.raise_after:
            event = Alert(
                type="new",
                severity=severity,
                cause="defect",
                started_at_ms=bad_at_ms[0],
                result_id=result_id,
                alert_id=f"defect-{result_id}",  # the same when the results are replayed
            )
    elif severity > state.alert.severity or _is_update_due(rules, state, now_ms):
        highest = max(severity, state.alert.severity)
        event = replace(state.alert, type="update", severity=highest, result_id=result_id)
    return event, state if event is None else replace(state, alert=event, alert_at_ms=now_ms)


def _after_good(rules: Rules, state: State, score: float, result_id: str, now_ms: int) -> tuple[Alert | None, State]:
    is_clear = score <= rules.clear_ratio * rules.threshold
    clear_in_a_row = state.clear_in_a_row + 1 if is_clear else 0
    state = replace(state, recent=(*state.recent, None)[-rules.window :], clear_in_a_row=clear_in_a_row)
    if state.alert is None or state.clear_in_a_row < rules.clear_after:
        return None, state
    return state.alert.ended(now_ms, result_id), State(camera=state.camera, drift=state.drift)


def _is_update_due(rules: Rules, state: State, now_ms: int) -> bool:
    # A clock that was set back must not silence the alert until it has caught up.
    return not 0 <= now_ms - state.alert_at_ms < rules.update_every_ms
