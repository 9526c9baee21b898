"""Semantic location of social-media posts, from their text and pictures (arXiv 2405.05760)."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sgmft.posts import Post

if TYPE_CHECKING:
    from sgmft.abstention import Abstention
    from sgmft.locator import SemanticLocator
    from sgmft.tables import read_posts

__all__ = ["Abstention", "Post", "SemanticLocator", "read_posts"]

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # onnxruntime would tell its makers of models

_ROOMS = {"Abstention": "abstention", "SemanticLocator": "locator", "read_posts": "tables"}


def __getattr__(name: str) -> Any:
    """Import the façade when it is first used: torch takes seconds that `sgmft --help` need not."""
    if name in _ROOMS:
        return getattr(import_module(f"sgmft.{_ROOMS[name]}"), name)
    raise AttributeError(f"module 'sgmft' has no attribute {name!r}")
