"""Exported models, run by ONNX Runtime: no file here imports torch."""

from sgmft.locator.onnx.locator import OnnxLocator

__all__ = ["OnnxLocator"]
