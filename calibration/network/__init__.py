"""The fused network: backbone, reduction and head as one ONNX graph."""
