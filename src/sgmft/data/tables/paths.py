"""From the path of a picture in a table to its file."""

import os
import re
import unicodedata
from collections import Counter
from contextlib import suppress
from functools import lru_cache
from itertools import islice
from pathlib import Path
from urllib.parse import unquote

from sgmft.data.tables.base import RawTable
from sgmft.data.tables.cells import replace_surrogates
from sgmft.errors import TEXTS, Message

MAX_LISTED = 100_000  # files of a folder among which a name in another spelling is looked for
DEEPEST = 32  # folders within each other of which the spelling is looked for
_ABSOLUTE = re.compile(r"/|[A-Za-z]:/")


class PathResolver:
    """Resolves the picture paths of a table; whether a file can be read is seen when it is decoded.

    Paths are absolute or relative to the table's folder. With `allow_outside` a picture may lie
    outside that, symbolic links followed; with None no path is looked at.
    """

    def __init__(self, raw: RawTable, allow_outside: bool | None = False) -> None:
        self.guesses = Counter[str]()  # cells and paths not read as they stand, by what they became
        self.refused: list[str] = []  # why parts of the cell that was parsed last are left out
        self._folder = str(raw.folder)
        self._allow_outside = allow_outside
        self._to_path = raw.to_path
        self._root = os.path.realpath(self._folder)
        self._holds_folder = lru_cache(4096)(self._is_below)
        self._spellings = lru_cache(64)(_list_spellings)
        self._spelled = lru_cache(4096)(self._spell)  # of folders
        self._elsewhere = dict[str, str]()  # by a drive, its folder that was copied here

    def __call__(self, path: str) -> Path:
        """Return the file of a path; backslashes are tried as slashes.

        Where there is no such file, one is taken whose name differs in case, Unicode form or
        percent-encoding alone, and of an absolute path of another computer the part that is found
        in the table's folder; both are counted in `guesses`. ValueError, with a reason fit for a
        message, where the picture may not be used.
        """
        if self._allow_outside is None:
            raise _refusal("pictures must be in the data, since no path is followed: {name}", path)
        try:
            if self._to_path is not None:
                path = self._to_path(path, Path(self._folder))
            if url := re.match(r"(?i)file:(?://(?:localhost)?)?(?:/(?=[a-z]:))?", path):
                path = unquote(path[url.end() :])
            if "\0" in path or replace_surrogates(path) != path:
                raise _refusal("{name!r} cannot be the path of a picture", path)
            if not self.exists(path):
                if re.match(r"(?i)[a-z][a-z0-9+.-]+://|data:|//[^/\\]+\.[^/\\]+/", path):
                    raise _refusal(TEXTS["on the web"], path)
                slashed = path.replace("\\", "/")
                path = slashed if slashed != path and self.exists(slashed) else self._find(slashed)
            file = os.path.join(self._folder, path)
            if not self._allow_outside and not self._is_inside(file):
                raise _refusal(TEXTS["outside"], path)
            return Path(file)
        except OSError as error:  # a name that is too long, a folder that may not be looked into
            why = {"name": path[:200], "why": error.strerror or str(error)}
            raise ValueError(Message("{name} cannot be read: {why}", **why)) from None

    def exists(self, path: str) -> bool:
        """Return whether there is something of this very name."""
        return self._allow_outside is not None and os.path.lexists(os.path.join(self._folder, path))

    def _find(self, path: str) -> str:
        """Return the path that is meant; the same where there is nothing like it."""
        if ".." in path.split("/"):
            return path
        if _ABSOLUTE.match(path):
            return self._find_elsewhere(path)
        bare = path.partition("?")[0]  # as in "a.jpg?x=1"
        for name in dict.fromkeys((path, bare, unquote(path), unquote(bare))):
            forms = unicodedata.normalize("NFC", name), unicodedata.normalize("NFD", name)
            for spelling in dict.fromkeys(forms):
                if (found := self._spell(spelling)) != path and self.exists(found):
                    self.guesses["the path of a picture in another spelling"] += 1
                    return found
        return self._find_elsewhere(path)

    def _spell(self, path: str) -> str:
        """Return a path with the spelling of what is there."""
        parent, slash, last = path.rpartition("/")
        if path.count("/") > DEEPEST:
            return path
        parent = self._spelled(parent) if parent else parent
        there = self._spellings(os.path.join(self._folder, parent))
        return parent + slash + (there.get(_fold(last), last) if there else last)

    def _find_elsewhere(self, path: str) -> str:
        """Return what is in the table's folder of an absolute path of another computer.

        Before a relative one may stand the names of the table's own folders. Once a path has shown
        which folder was copied, others of the drive must lie in it, too: else "u1/0.jpg" and
        "u2/0.jpg" could both become the one "0.jpg" that there is.
        """
        parts, absolute = path.split("/"), _ABSOLUTE.match(path)
        for start in range(1, len(parts)):
            head, tail = "/".join(parts[:start]), "/".join(parts[start:])
            if not absolute and not self._root.endswith(f"/{head}"):
                continue
            if tail and self.exists(tail) and self._elsewhere.setdefault(parts[0], head) == head:
                self.guesses[f"{head}/, a folder of another computer, read as the table's"] += 1
                return tail
        if not absolute or (path[0] == "/" and not self._elsewhere):
            return path
        raise _refusal(TEXTS["elsewhere"], path)

    def _is_inside(self, file: str) -> bool:
        folder, name = os.path.split(file)
        if name in ("", ".", "..") or os.path.islink(file):
            return self._is_below(file)
        return self._holds_folder(folder)  # only it can hold links, and most pictures share one

    def _is_below(self, path: str) -> bool:
        return os.path.join(os.path.realpath(path), "").startswith(os.path.join(self._root, ""))


def _refusal(template: str, path: str) -> ValueError:
    return ValueError(Message(template, name=path[:200]))


def _fold(name: str) -> str:
    return unicodedata.normalize("NFKC", name).casefold()


def _list_spellings(folder: str) -> dict[str, str]:
    """Return the files of a folder by their folded names, without those that share one."""
    names: list[str] = []
    with suppress(OSError, ValueError), os.scandir(folder) as entries:
        names += (entry.name for entry in islice(entries, MAX_LISTED + 1))
    counts = Counter(map(_fold, names)) if len(names) <= MAX_LISTED else Counter[str]()
    return {_fold(name): name for name in names if counts[_fold(name)] == 1}
