"""Detectors by name, with the options of the command line."""

from __future__ import annotations

import math
from dataclasses import fields, replace
from typing import TYPE_CHECKING, Any

from calibration.detectors.gaussian import Gaussian
from calibration.detectors.hotelling import Hotelling
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
    each.name: each for each in (MeanShift, Hotelling, Padim, Gaussian, PatchCore, PatchSvdd)
}
DETECTOR_OPTIONS = "; ".join(
    f"{name} ({', '.join(field.name for field in fields(detector))})" for name, detector in _DETECTORS.items()
)


def parse_detector(text: str, base: Detector | None = None) -> Detector:
    """``NAME`` or ``NAME:OPTION=VALUE,...``; the options are the fields of the detector.

    Args:
        text: What the user gave.
        base: Has the values of all options that are not given; None: the defaults.

    Raises:
        SettingError: Anything else, a value that makes no sense, or another detector than ``base``.
    """
    name, _, options = text.partition(":")
    if name not in _DETECTORS:
        raise SettingError(what=f"--detector {name!r} is not known", remedy=f"give one of {', '.join(_DETECTORS)}")
    if base is not None and base.name != name:
        raise SettingError(
            what=f"the preset is one of {base.name}, not of {name}",
            remedy=f"leave out --detector, or change the preset by --detector {base.name}:OPTION=VALUE",
        )
    given = [part.partition("=") for part in options.split(",")] if options else []
    return with_options(base or _DETECTORS[name](), {option: _typed(name, option, value) for option, _, value in given})


def with_options(detector: Detector, options: Mapping[str, object]) -> Detector:
    """The detector with some options changed.

    Raises:
        SettingError: A value makes no sense.
    """
    if detector.name == MeanShift.name and options.get("location") == "global" and "averaging" in options:
        raise SettingError(what="--location global averages over the whole image", remedy="leave out --averaging")
    changeable: Any = detector  # a dataclass, which a protocol cannot express
    changed: Detector = replace(changeable, **options)
    return changed


def with_mean_shift_options(detector: Detector, given: Mapping[str, object]) -> Detector:
    """The detector with those options that ``mean_shift`` has on the command line; None where the user gave none.

    Raises:
        SettingError: It is another detector, or a value makes no sense.
    """
    options = {name: value for name, value in given.items() if value is not None}
    if options and detector.name != MeanShift.name:
        raise SettingError(
            what=f"--{next(iter(options)).replace('_', '-')} belongs to --detector mean_shift, not to {detector.name}",
            remedy=f"leave it out; options of {detector.name} are given as --detector {detector.name}:OPTION=VALUE",
        )
    if "alpha" in options:
        options["alpha"] = number("--alpha", str(options["alpha"]))
    return with_options(detector, options)


def _typed(name: str, option: str, value: str) -> str | float:
    """The value, of the same type as the detector's default."""
    defaults = {field.name: field.default for field in fields(_DETECTORS[name])}
    if option not in defaults:
        raise SettingError(
            what=f"--detector {name} has no option {option!r}",
            remedy=f"write {name}:OPTION=VALUE,... with {', '.join(sorted(defaults))}",
        )
    if isinstance(defaults[option], str):
        return value
    given = math.inf if value == "inf" else number(f"--detector {name}:{option}", value)
    if isinstance(defaults[option], float):
        return given
    if not float(given).is_integer():
        raise SettingError(what=f"--detector {name}:{option} {value} is not whole", remedy="give a whole number")
    return int(given)
