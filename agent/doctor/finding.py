"""Probes ask one question each about this device or its station; they change nothing.

A probe is a function that yields findings. It may hang or crash in a driver: `isolation` runs it in a process of its
own.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calibration.errors import ShiftwatchError

Level: TypeAlias = Literal["ok", "warning", "fault"]


@dataclass(frozen=True, slots=True)
class Finding:
    """What a probe found.

    Attributes:
        name: What was looked at.
        level: ``fault``: inspection cannot run, or the line does not hear it; ``warning``: it may suffer.
        found: For people.
        remedy: What to do about it; empty if nothing.
        figures: The same in numbers, for programs.
    """

    name: str
    level: Level
    found: str
    remedy: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


def ok(name: str, found: str, **figures: float) -> Finding:
    """All is well, or nothing to say against it."""
    return Finding(name, "ok", found, figures=figures)


def fault(name: str, error: ShiftwatchError) -> Finding:
    """An error is a finding as it stands."""
    return Finding(name, "fault", error.what, error.remedy)
