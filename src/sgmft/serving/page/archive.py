"""Unpack a zip of pictures into a folder, whoever packed it."""

import lzma
import shutil
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path, PurePosixPath
from stat import S_ISLNK
from typing import BinaryIO

from sgmft.errors import SgmftError

FILES = 20_000
RATIO = 100  # of a file's size to its packed size; pictures are packed already
SMALL = 1024 * 1024  # bytes of a file whose ratio does not matter
_DAMAGE = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, OSError)
_UNKNOWN = (NotImplementedError, UnicodeError)  # ways of packing and of writing names


class UnsafeZipError(SgmftError):
    """A zip that is not unpacked: the kind of reason, and the file in it that is, if it is one."""

    def __init__(self, kind: str, name: str = "") -> None:
        self.kind, self.name = kind, name[:100]
        super().__init__(f"{kind}: {self.name}")


def unpack(file: Path | BinaryIO, folder: Path, most: int) -> int:
    """Write the files of a zip below a folder, with their own folders; return their number.

    UnsafeZipError where it is damaged or, before anything is written, where a file is unsafe, or
    they are too many or more bytes than `most`.
    """
    try:
        with zipfile.ZipFile(file) as packed:
            found = {}
            for entry in packed.infolist():
                if path := _checked(entry):
                    found[path] = entry
                if len(found) > FILES:
                    raise UnsafeZipError("too-many")
            if sum(entry.file_size for entry in found.values()) > most:
                raise UnsafeZipError("too-large")
            for path, entry in found.items():
                (folder / path).parent.mkdir(parents=True, exist_ok=True)
                with packed.open(entry) as source, (folder / path).open("wb") as target:
                    shutil.copyfileobj(source, target)  # zipfile reads no more than the header says
            return len(found)
    except (*_DAMAGE, *_UNKNOWN) as error:
        raise UnsafeZipError("damaged") from error


def _checked(entry: zipfile.ZipInfo) -> PurePosixPath | None:
    """Return the place of a file below the folder; None for what is no file or of no use."""
    name = _name(entry).replace("\\", "/")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or name[1:2] == ":":
        raise UnsafeZipError("outside", name)
    if S_ISLNK(entry.external_attr >> 16):
        raise UnsafeZipError("link", name)
    if entry.flag_bits & 0x1:
        raise UnsafeZipError("encrypted", name)
    if entry.file_size > max(SMALL, RATIO * entry.compress_size):
        raise UnsafeZipError("too-large", name)
    if entry.is_dir() or not path.parts or path.parts[0] == "__MACOSX":
        return None
    return path


def _name(entry: zipfile.ZipInfo) -> str:
    """Return the name as it was given: not every program records its encoding."""
    if entry.flag_bits & 0x800:
        return entry.filename
    for encoding in ("utf-8", "gb18030"):
        with suppress(UnicodeError):
            return entry.filename.encode("cp437").decode(encoding)
    return entry.filename
