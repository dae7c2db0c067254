"""A backbone from timm, exported to an ONNX feature graph. The only module that imports torch."""

from __future__ import annotations

import difflib
import hashlib
import io
import pickle
import warnings
from typing import TYPE_CHECKING, Any

import onnx
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import nn

from calibration.backbone import Backbone, with_known_outputs
from calibration.errors import BackboneError
from calibration.graph import OPSET, FeatureGraph

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

_FEATURE_RANK = 4


class _Stages(nn.Module):
    """The outputs of some stages."""

    def __init__(self, model: nn.Module, stages: Sequence[str]) -> None:
        super().__init__()
        self.model = model
        self.stages = tuple(stages)
        self._seen: dict[str, torch.Tensor] = {}
        modules = dict(model.named_modules())
        for stage in stages:
            modules[stage].register_forward_hook(self._keep(stage))

    def _keep(self, stage: str) -> Any:  # noqa: ANN401 - torch's hook type is private
        def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            self._seen[stage] = output

        return hook

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(n, 3, height, width) to (n, channels, h, w) of each stage."""
        self.model(image)
        return tuple(self._seen[stage] for stage in self.stages)


def timm_backbone(name: str, stages: Sequence[str], weights: Path | None, height: int, width: int) -> Backbone:
    """Any timm model, cut at the stages named.

    Args:
        name: As timm knows it, e.g. ``tf_efficientnet_lite0``.
        stages: Module paths, e.g. ``("blocks.3", "blocks.4")``; the first sets the grid.
        weights: A safetensors or PyTorch file; None lets timm download its own.
        height: Rows of the input.
        width: Columns of the input.

    Raises:
        BackboneError: Unknown name or stage, weights that do not fit, no network for the download.
    """
    model = _create(name).eval()
    _check_stages(model, name, stages, height, width)  # before a download
    if weights is None:
        model = _download(name).eval()
    else:
        _load(model, name, weights)
    config = model.pretrained_cfg
    image = torch.zeros(1, 3, height, width)
    buffer: Any = io.BytesIO()  # torch takes it, though its signature does not say so
    with warnings.catch_warnings(), torch.no_grad():
        # The tracing exporter is the one whose graphs TensorRT 10.3 reads; torch announces its retirement each time.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Stages(model, stages),
            (image,),
            buffer,
            opset_version=OPSET,
            input_names=["image"],
            output_names=[f"level{number}" for number in range(len(stages))],
            dynamo=False,
        )
    exported = with_known_outputs(onnx.load_from_string(buffer.getvalue()), name)
    graph = FeatureGraph(exported, tuple(config["mean"]), tuple(config["std"]))
    digest = (hashlib.sha256(weights.read_bytes()).hexdigest(),) if weights else ()
    return Backbone((graph,), name, tuple(stages), digest)


def _create(name: str) -> Any:  # noqa: ANN401 - timm is untyped
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.4)
        raise BackboneError(
            what=f"timm {timm.__version__} has no model {name!r}",
            remedy=(f"nearest names: {', '.join(close)}; or " if close else "") + "give filterbank or an ONNX file",
        )
    return timm.create_model(name, pretrained=False)


def _download(name: str) -> Any:  # noqa: ANN401 - timm is untyped
    try:
        return timm.create_model(name, pretrained=True)
    except (OSError, RuntimeError, ValueError) as error:  # what the hub's client raises without a network
        raise BackboneError(
            what=f"the weights of {name} could not be downloaded: {str(error).splitlines()[0]}",
            remedy="download them elsewhere and give them with --weights FILE, or use --backbone filterbank",
        ) from error


def _load(model: Any, name: str, weights: Path) -> None:  # noqa: ANN401 - timm is untyped
    try:
        state = (
            load_file(weights)
            if weights.suffix == ".safetensors"
            else torch.load(weights, map_location="cpu", weights_only=True)
        )
        result = model.load_state_dict(state, strict=False)
    except (EOFError, OSError, RuntimeError, TypeError, SafetensorError, pickle.UnpicklingError) as error:
        reason = next(iter(str(error).splitlines()), "it ends too early")  # EOFError comes without words
        raise BackboneError(
            what=f"{weights} does not hold the weights of {name}: {reason}",
            remedy="give the safetensors or state-dict file of that very model",
        ) from error
    classifier = model.pretrained_cfg.get("classifier") or "classifier"
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    missing = [key for key in result.missing_keys if not key.startswith(heads)]
    if missing or result.unexpected_keys:
        wrong = [f"missing {key}" for key in missing] + [f"unknown {key}" for key in result.unexpected_keys]
        raise BackboneError(
            what=f"{weights} does not fit {name}: {', '.join(wrong[:3])} and {max(0, len(wrong) - 3)} more",
            remedy="give the weights of that very model",
        )


def _check_stages(model: nn.Module, name: str, stages: Sequence[str], height: int, width: int) -> None:
    maps = _feature_maps(model, height, width)
    unknown = [stage for stage in stages if stage not in maps]
    if unknown or not stages:
        shown = [
            f"{stage} ({shape[0]} channels, {shape[1]}x{shape[2]})"
            for stage, shape in maps.items()
            if stage.count(".") <= 1
        ]
        wrong = f"no stage {', '.join(map(repr, unknown))}" if unknown else "no --stages given"
        raise BackboneError(
            what=f"{wrong} in {name} at {height}x{width}",
            remedy=f"give one or more of these, separated by commas: {'; '.join(shown)}",
        )


def _feature_maps(model: nn.Module, height: int, width: int) -> dict[str, tuple[int, int, int]]:
    """(channels, h, w) of every module that gives a feature map."""
    maps: dict[str, tuple[int, int, int]] = {}

    def note(stage: str) -> Any:  # noqa: ANN401 - torch's hook type is private
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            if isinstance(output, torch.Tensor) and output.ndim == _FEATURE_RANK and min(output.shape[-2:]) > 1:
                maps[stage] = (output.shape[1], output.shape[2], output.shape[3])

        return hook

    handles = [module.register_forward_hook(note(path)) for path, module in model.named_modules() if path]
    with torch.no_grad():
        model(torch.zeros(1, 3, height, width))
    for handle in handles:
        handle.remove()
    return maps
