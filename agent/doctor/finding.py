"""The result of one check by the doctor.

A probe is a function that checks one thing about this device or its station, changes nothing and yields findings. A
driver may make it hang or crash, so `isolation` runs it in a process of its own.
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
        name: What was checked.
        level: ``fault``: the station cannot inspect, or the line does not get its results; ``warning``: it may suffer.
        found: The result, for people.
        remedy: What to do about it; empty if nothing.
        figures: Numbers of the result, for programs.
    """

    name: str
    level: Level
    found: str
    remedy: str = ""
    figures: Mapping[str, float] = field(default_factory=dict)


def ok(name: str, found: str, **figures: float) -> Finding:
    """A finding without a problem."""
    return Finding(name, "ok", found, figures=figures)


def warn_if(problem: bool, name: str, found: str, remedy: str, **figures: float) -> Finding:  # noqa: FBT001 - as `if`
    """A warning with its remedy if there is a problem, otherwise ok."""
    return Finding(name, "warning", found, remedy, figures) if problem else ok(name, found, **figures)


def fault(name: str, error: ShiftwatchError) -> Finding:
    """An error as a finding."""
    return Finding(name, "fault", error.what, error.remedy)
