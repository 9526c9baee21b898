"""A model behind an HTTP API and on a page; docs/serving.md."""
