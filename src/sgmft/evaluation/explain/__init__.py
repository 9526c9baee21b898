"""Why a model says what it says of a post; docs/explain.md."""
