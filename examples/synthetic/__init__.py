"""Synthetic posts: texts from phrases, drawn pictures, and the noise of real posts."""
