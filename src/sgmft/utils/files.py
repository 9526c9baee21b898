"""Write files whole or not at all, and explain in a sentence why one cannot be written."""

import errno
import json
import math
import os
import re
import secrets
import struct
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sgmft.errors import TEXTS, SgmftError, warn


def write_whole(path: Path, data: Any) -> None:
    """Write bytes under a temporary name beside `path`, then rename: readers see no half a file."""
    make_whole(path, lambda temporary: temporary.write_bytes(data))


def make_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Have `write` write a temporary file beside `path`, again if it is taken, then rename it."""
    for attempt in range(3):
        temporary = temporary_of(path)
        try:
            write(temporary)
            with suppress(OSError):  # where it is new; what others may not read stays so
                temporary.chmod(path.stat().st_mode & 0o777)
            temporary.replace(path)
            return
        except FileNotFoundError:
            if attempt == 2 or not path.parent.is_dir():
                raise
        finally:
            with suppress(OSError):  # of a disk that has become read-only meanwhile
                temporary.unlink(missing_ok=True)


def temporary_of(path: Path) -> Path:
    """Return an unused hidden name beside `path`, which `leftovers` recognises."""
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}.tmp")


def leftovers(folder: Path, name: str = "*") -> list[Path]:
    """Return temporary files of this name that killed processes have left behind."""
    return list(folder.glob(f".{name}.*.tmp"))


def error_reason(error: Exception) -> str:
    """Describe an OSError, or what a library made of one, and the fix, for use in a sentence."""
    number = getattr(error, "errno", None)
    if number is None and (found := re.search(r"os error (\d+)", str(error))):  # safetensors
        number = int(found[1])
    reason = str(error) if number is None else os.strerror(number)
    if number in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        return f"{reason}: make room and run the same command again"
    if number in (errno.EROFS, errno.EACCES, errno.EPERM):
        return f"{reason}: allow it, or choose another folder"
    return reason


@contextmanager
def writing(what: str | Path) -> Iterator[None]:
    """Turn the refusal to write `what`, by the system or by safetensors, into an SgmftError."""
    try:
        yield
    except Exception as error:
        from safetensors import SafetensorError  # not at the start of every command

        if not isinstance(error, OSError | SafetensorError):
            raise
        raise SgmftError(f"{what} cannot be written: {error_reason(error)}.") from error


def set_aside(path: Path, aside: Path, what: str, again: str) -> None:
    """Rename a damaged file, `what` it is, and warn of what is done to have it `again`."""
    try:
        path.replace(aside)
    except FileNotFoundError:  # another process has done it
        return
    except OSError as error:
        how = {"path": path, "reason": error.strerror, "again": again}
        raise SgmftError(TEXTS["not set aside"], what=what, **how) from error
    warn(f"The {what} {path} is damaged: it is set aside as {aside.name}, and {again}.")


@contextmanager
def lock_byte(file: int, place: int) -> Iterator[None]:
    """Hold a byte of an open file, for which others wait, in any process; on Linux's own disks."""

    def ask(kind: str) -> None:
        with suppress(ImportError, AttributeError, OSError):
            import fcntl  # of an open file, not of a process, whose threads would not wait

            lock = struct.pack("hhqqi4x", getattr(fcntl, kind), os.SEEK_SET, place, 1, 0)
            fcntl.fcntl(file, fcntl.F_OFD_SETLKW, lock)

    ask("F_WRLCK")
    try:
        yield
    finally:
        ask("F_UNLCK")


def check_writable(folder: Path) -> None:
    """Raise SgmftError, before the work, where a folder, perhaps a new one, cannot be written."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    with writing(folder), tempfile.TemporaryFile(dir=there):
        pass


def check_output(folder: Path, ours: bool, what: str) -> None:
    """Raise SgmftError unless a folder for `what` is new, empty, or `ours` to be replaced."""
    if folder.is_dir() and any(folder.iterdir()) and not ours:
        raise SgmftError(f"{folder} holds other files: choose a new folder for the {what}.")
    if folder.is_file():
        raise SgmftError(f"{folder} is a file: choose a folder for the {what}.")
    check_writable(folder)


def cache_folder() -> Path:
    """Return the folder of what sgmft can make again; it need not exist."""
    cache = os.environ.get("SGMFT_CACHE") or os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(cache).expanduser() / "sgmft"


def open_cached(name: str, write: Callable[[Path], object], read: Callable[[Path], Any]) -> Any:
    """Return what `read` gives of a file in the user's cache; `write` makes one that it refuses."""
    path = cache_folder() / name
    with suppress(Exception):  # of whatever library finds none yet, or a damaged one
        return read(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path)
        return read(path)
    except OSError:  # the cache cannot be written: for this process only
        with tempfile.TemporaryDirectory() as folder:
            write(path := Path(folder) / path.name)
            return read(path)


def make_file(path: Path, write: Callable[[Path], object]) -> None:
    """Make a file whole, see `make_whole`, else SgmftError; the folder is made if need be."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        make_whole(path, write)


def write_file(path: Path, data: bytes | memoryview) -> None:
    """Write bytes; see `make_file`."""
    make_file(path, lambda temporary: temporary.write_bytes(data))


def write_json(path: Path, values: Any, indent: int | None = None) -> None:
    """Write values as JSON; see `write_file`."""
    write_file(path, json.dumps(values, ensure_ascii=False, indent=indent).encode())


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote; None where there is no such file, or half of one."""
    with suppress(OSError, ValueError):
        return json.loads(path.read_text("utf-8"))
    return None


def nan_to_none(value: Any) -> Any:
    """Replace numbers that are not finite by None: JSON has no NaN, other readers fail on it."""
    if isinstance(value, dict):
        return {key: nan_to_none(x) for key, x in value.items()}
    if isinstance(value, list | tuple):
        return [nan_to_none(x) for x in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def load_patterns(path: Path) -> dict[str, re.Pattern[str]]:
    """Compile the patterns of a TOML file, where <<name>> stands for an earlier one."""
    found: dict[str, re.Pattern[str]] = {}
    for key, parts in tomllib.loads(path.read_text("utf-8")).items():
        found[key] = re.compile(re.sub(r"<<(\w+)>>", lambda x: found[x[1]].pattern, "".join(parts)))
    return found
