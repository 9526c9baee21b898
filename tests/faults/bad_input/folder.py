"""The folder a table is read from: a picture, and links that lead out of it."""

import atexit
import shutil
import tempfile
from functools import cache
from pathlib import Path


@cache
def table_folder() -> Path:
    """Return the folder of this process, which is removed at its end."""
    outer = Path(tempfile.mkdtemp(prefix="sgmft-bad-input-")).resolve()
    atexit.register(shutil.rmtree, outer, ignore_errors=True)
    folder = outer / "posts"
    folder.mkdir()
    (outer / "secret.png").write_bytes(b"secret")
    (folder / "a.png").write_bytes(b"a picture")
    (folder / "out").symlink_to(outer)
    (folder / "out.png").symlink_to(outer / "secret.png")
    (folder / "loop.png").symlink_to(folder / "loop.png")
    return folder
