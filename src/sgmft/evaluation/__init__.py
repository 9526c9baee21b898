"""Metrics, calibration and reports; comparisons and explanations."""
