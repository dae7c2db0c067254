"""Backbones by name: built, chosen by ``--auto``, or trained on the images."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from calibration.backbones.backbone import Backbone, filterbank_backbone, onnx_backbone
from calibration.backbones.onnx_file import fixed_input_size
from calibration.backbones.receptive_field import grid_cell
from calibration.detectors.hotelling import Hotelling
from calibration.detectors.padim import Padim
from calibration.detectors.patch_svdd import PatchSvdd
from calibration.detectors.patchcore import PatchCore
from calibration.errors import SettingError, install_extra
from calibration.network.fusion import feature_shape
from calibration.workstation.fit.auto_tuning import tune
from calibration.workstation.fit.raw_patches import raw_patches

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import ModuleType

    from calibration.detectors.contract import Detector
    from calibration.progress import Progress
    from calibration.workstation.dataset import Images
    from calibration.workstation.settings import Settings

Colours: TypeAlias = tuple[float, float, float]
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class BackboneChoice:
    """Names a backbone.

    Attributes:
        names: ``filterbank``, a timm name or an ONNX file, several of them joined by ``+``.
        stages: Stages of the timm model among them, joined by commas; of several models one after the other, joined by
            ``+``.
        weights: File with the weights of the timm model, or of several, joined by ``+``; None: timm downloads them.
        mean: Subtracted from the input of ONNX files, RGB, 0 to 1.
        std: Divides the input of ONNX files, RGB.
    """

    names: str = "filterbank"
    stages: str = ""
    weights: Path | None = None
    mean: Colours = (0.0, 0.0, 0.0)
    std: Colours = (1.0, 1.0, 1.0)

    @property
    def parts(self) -> list[BackboneChoice]:
        """Each backbone of several, alone; stages and weights go to the timm models, in their order."""
        several = len(self.timm_models) > 1
        stages = iter(self.stages.split("+") if several else [self.stages])
        weights = iter(str(self.weights).split("+") if several and self.weights else [self.weights])
        return [
            self._alone(name, next(stages, ""), next(weights, None)) if is_timm(name) else self._alone(name, "", None)
            for name in self.names.split("+")
        ]

    @property
    def timm_models(self) -> list[str]:
        """The names that are those of timm models."""
        return [name for name in self.names.split("+") if is_timm(name)]

    def _alone(self, name: str, stages: str, weights: str | Path | None) -> BackboneChoice:
        return replace(self, names=name, stages=stages, weights=None if weights is None else Path(weights))


FILTERBANK = BackboneChoice()


def is_timm(name: str) -> bool:
    """Whether one name is that of a timm model."""
    return name != "filterbank" and not name.endswith(".onnx")


def build_backbone(  # noqa: PLR0913, PLR0917 - from what, how and where to
    choice: BackboneChoice | Backbone,
    sizes: Sequence[tuple[int, int]],
    images: Images,
    settings: Settings,
    path: Path,
    progress: Progress,
) -> tuple[Backbone, Settings]:
    """The backbone for these images, and the settings, which tuning may change with it.

    A backbone that is built already stays as it is. Others are opened by name, chosen from the images by tuning, or
    trained on the images, with a checkpoint next to the bundle at ``path``. ``sizes`` has the size of the network
    input, and after it others that tuning tries.

    Raises:
        SettingError: Options that do not go together, or torch is not installed.
        BackboneError: A backbone cannot be loaded.
        DatasetError: Too few readable images to tune or train on.
    """
    if isinstance(choice, Backbone):
        return choice, settings
    if isinstance(settings.detector, PatchSvdd):
        if settings.detector.encoders == "raw":
            return raw_patches(*sizes[0]), settings
        return _trained_encoders(images, settings, settings.detector, checkpoint_of(path), progress), settings
    if settings.tuning_s is None:
        return open_backbone(choice, sizes[0]), settings
    candidates = [backbone for size in sizes for backbone in tuning_candidates(choice, size)]
    return tune(images, candidates, settings, settings.tuning_s, progress)


def on_grid(detector: Detector, backbone: Backbone) -> Detector:
    """The detector for the input and the grid of a backbone: sizes that it has in pixels turned into cells.

    Raises:
        SettingError: The cells do not allow these sizes.
    """
    if isinstance(detector, Hotelling):
        return detector.on_grid(grid_cell(backbone), feature_shape(backbone)[1:])
    if isinstance(detector, Padim):
        return detector.on_image(backbone.input_size)
    if isinstance(detector, PatchCore):
        return detector.on_image(backbone.input_size, [len(graph.levels) for graph in backbone.graphs])
    return detector


def checkpoint_of(path: Path) -> Path:
    """Where an interrupted training is kept: next to the bundle."""
    return path.with_name(f"{path.name}.training.pt")


def open_backbone(choice: BackboneChoice, size: tuple[int, int]) -> Backbone:
    """The backbone, or several on the same frame; the grid is that of the first.

    Raises:
        SettingError: Stages or weights without a timm model, or not of each one, or torch is not installed.
        BackboneError: One of them cannot be loaded.
    """
    timm_models = choice.timm_models
    if (choice.weights is not None or choice.stages) and not timm_models:
        raise SettingError(
            what=f"--weights and --stages belong to a timm model, not to {choice.names}",
            remedy="name one: --backbone NAME --stages PATH,...",
        )
    for option, given in (("--stages", choice.stages), ("--weights", str(choice.weights or ""))):
        named = given.count("+") + 1
        if len(timm_models) > 1 and named != len(timm_models) and (given or option == "--stages"):
            raise SettingError(
                what=f"--backbone {choice.names} names {len(timm_models)} timm models, {option} has those of {named}",
                remedy=f"join those of each by +, in the same order: {option} A+B",
            )
    first, *others = (_open_one(part, size) for part in choice.parts)
    for other in others:
        first += other
    return first


def fixed_size(choice: BackboneChoice) -> tuple[int, int] | None:
    """Height and width of the only network input that a backbone is made for; None if it takes any.

    Raises:
        SettingError: torch is not installed.
        BackboneError: An ONNX file cannot be read.
    """
    sizes = (
        _timm(part.names).fixed_size(part.names) if is_timm(part.names) else fixed_input_size(Path(part.names))
        for part in choice.parts
        if part.names != "filterbank"
    )
    return next((size for size in sizes if size is not None), None)


def _open_one(choice: BackboneChoice, size: tuple[int, int]) -> Backbone:
    if choice.names == "filterbank":
        return filterbank_backbone(*size)
    if not is_timm(choice.names):
        if 0.0 in choice.std:
            raise SettingError(
                what="--std has a zero, which nothing can be divided by", remedy="give 1 for no division"
            )
        return onnx_backbone(Path(choice.names), *size, choice.mean, choice.std)
    stages = tuple(filter(None, choice.stages.split(",")))
    backbone: Backbone = _timm(choice.names).timm_backbone(choice.names, stages, choice.weights, *size)
    return backbone


def _timm(name: str) -> ModuleType:
    """The module that needs torch.

    Raises:
        SettingError: torch is not installed.
    """
    try:
        from calibration.workstation.torch_models import timm_backbone  # noqa: PLC0415 - torch is an extra, and slow to import
    except ImportError as error:
        raise SettingError(
            what=f"the backbone {name} needs torch and timm ({error})",
            remedy=f"install them: {install_extra('fit')}; or use --backbone filterbank",
        ) from error
    return timm_backbone


def tuning_candidates(choice: BackboneChoice, size: tuple[int, int]) -> list[Backbone]:
    """What ``--auto`` may choose from: the backbone named, then each part of it alone, then each stage alone."""
    parts = choice.parts
    candidates = [choice, *(parts if len(parts) > 1 else ())]
    for part in parts:
        stages = [stage for stage in part.stages.split(",") if stage]
        candidates += [replace(part, stages=stage) for stage in stages if len(stages) > 1]
    return [open_backbone(each, size) for each in candidates]


def backbone_choices(
    names: Sequence[str], stages: Sequence[str], weights: Sequence[Path], normalisation: tuple[Colours, Colours]
) -> list[BackboneChoice]:
    """Several backbones to compare; ``normalisation`` has mean and standard deviation for all ONNX files.

    Raises:
        SettingError: Neither one nor as many stages or weights as there are timm models.
    """
    with_timm = [any(map(is_timm, name.split("+"))) for name in names]
    stages_in_turn = _in_turn("--stages", stages, "", sum(with_timm))
    weights_in_turn = _in_turn("--weights", weights, None, sum(with_timm))
    return [
        BackboneChoice(name, next(stages_in_turn), next(weights_in_turn), *normalisation)
        if has_timm
        else BackboneChoice(name, "", None, *normalisation)
        for name, has_timm in zip(names, with_timm, strict=True)
    ]


def _in_turn(option: str, given: Sequence[Value], default: Value, models: int) -> Iterator[Value]:
    if len(given) not in {0, 1, models} or (given and not models):
        raise SettingError(
            what=f"{len(given)} {option} for {models} backbones from timm",
            remedy="give one for all of them, or one for each, in the order of --backbone",
        )
    return iter(given if len(given) > 1 else [*given, default][:1] * models)


def _trained_encoders(
    images: Images, settings: Settings, detector: PatchSvdd, checkpoint: Path, progress: Progress
) -> Backbone:
    try:
        from calibration.workstation.torch_models.patch_svdd.training import trained_encoders  # noqa: PLC0415 - as above
    except ImportError as error:
        raise SettingError(
            what=f"training the encoders of patch_svdd needs torch ({error})",
            remedy=f"install it: {install_extra('fit')}; or choose another --detector",
        ) from error
    return trained_encoders(images, settings, detector, checkpoint, progress)
