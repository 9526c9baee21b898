"""Checkpoints by name: folders, and repositories of the hub, from its cache or else fetched."""

import os
import re
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from threading import Event, Thread
from typing import NamedTuple

from sgmft.errors import TEXTS, SgmftError, raising
from sgmft.utils.checksums import digest_of, file_digest

HUB_SECONDS = 8.0  # to wait for the first response when a checkpoint is not on this machine
SETTINGS = ("*.json", "*.txt", "*.model", "*.jinja", "*.py")  # whether the last are run or not
TENSORS, PICKLES = "*.safetensors", "pytorch_model*.bin"  # the latter where there are no former
TRUST = "SGMFT_TRUST_REMOTE_CODE"  # environment variable, which the processes of a job inherit
NAMES = tomllib.loads(Path(__file__).with_name("names.toml").read_text("utf-8"))
CHINESE_CLIP: dict[str, str] = NAMES["repositories"]
REPOSITORY = re.compile(r"\w[\w.-]*(/[\w.-]+)?", re.ASCII)


class Checkpoint(NamedTuple):
    """A checkpoint on this machine."""

    name: str  # by which it was asked for
    folder: str
    pinned: str = ""  # the name with its commit, or of a folder in full
    trusted: bool = False  # whether Python files of its own may be run

    def digest(self) -> str:
        """Return a digest of its settings, which do not show in the weights."""
        folder = Path(self.folder)
        paths = sorted({path for kind in SETTINGS for path in folder.rglob(kind)})
        return digest_of({str(path.relative_to(folder)): file_digest(path) for path in paths})

    @contextmanager
    def reading(self) -> Iterator[None]:
        """Raise SgmftError for whatever a library says of a damaged or other checkpoint."""
        try:
            yield
        except (SgmftError, ImportError):
            raise
        except Exception as error:
            reason = next(iter(str(error).strip().splitlines()), type(error).__name__)
            if not self.trusted and "trust_remote_code" in str(error):
                reason = TEXTS["untrusted"]
            where = {"name": self.name, "folder": self.folder, "reason": reason}
            raise SgmftError(TEXTS["encoder unread"], **where) from error


def find_checkpoint(name: str, trusted: bool) -> Checkpoint:
    """Find what hf:OWNER/NAME@REVISION or st:FOLDER means; SgmftError where it cannot be had."""
    kind, what, trusted = name[:3], name[3:], trusted or bool(os.environ.get(TRUST))
    if Path(what).is_dir():
        return Checkpoint(name, what, f"{kind}{Path(what).absolute()}", trusted)
    repository, _, revision = what.partition("@")
    if not REPOSITORY.fullmatch(repository):
        raise SgmftError(TEXTS["no checkpoint"], name=name)
    if kind == "st:" and "/" not in repository:
        repository = f"sentence-transformers/{repository}"
    folder = local_copy(repository, revision or None)
    return Checkpoint(name, folder, f"{kind}{repository}@{Path(folder).name}", trusted)


def local_copy(repository: str, revision: str | None, needed: str = "*.json") -> str:
    """Return a hub repository's folder, cached with all that is `needed`, or fetched."""
    from huggingface_hub import snapshot_download

    # The same files each time: the client asks the hub again where others are missing.
    files = {"allow_patterns": [*SETTINGS, TENSORS], "ignore_patterns": ["onnx/*", "openvino/*"]}
    fetch = partial(snapshot_download, repository, revision=revision, **files)
    weights = [part + name for part in ("", "*/") for name in (TENSORS, PICKLES)]
    with suppress(OSError, ValueError):  # the latter of names that the hub would not have
        folder = str(fetch(local_files_only=True))
        if has_any(folder, *weights) and has_any(folder, needed):
            return folder
    nowhere = TEXTS["not fetched"].format(name=repository)
    with raising(nowhere, Exception):  # the client raises many kinds; all mean the same to a user
        _check_hub()
        if not has_any((folder := str(fetch())), *weights):
            fetch(allow_patterns=PICKLES)
        return folder


def has_any(folder: str, *patterns: str) -> bool:
    """Return whether a folder has a file of such a name that is not empty."""
    found = (path for pattern in patterns for path in Path(folder).glob(pattern))
    return any(path.is_file() and path.stat().st_size for path in found)


def _check_hub() -> None:
    """Raise ConnectionError if the hub does not respond in time; its client retries for minutes."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    responded = Event()

    def request() -> None:
        with suppress(Exception):
            get_session().head(constants.ENDPOINT, timeout=HUB_SECONDS)
            responded.set()

    thread = Thread(target=request, daemon=True)  # one time-out for each of the host's addresses
    thread.start()
    thread.join(HUB_SECONDS)
    if not responded.is_set():
        raise ConnectionError(f"{constants.ENDPOINT} does not respond")
