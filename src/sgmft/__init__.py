"""Semantic location of social-media posts, from their text and pictures (arXiv 2405.05760)."""

import os
from importlib import import_module
from typing import TYPE_CHECKING, Any

from sgmft.data.posts import Post

if TYPE_CHECKING:
    from sgmft.data.frames import to_posts
    from sgmft.data.tables import read_posts
    from sgmft.locator.abstention import Abstention
    from sgmft.locator.locator import SemanticLocator

__all__ = ["Abstention", "Post", "SemanticLocator", "read_posts", "to_posts"]

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # else onnxruntime would report

_LAZY = {
    "Abstention": "locator.abstention",
    "SemanticLocator": "locator.locator",
    "read_posts": "data.tables",
    "to_posts": "data.frames",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used, so that `sgmft --help` starts without torch."""
    if name in _LAZY:
        return getattr(import_module(f"sgmft.{_LAZY[name]}"), name)
    raise AttributeError(f"module 'sgmft' has no attribute {name!r}")
