"""Unpack a zip of pictures into a folder, whoever packed it."""

import lzma
import shutil
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path, PurePosixPath
from stat import S_ISLNK
from typing import BinaryIO

from sgmft.errors import TEXTS, SgmftError, raising

FILES = 20_000
RATIO = 100  # of a file's size to its packed size; pictures are packed already
SMALL = 1024 * 1024  # bytes of a file whose ratio does not matter
_DAMAGE: tuple[type[Exception], ...] = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)
_DAMAGE += OSError, NotImplementedError, UnicodeError  # the latter of ways of packing, and names
_TOO_LARGE = "The zip is too large unpacked. Pack smaller or fewer pictures."


def unpack(file: Path | BinaryIO, folder: Path, most: int) -> int:
    """Write the files of a zip below a folder, with their own folders; return their number.

    SgmftError where it is damaged; before anything is written, for unsafe, too many or large files.
    """
    with raising("The zip is damaged, or no zip.", *_DAMAGE), zipfile.ZipFile(file) as packed:
        found = {path: entry for entry in packed.infolist() if (path := _checked(entry))}
        if len(found) > FILES:
            raise SgmftError("The zip has too many files.")
        if sum(entry.file_size for entry in found.values()) > most:
            raise SgmftError(_TOO_LARGE)
        for path, entry in found.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with packed.open(entry) as source, (folder / path).open("wb") as target:
                shutil.copyfileobj(source, target)  # zipfile reads no more than the header says
        return len(found)


def _checked(entry: zipfile.ZipInfo) -> PurePosixPath | None:
    """Return the place of a file below the folder; None for what is no file or of no use."""
    name = _name(entry).replace("\\", "/")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or name[1:2] == ":":
        raise SgmftError(TEXTS["outside the folder"], name=name[:100])
    if S_ISLNK(entry.external_attr >> 16):
        raise SgmftError("The zip has a link in place of a file: {name}.", name=name[:100])
    if entry.flag_bits & 0x1:
        raise SgmftError("The zip has a password: pack it without one ({name}).", name=name[:100])
    if entry.file_size > max(SMALL, RATIO * entry.compress_size):
        raise SgmftError(_TOO_LARGE)
    if entry.is_dir() or not path.parts or path.parts[0] == "__MACOSX":
        return None
    return path


def _name(entry: zipfile.ZipInfo) -> str:
    """Return the name as it was given: not every program records its encoding."""
    for encoding in () if entry.flag_bits & 0x800 else ("utf-8", "gb18030"):
        with suppress(UnicodeError):
            return entry.filename.encode("cp437").decode(encoding)
    return entry.filename
