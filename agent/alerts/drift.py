"""The alert about drift, as a pure function."""

from __future__ import annotations

from agent.messages.records import Alert

SEVERITY = 200
"""Low, on the scale to 1000: so far no verdict is worse for it."""
SEVERITY_ALL = 800
"""High: no part can be inspected, but none is known to be bad."""


def drift_alert_step(
    active: Alert | None, cause: str | None, result_id: str, now_ms: int, since_ms: int | None = None
) -> Alert | None:
    """The event of one result, if there is one: an alert starts with a cause, keeps it, and ends without one.

    Where slow drift becomes a sudden change, or the reverse, one alert ends, and the next result begins the other.

    Args:
        active: The alert that is active.
        cause: What has drifted; None when nothing has.
        result_id: Identity of this result.
        now_ms: Wall clock, ms since 1970; it may be set back.
        since_ms: Since when all parts are rejected for this cause; None where they are not.
    """
    severity = SEVERITY if since_ms is None else SEVERITY_ALL
    if active is not None:
        return None if cause is not None and severity == active.severity else active.ended(now_ms, result_id)
    if cause is None:
        return None
    return Alert(
        type="new",
        severity=severity,
        cause=cause,
        started_at_ms=now_ms if since_ms is None else min(since_ms, now_ms),
        result_id=result_id,
        alert_id=f"drift-{result_id}",  # the same when the results are replayed
    )
