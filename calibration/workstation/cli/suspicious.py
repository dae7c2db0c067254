"""The good images that stand out: what ``fit`` prints about them, and the offer to calibrate again without them."""

from __future__ import annotations

import shlex
import sys
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from rich.prompt import Confirm

from calibration.plain_text import rounded
from calibration.statistics.outliers import stray_indices
from calibration.statistics.threshold import CHI_SQUARE, HIGHEST, working_point
from calibration.terminal import console, escape, say

if TYPE_CHECKING:
    from collections.abc import Sequence

    from calibration.bundle.bundle import Bundle

_SHOWN = 20
_FEWER = (1, 2, 3)


def suspicious_names(bundle: Bundle) -> list[str]:
    """Good images that stand out, the highest score first."""
    return [str(name) for name in bundle.reference()["suspicious_names"]]


def print_suspicious(bundle: Bundle) -> None:
    """Which good images stand out, how to look at them, how to calibrate without them; what sets the threshold."""
    names = suspicious_names(bundle)
    if names:
        say(f"[yellow]{len(names)} suspicious, unlike the other good images:[/]")
        for line in _scores(bundle, names)[:_SHOWN]:
            say(f"  {escape(line)}")
        if len(names) > _SHOWN:
            say(f"  and {len(names) - _SHOWN} more; --suspicious FILE writes all names")
    say(_what_sets_the_threshold(bundle))
    if names:
        report = ["shiftwatch-calibrate", "report", str(bundle.path)]
        say(f"  look at them: {escape(shlex.join(report))}")


def print_advice(bundle: Bundle) -> None:
    """The command that calibrates again without the suspicious images."""
    names = suspicious_names(bundle)
    if not names:
        return
    if len(names) > _SHOWN:
        say("to leave out what is not a good part: --suspicious FILE, delete the good parts from it, --leave-out FILE")
        return
    say(f"to leave out what is not a good part: {escape(shlex.join(_again(bundle.path, names)))}")


def wants_to_leave_out(bundle: Bundle) -> list[str]:
    """The suspicious images, if a person at a terminal agrees to calibrate again without them; else none."""
    names = suspicious_names(bundle)
    if not (names and len(names) <= _SHOWN and console.is_terminal and sys.stdin.isatty()):
        return []
    which = "the suspicious image" if len(names) == 1 else f"these {len(names)} suspicious images"
    question = f"Leave out {which} and calibrate again, into {next_free(bundle.path)}?"
    return names if Confirm.ask(escape(question), console=console, default=False) else []


def next_free(path: Path) -> Path:
    """The bundle's path with the first number behind it that is free."""
    return next(free for number in count(2) if not (free := path.with_name(f"{path.name}-{number}")).exists())


def _again(out: Path, names: Sequence[str]) -> list[str]:
    """The command that was given, with another folder to write and without these images."""
    given = ["shiftwatch-calibrate", *sys.argv[1:]]
    other = str(next_free(out))
    words = [other if word == str(out) else word for word in given]
    return [*words, *(word for name in names for word in ("--leave-out", Path(name).name))]


def _scores(bundle: Bundle, names: Sequence[str]) -> list[str]:
    reference, threshold = bundle.reference(), bundle.working_point.threshold
    good = reference["good_scores"]
    strays = stray_indices(good)
    least_stray = float(good[strays[-1]]) if strays else float("inf")
    return [
        f"{name}  {rounded(score, 4)}, {rounded(score / threshold, 3)} times the threshold"
        + _why(score, threshold, least_stray)
        for name, score in zip(names, reference["suspicious_scores"].tolist(), strict=True)
    ]


def _why(score: float, threshold: float, least_stray: float) -> str:
    if score >= least_stray:
        return "; it does not count for the threshold"
    return "; others like it hide it" if score < threshold else ""


def _what_sets_the_threshold(bundle: Bundle) -> str:
    """The threshold, and what it would be without the highest scores; each with the synthetic defects found."""
    reference, point, forecast = bundle.reference(), bundle.working_point, bundle.forecast
    ordered = np.sort(reference["good_scores"])

    def shown(threshold: float, of_what: str = "") -> str:
        found = "" if forecast is None else f" ({forecast.found(threshold=threshold):.0%}{of_what})"
        return f"{rounded(threshold, 4)}{found}"

    if point.method == CHI_SQUARE:
        return f"the threshold is {shown(point.threshold, ' of the drawn defects found')}, whatever these images score"
    if point.method == HIGHEST:
        return f"the threshold is {shown(point.threshold, ' of the drawn defects found')}, the highest score"
    without = [working_point(ordered[:-fewer], point.false_reject_rate, point.parts).threshold for fewer in _FEWER]
    highest = ", ".join(escape(Path(str(name)).name) for name in reference["highest_names"][: _FEWER[-1]])
    return (
        f"the threshold is {shown(point.threshold, ' of the drawn defects found')}; "
        f"without the highest 1, 2 and 3 good images ({highest}) it would be " + ", ".join(map(shown, without))
    )
