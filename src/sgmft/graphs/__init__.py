"""Networks as ONNX files: `writing.py` with torch, `session.py` runs them without."""
