"""What half precision really gives, on a CPU.

ONNX Runtime's CPU provider computes FP16 networks in FP32 and drops the rounding between nodes, so that running a
whole network there would prove nothing. Here each node is a network of its own: what goes in and what comes out are
FP16 arrays where the graph says so. The arithmetic inside one operator is FP32.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import onnx
import onnxruntime as ort
from onnx import helper, numpy_helper

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class NodeByNode:
    """A network each of whose tensors has the precision that the graph states."""

    def __init__(self, network: onnx.ModelProto) -> None:
        self._network = network
        self._constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in network.graph.initializer}
        self._last_use = {name: place for place, node in enumerate(network.graph.node) for name in node.input}
        self._sessions: dict[str, Any] = {}

    def __call__(self, frames: NDArray[Any]) -> dict[str, NDArray[np.float32]]:
        """All outputs for (n, height, width, 3)."""
        values: dict[str, NDArray[Any]] = {"frame": frames}
        outputs = {output.name for output in self._network.graph.output}
        for place, node in enumerate(self._network.graph.node):
            values.update(self._run(node, values))
            for name in set(node.input) - outputs:
                if self._last_use[name] == place:
                    values.pop(name, None)
        return {name: values[name] for name in outputs}

    def _run(self, node: onnx.NodeProto, values: dict[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        given = {name: values[name] for name in node.input if name in values}
        session = self._sessions.get(node.output[0])
        if session is None:
            session = self._sessions[node.output[0]] = self._session(node, given)
        return dict(zip(node.output, session.run(list(node.output), given), strict=True))

    def _session(self, node: onnx.NodeProto, given: dict[str, NDArray[Any]]) -> Any:  # noqa: ANN401 - it is untyped
        constants = {name: self._constants[name] for name in node.input if name in self._constants}
        graph = helper.make_graph(
            [node],
            "node",
            [
                helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
                for name, value in given.items()
            ],
            [onnx.ValueInfoProto(name=name) for name in node.output],
            [numpy_helper.from_array(value, name) for name, value in constants.items()],
        )
        model = helper.make_model(graph, opset_imports=self._network.opset_import, ir_version=self._network.ir_version)
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 3
        return ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
