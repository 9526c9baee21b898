"""A progress bar for who calls from Python; commands draw their own."""

from typing import Any


def progress_bar(what: str, total: int | None, hidden: bool = False) -> Any:
    """Return a bar of posts, drawn in a terminal or a notebook once a second has passed."""
    from tqdm.auto import tqdm

    disable = hidden or None  # None: where the output is no terminal
    return tqdm(None, what, total, False, unit=" posts", delay=1, disable=disable)
