"""Encoders, batches of features and the feature store."""
