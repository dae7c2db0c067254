"""Backbones that need no torch: the filterbank and ONNX files. For timm see ``timm_backbone``."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import onnx
import onnxruntime as ort
from onnx import helper, version_converter

from calibration.backbones.constant_folding import absorb_paddings, fold, foldable_tensors
from calibration.backbones.filterbank import STRIDE, filterbank
from calibration.backbones.onnx_file import EXPORT_AGAIN, RANK, RGB, check_input, inputs_of, read_model
from calibration.engine.onnxruntime import REFUSALS
from calibration.errors import BackboneError, SettingError
from calibration.onnx_graph import FLOAT, OPSET, FeatureGraph

if TYPE_CHECKING:
    from pathlib import Path


@dataclass(frozen=True)
class Backbone:
    """One or more feature graphs on the same frame, and their origin.

    Attributes:
        graphs: The graphs to fuse.
        name: ``filterbank``, a timm name, or the name of an ONNX file; joined by ``+``.
        stages: Paths of the modules whose outputs are the levels; empty if the graph defines them.
        weights_sha256: SHA-256 of the weight or ONNX files.
    """

    graphs: tuple[FeatureGraph, ...]
    name: str
    stages: tuple[str, ...] = ()
    weights_sha256: tuple[str, ...] = ()

    @property
    def input_size(self) -> tuple[int, int]:
        """(height, width) of the input."""
        return self.graphs[0].input_size

    @property
    def level_channels(self) -> tuple[int, ...]:
        """Channels of each level."""
        return tuple(level.shape[0] for graph in self.graphs for level in graph.levels)

    @property
    def label(self) -> str:
        """Name and stages, to display."""
        return f"{self.name} {','.join(self.stages)}".strip()

    def __add__(self, other: Backbone) -> Backbone:
        """Both backbones; the grid is that of the first."""
        return Backbone(
            (*self.graphs, *other.graphs),
            f"{self.name}+{other.name}",
            (*self.stages, *other.stages),
            (*self.weights_sha256, *other.weights_sha256),
        )


def filterbank_backbone(height: int, width: int) -> Backbone:
    """The default backbone, which needs no weights.

    Raises:
        SettingError: A side is not a multiple of 16, or less than 64.
    """
    if height % STRIDE or width % STRIDE or min(height, width) < 4 * STRIDE:
        raise SettingError(
            what=f"filterbank cannot take a network input of {height}x{width}",
            remedy=f"use sides of at least {4 * STRIDE} that are multiples of {STRIDE}, e.g. 224x224",
        )
    return Backbone((FeatureGraph(filterbank(height, width)),), "filterbank")


def onnx_backbone(
    path: Path,
    height: int,
    width: int,
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
    std: tuple[float, float, float] = (1.0, 1.0, 1.0),
) -> Backbone:
    """A backbone from an ONNX file with one image input and one feature map as output.

    Args:
        path: The file; input (n, 3, height, width), float RGB, output (n, channels, h, w). Its weights may
            lie in other files of its folder.
        height: Rows of the input; must agree with the file unless it leaves them open.
        width: Columns of the input, likewise.
        mean: See ``FeatureGraph``.
        std: See ``FeatureGraph``.

    Raises:
        BackboneError: Not readable, or of another form.
    """
    model, digests = read_model(path)
    inputs = inputs_of(model)
    if len(inputs) != 1 or len(model.graph.output) != 1:
        names = ", ".join(value.name for value in (*inputs, *model.graph.output))
        remedy = "export a backbone with one image input and one feature map as output"
        if len(inputs) > 1:
            remedy += "; make the other inputs constants before the export"
        raise BackboneError(
            what=f"{path} has {len(inputs)} inputs and {len(model.graph.output)} outputs ({names})", remedy=remedy
        )
    remedy = check_input(path, inputs[0], height, width)
    model = _at_fixed_size(path, model, inputs[0], (1, RGB, height, width))
    model = with_output_shapes(model, str(path), remedy)
    return Backbone((FeatureGraph(model, mean, std),), path.name, (), digests)


def _at_fixed_size(
    path: Path, model: onnx.ModelProto, value: onnx.ValueInfoProto, shape: tuple[int, ...]
) -> onnx.ModelProto:
    """The model in opset 17, with all shapes fixed for one image."""
    value.CopyFrom(helper.make_tensor_value_info(value.name, FLOAT, shape))
    try:
        version = next((entry.version for entry in model.opset_import if entry.domain in {"", "ai.onnx"}), OPSET)
        if version != OPSET:
            model = version_converter.convert_version(model, OPSET)
    except (RuntimeError, version_converter.ConvertError) as error:
        raise BackboneError(
            what=f"{path} cannot be converted to opset {OPSET}: {str(error).strip().splitlines()[0]}",
            remedy=f"export it again with opset {OPSET} and for one image of {shape[2]}x{shape[3]}",
        ) from error
    return model


def with_output_shapes(model: onnx.ModelProto, name: str, remedy: str = EXPORT_AGAIN) -> onnx.ModelProto:
    """The model with known output shapes and folded constants, found by running it once.

    Exporters and shape inference often leave the shapes open; the fused network needs them.

    Raises:
        BackboneError: ONNX Runtime refuses the model, with this remedy, or an output is not a feature map.
    """
    shape = [dimension.dim_value for dimension in model.graph.input[0].type.tensor_type.shape.dim]
    outputs = len(model.graph.output)
    constants = foldable_tensors(model.graph)
    model.graph.output.extend(onnx.ValueInfoProto(name=constant) for constant in constants)
    try:
        session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
        results = session.run(None, {model.graph.input[0].name: np.zeros(shape, np.float32)})
    except REFUSALS as error:
        raise BackboneError(
            what=f"ONNX Runtime {ort.__version__} refuses {name}: {str(error).splitlines()[0]}", remedy=remedy
        ) from error
    del model.graph.value_info[:], model.graph.output[outputs:]
    fold(model.graph, dict(zip(constants, results[outputs:], strict=True)))
    absorb_paddings(model.graph)
    for output, level in zip(model.graph.output, results[:outputs], strict=True):
        if level.ndim != RANK or len(level) != 1 or level.dtype != np.float32:
            raise BackboneError(
                what=f"the output of {name} is {level.dtype} of shape {level.shape}, "
                "which is not a float32 feature map (1, channels, h, w)",
                remedy="cut the network at a convolutional stage and export it in float32",
            )
        output.CopyFrom(helper.make_tensor_value_info(output.name, FLOAT, level.shape))
    return model
