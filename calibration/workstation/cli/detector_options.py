"""Detectors by name, with the options of the command line."""

from __future__ import annotations

import math
from dataclasses import fields
from typing import TYPE_CHECKING, Any

from calibration.detectors.gaussian import Gaussian
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.detectors.patch_svdd import PatchSvdd
from calibration.detectors.patchcore import PatchCore
from calibration.errors import SettingError
from calibration.workstation.cli.parse import number

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calibration.detectors.contract import Detector

_DETECTORS: dict[str, type[Any]] = {
    "mean_shift": MeanShift,
    "padim": Padim,
    "gaussian": Gaussian,
    "patchcore": PatchCore,
    "patch_svdd": PatchSvdd,
}
_OPTIONS = {
    "mean_shift": {"alpha", "averaging", "location", "pooling_order", "patch", "dimensions", "modes"},
    "padim": {"dimensions"},
    "gaussian": {"components", "retained_variance", "distance"},
    "patchcore": {"coreset", "neighbours"},
    "patch_svdd": {"epochs", "svdd_weight"},
}
DETECTOR_OPTIONS = frozenset[str]().union(*_OPTIONS.values())


def detector_of(name: str, options: Mapping[str, object]) -> Detector:
    """The detector of this name; ``options`` are None where the user gave none.

    Raises:
        SettingError: An option belongs to another detector, or has a value that makes no sense.
    """
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if option not in _OPTIONS[name]:
            owner = " or ".join(each for each, owned in _OPTIONS.items() if option in owned)
            raise SettingError(
                what=f"--{option.replace('_', '-')} belongs to --detector {owner}, not to {name}",
                remedy=f"leave it out, or give --detector {owner}",
            )
    if "alpha" in given:
        given["alpha"] = number("--alpha", str(given["alpha"]))
    if name == "mean_shift" and given.get("location") == "global" and "averaging" in given:
        raise SettingError(what="--location global averages over the whole image", remedy="leave out --averaging")
    detector: Detector = _DETECTORS[name](**given)
    return detector


def parse_detector(text: str) -> Detector:
    """``NAME`` or ``NAME:OPTION=VALUE,...``, with the names and options of ``detector_of``.

    Raises:
        SettingError: Anything else, or a value that makes no sense.
    """
    name, _, options = text.partition(":")
    if name == PatchSvdd.name:
        raise SettingError(
            what=f"--detector {name} trains encoders of its own for each data set, which takes too long to compare",
            remedy=f"calibrate with fit --detector {name}, and evaluate the bundle",
        )
    if name not in _DETECTORS:
        raise SettingError(what=f"--detector {name!r} is not known", remedy=f"give one of {', '.join(_DETECTORS)}")
    given = [part.partition("=") for part in options.split(",")] if options else []
    return detector_of(name, {option: _typed(name, option, value) for option, _, value in given})


def _typed(name: str, option: str, value: str) -> str | float:
    """The value, of the same type as the detector's default."""
    if option not in _OPTIONS[name]:
        raise SettingError(
            what=f"--detector {name} has no option {option!r}",
            remedy=f"write {name}:OPTION=VALUE,... with {', '.join(sorted(_OPTIONS[name]))}",
        )
    default = next(field.default for field in fields(_DETECTORS[name]) if field.name == option)
    if isinstance(default, str):
        return value
    given = math.inf if value == "inf" else number(f"--detector {name}:{option}", value)
    if isinstance(default, float):
        return given
    if not float(given).is_integer():
        raise SettingError(what=f"--detector {name}:{option} {value} is not whole", remedy="give a whole number")
    return int(given)
