"""What the options of the command line stand for: sizes, regions, backbones, detectors."""

from __future__ import annotations

import math
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from calibration.backbones.backbone import Backbone, filterbank_backbone, onnx_backbone
from calibration.detectors.gaussian import Gaussian
from calibration.detectors.mean_shift import MeanShift
from calibration.detectors.padim import Padim
from calibration.detectors.patch_svdd import PatchSvdd
from calibration.detectors.patchcore import PatchCore
from calibration.errors import SettingError
from calibration.workstation.cli.parse import number
from calibration.workstation.fit.extraction import gathered_here

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from calibration.detectors.contract import Detector
    from calibration.progress import Progress
    from calibration.workstation.dataset import Images
    from calibration.workstation.fit.extraction import Gather
    from calibration.workstation.settings import Settings

Colours: TypeAlias = tuple[float, float, float]
Value = TypeVar("Value")

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
            owner = " or ".join(each for each, owned in _OPTIONS.items() if option in owned)
            raise SettingError(
                what=f"--{option.replace('_', '-')} belongs to --detector {owner}, not to {name}",
                remedy=f"leave it out, or give --detector {owner}",
            )
    if "alpha" in given:
        given["alpha"] = number("--alpha", str(given["alpha"]))
    if name == "mean_shift" and given.get("location") == "global" and "averaging" in given:
        raise SettingError(what="--location global averages over the whole picture", remedy="leave out --averaging")
    chosen: Detector = _DETECTORS[name](**given)
    return chosen


def described_detector(text: str) -> Detector:
    """``NAME`` or ``NAME:OPTION=VALUE,...``, with the names and options of ``detector``.

    Raises:
        SettingError: Neither, or a value that makes no sense.
    """
    name, _, options = text.partition(":")
    if name == PatchSvdd.name:
        raise SettingError(
            what=f"--detector {name} trains encoders of its own for each data set, which a comparison cannot wait for",
            remedy=f"calibrate with fit --detector {name}, and evaluate the bundle",
        )
    if name not in _DETECTORS:
        raise SettingError(what=f"--detector {name!r} is not known", remedy=f"give one of {', '.join(_DETECTORS)}")
    given = [part.partition("=") for part in options.split(",")] if options else []
    return detector(name, {option: _typed(name, option, value) for option, _, value in given})


def _typed(name: str, option: str, value: str) -> str | float:
    """A value of the type that the detector's default has."""
    if option not in _OPTIONS[name]:
        raise SettingError(
            what=f"--detector {name}: {option!r} is no option of it",
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
    timm_models = _timm_models(choice.names)
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


def _timm_models(names: str) -> list[str]:
    return [name for name in names.split("+") if name != "filterbank" and not name.endswith(".onnx")]


def backbones(
    names: Sequence[str], stages: Sequence[str], weights: Sequence[Path], normalisation: tuple[Colours, Colours]
) -> list[BackboneChoice]:
    """What the options say of several backbones.

    Args:
        names: Of each.
        stages: Of all timm models alike, or of each in its turn.
        weights: The same.
        normalisation: Mean and standard deviation, of all ONNX files.

    Raises:
        SettingError: Neither one nor as many stages or weights as there are timm models.
    """
    timm_models = [name for name in names if _timm_models(name)]
    stages_in_turn = _in_turn("--stages", stages, "", len(timm_models))
    weights_in_turn = _in_turn("--weights", weights, None, len(timm_models))
    return [
        BackboneChoice(name, next(stages_in_turn), next(weights_in_turn), *normalisation)
        if _timm_models(name)
        else BackboneChoice(name, "", None, *normalisation)
        for name in names
    ]


def _in_turn(option: str, given: Sequence[Value], default: Value, models: int) -> Iterator[Value]:
    if len(given) not in {0, 1, models} or (given and not models):
        raise SettingError(
            what=f"{len(given)} {option} for {models} backbones from timm",
            remedy="give one for all of them, or one for each, in the order of --backbone",
        )
    return iter(given if len(given) > 1 else [*given, default][:1] * models)


def candidates(choice: BackboneChoice, size: tuple[int, int]) -> tuple[Backbone, ...]:
    """What ``--auto`` may choose from: what was asked for, then each backbone of it alone, then each stage alone."""
    names, stages = choice.names.split("+"), [stage for stage in choice.stages.split(",") if stage]
    asked = [choice]
    if len(names) > 1:
        asked += [replace(choice, names=name, **_of_timm(choice, name)) for name in names]
    if len(stages) > 1:
        timm_model = next(name for name in names if _of_timm(choice, name)["stages"])
        asked += [replace(choice, names=timm_model, stages=stage) for stage in stages]
    return tuple(backbone(each, size) for each in asked)


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
        from calibration.workstation.torch_models.patch_svdd.training import trained_encoders  # noqa: PLC0415 - as in _one
    except ImportError as error:
        raise SettingError(
            what=f"training the encoders of patch_svdd needs torch ({error})",
            remedy="install it: pip install '.[fit]' in the project's folder; or choose another --detector",
        ) from error
    return trained_encoders(images, settings, detector, checkpoint(out), progress)


@contextmanager
def gathering(dask: str | None) -> Iterator[Gather]:
    """Where to gather: here, or on the cluster of this address.

    Raises:
        SettingError: Dask is not installed, or the address makes no sense.
        ClusterError: Nobody answers there.
    """
    if dask is None:
        yield gathered_here
        return
    try:
        from calibration.workstation.fit.dask_client import Cluster, connected  # noqa: PLC0415
        from calibration.workstation.fit.dask_extraction import OnCluster  # noqa: PLC0415 - as in _one
    except ImportError as error:
        raise SettingError(
            what=f"--dask needs Dask ({error})",
            remedy="install it: pip install '.[dask]' in the project's folder; or leave out --dask",
        ) from error
    with connected(dask) as client:
        yield OnCluster(Cluster(client))


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
        from calibration.workstation.torch_models.timm_backbone import timm_backbone  # noqa: PLC0415 - torch is an extra, and slow to import
    except ImportError as error:
        raise SettingError(
            what=f"the backbone {name} needs torch and timm ({error})",
            remedy="install them: pip install '.[fit]' in the project's folder; or use --backbone filterbank",
        ) from error
    return timm_backbone(name, tuple(filter(None, choice.stages.split(","))), choice.weights, *size)
