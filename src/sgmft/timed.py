"""A file in memory that a decoder may work on for so long and no longer."""

from __future__ import annotations

import io
import time

from sgmft.errors import printable
from sgmft.images import PictureError

MAX_SECONDS = 20.0
"""Of one processor, for one file: waiting for a busy machine does not count."""


class TimedFile(io.BytesIO):
    """The bytes of a file, and a clock that starts now.

    Once the time is over the file seems to end, which stops a decoder at its next read, and
    `check` says why. To be used in one thread.

    Args:
        data: the whole file.
        name: its name, for messages.
    """

    def __init__(self, data: bytes, name: str) -> None:
        super().__init__(data)
        self._name = printable(name)
        self._end = time.thread_time() + MAX_SECONDS

    def read(self, size: int | None = -1, /) -> bytes:
        """As `io.BytesIO.read`; nothing once the time is over."""
        return b"" if time.thread_time() > self._end else super().read(size)

    def check(self) -> None:
        """Raise a PictureError once the time is over."""
        if time.thread_time() > self._end:
            raise PictureError(
                f"{self._name} takes more than {MAX_SECONDS:g} seconds to read; "
                "give a shorter or a smaller copy"
            )
