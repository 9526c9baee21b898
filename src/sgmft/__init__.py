"""Semantic location of social-media posts, from their text and pictures (arXiv 2405.05760)."""

from typing import TYPE_CHECKING, Any

from sgmft.posts import Post

if TYPE_CHECKING:
    from sgmft.locator import SemanticLocator
    from sgmft.tables import read_posts

__all__ = ["Post", "SemanticLocator", "read_posts"]


def __getattr__(name: str) -> Any:
    """Import the façade when it is first used: torch takes seconds that `sgmft --help` need not."""
    if name == "SemanticLocator":
        from sgmft.locator import SemanticLocator

        return SemanticLocator
    if name == "read_posts":
        from sgmft.tables import read_posts

        return read_posts
    raise AttributeError(f"module 'sgmft' has no attribute {name!r}")
