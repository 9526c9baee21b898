"""Semantic location of social-media posts."""
