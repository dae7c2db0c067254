"""Reads ONNX files with all their weights, and says what to do about those that take something else than an image."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import onnx
from google.protobuf.message import DecodeError
from onnx import external_data_helper

from calibration.errors import BackboneError
from calibration.onnx_graph import FLOAT, external_tensors

if TYPE_CHECKING:
    from pathlib import Path

RANK = 4
RGB, _GREY = 3, 1
_LARGEST_BYTES = 2**31 - 2**26  # protobuf takes 2 GiB, and the network gets a head
EXPORT_AGAIN = "export the backbone again for one float image, with standard operators"


def read_model(path: Path) -> tuple[onnx.ModelProto, tuple[str, ...]]:
    """The model with all its weights, and the SHA-256 of each file that it came from.

    Raises:
        BackboneError: Not readable, not ONNX, or weights in another file are not there.
    """
    try:
        content = path.read_bytes()
        model = onnx.load_from_string(content)
    except OSError as error:
        raise BackboneError(
            what=f"cannot read the backbone {path}: {error.strerror}", remedy="check the path and its permissions"
        ) from error
    except (DecodeError, ValueError) as error:
        raise BackboneError(what=f"{path} is not an ONNX file", remedy="export the backbone again") from error
    contents = [content]
    if names := _files_of_weights(model):
        try:
            files = [path.parent / name for name in names]
            if sum(file.stat().st_size for file in files) > _LARGEST_BYTES:
                raise BackboneError(what=f"{path} has more than 2 GiB of weights", remedy="choose a smaller backbone")
            external_data_helper.load_external_data_for_model(model, str(path.parent))
            contents += [file.read_bytes() for file in files]
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise _no_weights(path, names, str(error).splitlines()[0]) from error
        if external_tensors(model):
            raise _no_weights(path, names, "some are inside a function or branch")
    return model, tuple(hashlib.sha256(each).hexdigest() for each in contents)


def inputs_of(model: onnx.ModelProto) -> list[onnx.ValueInfoProto]:
    """What the model takes; older exports list its weights among the inputs."""
    initializers = {tensor.name for tensor in model.graph.initializer}
    return [value for value in model.graph.input if value.name not in initializers]


def fixed_input_size(path: Path) -> tuple[int, int] | None:
    """Height and width of the images that an ONNX file takes; None if it leaves them open, or takes no one image.

    Raises:
        BackboneError: See ``read_model``.
    """
    model, _ = read_model(path)
    shapes = [[side.dim_value for side in value.type.tensor_type.shape.dim] for value in inputs_of(model)]
    if len(shapes) != 1 or len(shapes[0]) != RANK or not all(shapes[0][2:]):
        return None
    return shapes[0][2], shapes[0][3]


def _files_of_weights(model: onnx.ModelProto) -> list[str]:
    """Names of other files with weights, relative to that of the model."""
    entries = [entry for tensor in external_tensors(model) for entry in tensor.external_data]
    return sorted({entry.value for entry in entries if entry.key == "location"})


def _no_weights(path: Path, names: list[str], reason: str) -> BackboneError:
    return BackboneError(
        what=f"cannot read the weights of {path} from {', '.join(names):.200}: {reason}",
        remedy=f"keep the files of the export together in one folder, without links, or export again into {path.name} "
        "alone (torch.onnx.export with external_data=False)",
    )


def check_input(path: Path, value: onnx.ValueInfoProto, height: int, width: int) -> str:
    """The remedy in case that the model, whose input may be (1, 3, height, width), float, does not run.

    Raises:
        BackboneError: Its input is something else.
    """
    kind = value.type.tensor_type
    if kind.elem_type != FLOAT:
        raise BackboneError(
            what=f"{path} takes {onnx.TensorProto.DataType.Name(kind.elem_type).lower()}, not float (32 bits)",
            remedy="export it in float32, without quantisation of its input",
        )
    if not kind.HasField("shape"):
        return f"it says nothing of the shape of its input: export it again for one image (1, 3, {height}, {width})"
    shape = tuple(dimension.dim_value for dimension in kind.shape.dim)
    if remedy := _why_not_fitting(shape, height, width):
        raise BackboneError(what=f"{path} takes {shape}, not (n, {RGB}, {height}, {width})", remedy=remedy)
    if shape[0] > 1:
        return f"it was exported for {shape[0]} images at once: export it again for one"
    if not all(shape[2:]):
        return f"it leaves its size open, but cannot take {height}x{width}: try multiples of 32, or export it for one"
    return EXPORT_AGAIN


def _why_not_fitting(shape: tuple[int, ...], height: int, width: int) -> str | None:
    """What to do about an input of this shape, in which 0 is open; None if it fits."""
    if len(shape) != RANK:
        return f"export it for images of four dimensions: (1, {RGB}, {height}, {width})"
    _, channels, rows, columns = shape
    if channels != RGB and columns in {_GREY, RGB}:
        return (
            "its channels come last (NHWC, as TensorFlow and Keras have them): export it with channels first, e.g. "
            "python -m tf2onnx.convert with --inputs-as-nchw and --outputs-as-nchw"
        )
    if channels == _GREY:
        return (
            "it takes grey images: export it for three channels; a grey frame is given as three equal ones, so a third "
            "of the weights of the first layer for each gives the same features"
        )
    if channels not in {0, RGB}:
        return f"it takes {channels} channels: export it for the three of RGB"
    if rows not in {0, height} or columns not in {0, width}:
        return f"use the size it was exported with: --size {rows or height}x{columns or width}"
    return None
