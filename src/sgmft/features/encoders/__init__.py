"""Encoders: one file per family, one protocol, one registry."""
