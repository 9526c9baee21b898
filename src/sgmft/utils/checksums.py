"""Checksums of JSON values and files, so that damage is seen when they are read."""

import hashlib
import json
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from sgmft.errors import TEXTS, SgmftError
from sgmft.utils.files import write_whole

# Key of the checksum in values; the first, so that its line can be deleted by hand.
CHECKSUM = "digest"
FILES = "files"  # key of the digests of the files that belong to the values
MALFORMED = (OSError, ValueError, LookupError, TypeError, AttributeError)  # in reading values


def short_digest(data: Any) -> str:
    """Return the first 16 hexadecimal digits of the SHA-256 of bytes, for names."""
    return hashlib.sha256(data).hexdigest()[:16]


def digest_of(values: Mapping[str, Any]) -> str:
    """Return the SHA-256 of JSON values, but for their checksum."""
    bare = {key: value for key, value in values.items() if key != CHECKSUM}
    read = json.loads(json.dumps(bare))  # as a reader finds it: keys are texts, tuples are lists
    text = json.dumps(read, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def file_digest(path: Path) -> str:
    """Return the SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def file_digests(paths: Iterable[Path]) -> dict[str, str]:
    """Return the SHA-256 of those of these files that exist, by name."""
    return {path.name: file_digest(path) for path in paths if path.is_file()}


def with_checksum(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return JSON values with their checksum."""
    return {CHECKSUM: digest_of(values)} | {key: x for key, x in values.items() if key != CHECKSUM}


def checksum_matches(values: Mapping[str, Any]) -> bool:
    """Return whether values are as they were written; without a checksum they are taken to be."""
    return values.get(CHECKSUM) in (None, digest_of(values))


def read_own(path: Path, newest: int, what: str, fix: str, names: Iterable[str] = ()) -> Any:
    """Read JSON values, or those under "sgmft", check them, and the files of these names beside.

    SgmftError for damage, with `fix`, and where the format is a newer one.
    """
    values: Any = json.loads(path.read_text("utf-8"))
    values = values.get("sgmft", values)
    if values["format"] > newest:
        by = " ".join(["sgmft", values.get("versions", {}).get("sgmft", "")]).strip()
        raise SgmftError(TEXTS["newer format"], what=what, by=by, version=version("sgmft"))
    if not checksum_matches(values):
        raise SgmftError(TEXTS["changed by hand"], path=path, fix=fix)
    for name in names:
        check_file(path.with_name(name), values, fix)
    return dict(values)


def write_description(path: Path, values: Mapping[str, Any], names: Iterable[str]) -> None:
    """Write JSON values, digests of the files of these names beside them, and a checksum."""
    digests = file_digests(path.with_name(name) for name in names)
    write_whole(path, json.dumps(with_checksum({**values, FILES: digests}), indent=2).encode())


def check_file(path: Path, known: Mapping[str, Any], fix: str) -> None:
    """Raise SgmftError, with `fix`, where a file is not the one whose digest is known."""
    wanted = known.get(FILES, {}).get(path.name)
    try:
        if wanted is None or file_digest(path) == wanted:  # an earlier sgmft wrote no digests
            return
    except FileNotFoundError as error:
        raise SgmftError(f"{path} is missing: {fix}.") from error
    except OSError as error:
        raise SgmftError(f"{path} cannot be read ({error.strerror}): {fix}.") from error
    raise SgmftError(f"{path} is damaged or belongs to another model: {fix}.")
