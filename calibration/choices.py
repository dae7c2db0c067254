"""What the options of the command line stand for: sizes, regions, backbones, detectors."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from calibration.backbone import Backbone, filterbank_backbone, onnx_backbone
from calibration.detectors.gaussian import Gaussian
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.detectors.patch_svdd import PatchSvdd
from calibration.detectors.patchcore import PatchCore
from calibration.errors import SettingError
from calibration.preprocess import Region

if TYPE_CHECKING:
    from collections.abc import Mapping

    from calibration.dataset import Images
    from calibration.detectors import Detector
    from calibration.pipeline import Progress, Settings

Colours: TypeAlias = tuple[float, float, float]

_DETECTORS: dict[str, type[Any]] = {
    "mean_shift": MeanShift,
    "padim": Padim,
    "gaussian": Gaussian,
    "patchcore": PatchCore,
    "patch_svdd": PatchSvdd,
}
_OPTIONS = {
    "mean_shift": {"alpha", "averaging", "location"},
    "padim": {"dimensions"},
    "gaussian": {"components", "retained_variance"},
    "patchcore": {"coreset", "neighbours"},
    "patch_svdd": {"epochs", "svdd_weight"},
}


def detector(name: str, options: Mapping[str, object]) -> Detector:
    """The detector of this name.

    Args:
        name: One of the five.
        options: Of any detector; None where the user gave none.

    Raises:
        SettingError: An option belongs to another detector, or has a value that makes no sense.
    """
    given = {option: value for option, value in options.items() if value is not None}
    for option in given:
        if option not in _OPTIONS[name]:
            owner = next(each for each, owned in _OPTIONS.items() if option in owned)
            raise SettingError(
                what=f"--{option.replace('_', '-')} belongs to --detector {owner}, not to {name}",
                remedy=f"leave it out, or give --detector {owner}",
            )
    if "alpha" in given:
        text = str(given["alpha"])
        given["alpha"] = None if text == "auto" else number("--alpha", text)
    chosen: Detector = _DETECTORS[name](**given)
    return chosen


@dataclass(frozen=True, slots=True)
class BackboneChoice:
    """What the options say of the backbone.

    Attributes:
        names: ``filterbank``, a timm name or an ONNX file, several of them joined by ``+``.
        stages: Of the timm model among them, joined by commas.
        weights: Of the timm model.
        mean: Of the ONNX files.
        std: Of the ONNX files.
    """

    names: str
    stages: str
    weights: Path | None
    mean: Colours
    std: Colours


def backbone(choice: BackboneChoice, size: tuple[int, int]) -> Backbone:
    """The backbone, or several on the same frame; the grid is that of the first.

    Raises:
        SettingError: Stages or weights without a timm model, several timm models, or torch is not installed.
        BackboneError: One of them cannot be loaded.
    """
    names = choice.names.split("+")
    timm_models = [name for name in names if name != "filterbank" and not name.endswith(".onnx")]
    if (choice.weights is not None or choice.stages) and not timm_models:
        raise SettingError(
            what=f"--weights and --stages belong to a timm model, not to {choice.names}",
            remedy="name one: --backbone NAME --stages PATH,...",
        )
    if len(timm_models) > 1:
        raise SettingError(
            what=f"--backbone {choice.names} names {len(timm_models)} timm models",
            remedy="give one; others can be joined as ONNX files",
        )
    first, *others = (_one(name, choice, size) for name in names)
    for other in others:
        first += other
    return first


def candidates(choice: BackboneChoice, size: tuple[int, int]) -> tuple[Backbone, ...]:
    """What ``--auto`` may choose from: each backbone named, and all of them together."""
    apart = tuple(
        backbone(replace(choice, names=name, **_of_timm(choice, name)), size) for name in choice.names.split("+")
    )
    if len(apart) == 1:
        return apart
    together = apart[0]
    for other in apart[1:]:
        together += other
    return (*apart, together)


def _of_timm(choice: BackboneChoice, name: str) -> dict[str, Any]:
    if name == "filterbank" or name.endswith(".onnx"):
        return {"stages": "", "weights": None}
    return {"stages": choice.stages, "weights": choice.weights}


def refuse_with_auto(given: Mapping[str, object]) -> None:
    """Raise SettingError if an option was given that ``--auto`` chooses."""
    named = [f"--{option.replace('_', '-')}" for option, value in given.items() if value]
    if named:
        raise SettingError(
            what=f"--auto chooses what {', '.join(named)} would say", remedy="leave out the one or the other"
        )


def refuse_with_patch_svdd(given: Mapping[str, object]) -> None:
    """Raise SettingError if an option was given that has no meaning for encoders trained here."""
    named = [f"--{option.replace('_', '-')}" for option, value in given.items() if value]
    if named:
        raise SettingError(
            what=f"--detector patch_svdd trains encoders of its own, to which {', '.join(named)} does not apply",
            remedy="leave out the one or the other",
        )


def encoders(images: Images, settings: Settings, detector: PatchSvdd, out: Path, progress: Progress) -> Backbone:
    """The encoders of Patch SVDD, trained on the images; a checkpoint lies beside the bundle, see ``checkpoint``.

    Raises:
        SettingError: torch is not installed, or the settings make no sense.
        DatasetError: Too few readable images.
    """
    try:
        from calibration.patch_svdd.training import trained_encoders  # noqa: PLC0415 - as in _one
    except ImportError as error:
        raise SettingError(
            what=f"training the encoders of patch_svdd needs torch ({error})",
            remedy="install it: pip install '.[fit]' in the project's folder; or choose another --detector",
        ) from error
    return trained_encoders(images, settings, detector, checkpoint(out), progress)


def checkpoint(out: Path) -> Path:
    """Where a training that was interrupted is kept: beside the bundle."""
    return out.with_name(f"{out.name}.training.pt")


def _one(name: str, choice: BackboneChoice, size: tuple[int, int]) -> Backbone:
    if name == "filterbank":
        return filterbank_backbone(*size)
    if name.endswith(".onnx"):
        if 0.0 in choice.std:
            raise SettingError(
                what="--std has a zero, which nothing can be divided by", remedy="give 1 for no division"
            )
        return onnx_backbone(Path(name), *size, choice.mean, choice.std)
    try:
        from calibration.timm_backbone import timm_backbone  # noqa: PLC0415 - torch is an extra, and slow to import
    except ImportError as error:
        raise SettingError(
            what=f"the backbone {name} needs torch and timm ({error})",
            remedy="install them: pip install '.[fit]' in the project's folder; or use --backbone filterbank",
        ) from error
    return timm_backbone(name, tuple(filter(None, choice.stages.split(","))), choice.weights, *size)


def size(text: str) -> tuple[int, int]:
    """``HEIGHTxWIDTH`` or one side, in pixels."""
    sides = _numbers("--size", text.lower().replace("x", ","), "HEIGHTxWIDTH or one number, e.g. 224x224")
    if len(sides) not in {1, 2} or any(side < 1 or side % 1 for side in sides):
        raise SettingError(what=f"--size {text} is not a size", remedy="give HEIGHTxWIDTH in pixels, e.g. 224x224")
    return int(sides[0]), int(sides[-1])


def region(text: str) -> Region:
    """``X,Y,WIDTH,HEIGHT`` in frame pixels."""
    numbers = _numbers("--roi", text, "X,Y,WIDTH,HEIGHT in frame pixels")
    if len(numbers) != 4 or any(number % 1 for number in numbers):  # noqa: PLR2004
        raise SettingError(what=f"--roi {text} is not a region", remedy="give X,Y,WIDTH,HEIGHT in frame pixels")
    return Region(*map(int, numbers))


def colours(option: str, text: str) -> tuple[float, float, float]:
    """``R,G,B``."""
    numbers = _numbers(option, text, "three numbers: R,G,B")
    if len(numbers) != 3:  # noqa: PLR2004
        raise SettingError(what=f"{option} {text} has {len(numbers)} numbers", remedy="give three: R,G,B")
    return numbers[0], numbers[1], numbers[2]


def number(option: str, text: str) -> float:
    """One number."""
    numbers = _numbers(option, text, "a number")
    if len(numbers) != 1:
        raise SettingError(what=f"{option} {text} is {len(numbers)} numbers", remedy="give one, with a decimal point")
    return numbers[0]


def _numbers(option: str, text: str, wanted: str) -> tuple[float, ...]:
    try:
        numbers = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise SettingError(what=f"{option} {text!r} is not understood", remedy=f"give {wanted}") from error
    if not all(map(math.isfinite, numbers)):
        raise SettingError(what=f"{option} {text} is not finite", remedy=f"give {wanted}")
    return numbers
