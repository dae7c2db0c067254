"""Engines run the fused network: ONNX Runtime on a CPU, TensorRT on a GPU."""
