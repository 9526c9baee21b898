"""Files, checksums, several processes, ONNX sessions."""
