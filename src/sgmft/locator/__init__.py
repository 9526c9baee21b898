"""The estimator `SemanticLocator`, its state on disk, abstention and zero-shot use."""
