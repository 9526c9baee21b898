"""Exported models, run by ONNX Runtime: only `export` needs torch."""
