"""A backbone from timm, exported as an ONNX feature graph.

Feature maps are recognised by their layout: (1, channels, h, w) in convolutional networks; (1, h, w, channels) where
timm declares it, as for Swin; (1, tokens, channels) in vision transformers, whose tokens lie on the grid of their
patches.
"""

from __future__ import annotations

import difflib
import hashlib
import io
import pickle
import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import onnx
import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.layers.helpers import to_2tuple
from torch import nn

from calibration.backbones.backbone import Backbone, with_output_shapes
from calibration.errors import BackboneError
from calibration.onnx_graph import OPSET, FeatureGraph

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    Arrange = Callable[[torch.Tensor], torch.Tensor]

_TOKENS_RANK = 3
_MAP_RANK = 4


@dataclass(frozen=True)
class _Stage:
    """Shape (channels, h, w) of a module's feature map, and how its output becomes one."""

    shape: tuple[int, int, int]
    arrange: Arrange


class _Stages(nn.Module):
    """A model whose outputs are the feature maps of some stages."""

    def __init__(self, model: nn.Module, stages: Mapping[str, _Stage]) -> None:
        super().__init__()
        self.model = model
        self.stages = tuple(stages)
        self._seen: dict[str, torch.Tensor] = {}
        modules = dict(model.named_modules())
        for path, stage in stages.items():
            modules[path].register_forward_hook(self._keep(path, stage.arrange))

    def _keep(self, path: str, arrange: Arrange) -> Any:  # noqa: ANN401 - torch's hook type is private
        def hook(_module: nn.Module, _inputs: object, output: torch.Tensor) -> None:
            self._seen[path] = arrange(output)

        return hook

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """(n, 3, height, width) to the feature map of each stage, (n, channels, h, w)."""
        self.model(image)
        return tuple(self._seen[stage] for stage in self.stages)


def timm_backbone(name: str, stages: Sequence[str], weights: Path | None, height: int, width: int) -> Backbone:
    """Any timm model, cut at the stages named.

    Args:
        name: Name in timm, e.g. ``tf_efficientnet_lite0``.
        stages: Module paths, e.g. ``("blocks.3", "blocks.4")``; the first sets the grid. Class and register tokens
            of transformers are left out.
        weights: A safetensors or PyTorch file; None lets timm download its own.
        height: Rows of the input.
        width: Columns of the input.

    Raises:
        BackboneError: Unknown name or stage, a size the model does not take, weights that do not fit, no network for
            the download.
    """
    model = _create(name).eval()
    if weights is not None:
        _load(model, name, weights)
    chosen = _chosen(model, name, stages, (height, width))  # refuses before a download
    if weights is None:
        model = _download(name).eval()
        chosen = _chosen(model, name, stages, (height, width))
    config = model.pretrained_cfg
    image = torch.zeros(1, 3, height, width)
    buffer: Any = io.BytesIO()  # accepted by torch, though not by its signature
    with warnings.catch_warnings(), torch.no_grad():
        # TensorRT 10.3 reads the graphs of the tracing exporter only; torch warns that it will be removed.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _Stages(model, chosen),
            (image,),
            buffer,
            opset_version=OPSET,
            input_names=["image"],
            output_names=[f"level{number}" for number in range(len(chosen))],
            dynamo=False,
        )
    exported = with_output_shapes(onnx.load_from_string(buffer.getvalue()), name)
    graph = FeatureGraph(exported, tuple(config["mean"]), tuple(config["std"]))
    digest = (hashlib.sha256(weights.read_bytes()).hexdigest(),) if weights else ()
    return Backbone((graph,), name, tuple(chosen), digest)


def fixed_size(name: str) -> tuple[int, int] | None:
    """Height and width that a transformer was trained with; None for networks that take any size.

    Raises:
        BackboneError: Unknown name.
    """
    config = _create(name).pretrained_cfg
    return tuple(config["input_size"][1:]) if config.get("fixed_input_size") else None


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
    except (OSError, RuntimeError, ValueError) as error:  # raised by the hub's client without a network
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
        reason = next(iter(str(error).splitlines()), "it ends too early")  # EOFError has no message
        raise BackboneError(
            what=f"{weights} does not hold the weights of {name}: {reason}",
            remedy="give the safetensors or state-dict file of this model",
        ) from error
    classifier = model.pretrained_cfg.get("classifier") or "classifier"
    heads = (classifier,) if isinstance(classifier, str) else tuple(classifier)
    missing = [key for key in result.missing_keys if not key.startswith(heads)]
    if missing or result.unexpected_keys:
        wrong = [f"missing {key}" for key in missing] + [f"unknown {key}" for key in result.unexpected_keys]
        raise BackboneError(
            what=f"{weights} does not fit {name}: {', '.join(wrong[:3])} and {max(0, len(wrong) - 3)} more",
            remedy="give the weights of this model",
        )


def _chosen(model: Any, name: str, stages: Sequence[str], size: tuple[int, int]) -> dict[str, _Stage]:  # noqa: ANN401
    """The stages named, of the model resized to this (height, width)."""
    _resize(model, name, size)
    known = _feature_maps(model, name, size)
    unknown = [path for path in stages if path not in known]
    if unknown or not stages:
        shown = _listed(model, known)
        wrong = f"no stage {', '.join(map(repr, unknown))}" if unknown else "no --stages given"
        raise BackboneError(
            what=f"{wrong} in {name} at {size[0]}x{size[1]}",
            remedy=f"give one or more of these, separated by commas: {'; '.join(shown)}"
            if shown
            else "choose another backbone: none of its layers gives a feature map of a known layout",
        )
    return {path: known[path] for path in stages}


def _resize(model: Any, name: str, size: tuple[int, int]) -> None:  # noqa: ANN401 - timm is untyped
    """Resample all that depends on the size: position embeddings of transformers, windows of Swin."""
    if not hasattr(model, "set_input_size"):
        return
    patch = to_2tuple(getattr(getattr(model, "patch_embed", None), "patch_size", 1))
    whole = [max(1, round(side / step)) * step for side, step in zip(size, patch, strict=True)]
    if tuple(whole) != size:  # the rest would be cut off, and the score map would be misplaced
        raise BackboneError(
            what=f"{name} takes patches of {patch[0]}x{patch[1]} pixels, which do not fill {size[0]}x{size[1]}",
            remedy=f"give whole patches, e.g. --size {whole[0]}x{whole[1]}",
        )
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's warnings about how timm resamples
            model.set_input_size(img_size=size)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise _size_error(model, name, size, error) from error


def _size_error(model: Any, name: str, size: tuple[int, int], error: Exception) -> BackboneError:  # noqa: ANN401
    _, height, width = model.pretrained_cfg["input_size"]
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return BackboneError(
        what=f"{name} does not take a network input of {size[0]}x{size[1]}: {reason}",
        remedy=f"give another size, e.g. the one it was trained with: --size {height}x{width}",
    )


def _feature_maps(model: Any, name: str, size: tuple[int, int]) -> dict[str, _Stage]:  # noqa: ANN401
    """Every module that gives a feature map, by its path."""
    stages: dict[str, _Stage] = {}

    def note(path: str) -> Any:  # noqa: ANN401 - torch's hook type is private
        def hook(_module: nn.Module, _inputs: object, output: object) -> None:
            arrange = _arrangement(model, path, output, size)
            if arrange is not None and isinstance(output, torch.Tensor):
                _, channels, height, width = arrange(output).shape
                if min(height, width) > 1:
                    stages[path] = _Stage((channels, height, width), arrange)

        return hook

    handles = [module.register_forward_hook(note(path)) for path, module in model.named_modules() if path]
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, *size))
    except (AssertionError, RuntimeError, ValueError) as error:  # timm's own checks, and shapes that do not match
        raise _size_error(model, name, size, error) from error
    finally:
        for handle in handles:
            handle.remove()
    return stages


def _arrangement(model: Any, path: str, output: object, size: tuple[int, int]) -> Arrange | None:  # noqa: ANN401
    """How the output of a module becomes a feature map; None if it is not one, or its layout is not known."""
    if not isinstance(output, torch.Tensor) or output.ndim not in {_TOKENS_RANK, _MAP_RANK} or len(output) != 1:
        return None
    grid = _token_grid(model)
    if grid is not None:
        return _tokens(output, grid, model.num_prefix_tokens) if output.ndim == _TOKENS_RANK else None
    if output.ndim != _MAP_RANK:
        return None
    if getattr(model, "output_fmt", "NCHW") == "NHWC":
        return _channels_first if path in _named_by_timm(model) else None
    # A map has the proportions of the image, to within a cell: channels that come last, and attention, do not.
    height, width = output.shape[2:]
    # It is copied, because a later layer may work in place, as the activations of VGG do.
    return torch.clone if abs(height - width * size[0] / size[1]) <= 1 else None


def _token_grid(model: Any) -> tuple[int, int] | None:  # noqa: ANN401 - timm is untyped
    """(h, w) of the patches of a vision transformer; None for other models."""
    if not hasattr(model, "num_prefix_tokens"):
        return None
    grid: tuple[int, int] | None = getattr(getattr(model, "patch_embed", None), "grid_size", None)
    return grid


def _tokens(output: torch.Tensor, grid: tuple[int, int], prefix: int) -> Arrange | None:
    """Tokens on their grid, without the class, distillation and register tokens before them."""
    before = output.shape[1] - grid[0] * grid[1]
    if before not in {0, prefix}:
        return None
    return lambda tokens: tokens[:, before:].transpose(1, 2).reshape(1, -1, *grid)


def _channels_first(output: torch.Tensor) -> torch.Tensor:
    return output.permute(0, 3, 1, 2).contiguous()


def _named_by_timm(model: Any) -> set[str]:  # noqa: ANN401 - timm is untyped
    return {stage["module"] for stage in model.feature_info}


def _listed(model: Any, known: Mapping[str, _Stage]) -> list[str]:  # noqa: ANN401 - timm is untyped
    """The stages to suggest: for a transformer, in which every layer gives tokens, its blocks."""
    named = _named_by_timm(model) if _token_grid(model) else {path for path in known if path.count(".") <= 1}
    return [
        f"{path} ({stage.shape[0]} channels, {stage.shape[1]}x{stage.shape[2]})"
        for path, stage in known.items()
        if path in named
    ]
