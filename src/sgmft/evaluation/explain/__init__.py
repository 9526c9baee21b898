"""Explanations of predictions; docs/explain.md."""
