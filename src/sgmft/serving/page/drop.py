"""A place to drop files, that takes nothing but what was dropped there."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.data_classes import FileData, ListFiles


def file_drop(gone: str, types: Sequence[str], **options: Any) -> gr.File:
    """As `gr.File`, but nothing is fetched for it, and no file is refused for its name.

    It gives the path of a file, or a list of paths. What is in a file is found out from its bytes,
    and told if it cannot be used.

    Args:
        gone: what is said when a file is no longer there.
        types: of files that the browser offers.
        options: as `gr.File` has them.
    """
    made = gr.File(file_types=list(types), **options)
    keep = made.async_move_resource_to_block_cache

    async def kept(url_or_file_path: str | Path | None) -> str | None:
        if url_or_file_path is None:
            return None
        return await keep(_there(url_or_file_path, gone))

    def given(payload: ListFiles | FileData | None) -> Any:
        files = payload.root if isinstance(payload, ListFiles) else [payload]
        paths = [_there(file.path, gone) for file in files if file is not None]
        return paths if made.file_count == "multiple" else next(iter(paths), None)

    # a subclass would do, but the framework writes a file beside the source of each
    vars(made).update(preprocess=given, async_move_resource_to_block_cache=kept)
    return made


def _there(path: str | Path, gone: str) -> str:
    """The path, if it is one of a file; an address is not."""
    if not Path(path).is_file():
        raise gr.Error(gone, print_exception=False)
    return str(path)
