"""Let threads and processes take turns at one piece of work, by its key."""

import os
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

TURNS = 4096  # keys that share one wait for each other, rarely


class Turns:
    """Locks by key: in this process, and by a file among processes where the system can (Linux).

    A process that is killed leaves nothing locked. OSError where the file cannot be opened.
    """

    def __init__(self, path: Path) -> None:
        self._file = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        self._locks = [threading.Lock() for _ in range(TURNS)]

    @contextmanager
    def take(self, key: str) -> Iterator[None]:
        """Hold the lock of a key, a hexadecimal digest."""
        place = int(key[:3], 16)
        with self._locks[place]:
            self._ask("F_WRLCK", place)
            try:
                yield
            finally:
                self._ask("F_UNLCK", place)

    def _ask(self, kind: str, place: int) -> None:
        """Lock or unlock a byte of the file: of an open file, for which threads may wait alike."""
        with suppress(ImportError, AttributeError, OSError):  # Windows, macOS, some network disks
            import fcntl

            lock = struct.pack("hhqqi4x", getattr(fcntl, kind), os.SEEK_SET, place, 1, 0)
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLKW, lock)

    def close(self) -> None:
        """Close the file."""
        os.close(self._file)
