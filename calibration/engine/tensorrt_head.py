"""Body and head of a network: an engine can be given another head, so networks with the same body can share one."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx
    from numpy.typing import NDArray

HEAD = "head."


def body_digest(network: bytes) -> str:
    """SHA-256 of all but the values of the head's weights; their names and shapes are part of it."""
    model = _loaded(network)
    for tensor in model.graph.initializer:
        if tensor.name.startswith(HEAD):
            tensor.ClearField("raw_data")
            tensor.ClearField("float_data")
    return sha256(model.SerializeToString(deterministic=True)).hexdigest()


def head_weights(network: bytes) -> dict[str, NDArray[Any]]:
    """The head's weights by their ONNX names."""
    from onnx import numpy_helper  # noqa: PLC0415 - as below

    initialisers = _loaded(network).graph.initializer
    return {each.name: numpy_helper.to_array(each) for each in initialisers if each.name.startswith(HEAD)}


def _loaded(network: bytes) -> onnx.ModelProto:
    import onnx  # noqa: PLC0415 - needed only to make an engine, not to run one

    return onnx.load_from_string(network)
