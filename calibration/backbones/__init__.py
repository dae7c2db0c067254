"""Feature graphs without torch: the built-in filter bank, and any ONNX file."""
