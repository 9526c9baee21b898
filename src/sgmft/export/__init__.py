"""Trained models as ONNX, which `sgmft.runtime` or any other runtime runs without torch."""
