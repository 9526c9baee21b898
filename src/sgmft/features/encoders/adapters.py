"""LoRA matrices beside the weights of a checkpoint (Hu et al. 2021, arXiv 2106.09685), by peft.

Their folder holds peft's two files and a description of the checkpoint they belong to, so that it
is an encoder by itself wherever that checkpoint can be found.
"""

import hashlib
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from sgmft.errors import TEXTS, SgmftError, needs_extra, raising
from sgmft.utils.checksums import FILES, MALFORMED, digest_of, read_own, write_description
from sgmft.utils.files import writing

if TYPE_CHECKING:
    import torch

DESCRIPTION = "encoder.json"
MATRICES = ("adapter_config.json", "adapter_model.safetensors")  # peft's names
FORMAT = 1
FIX = "copy or train the fine-tuned encoder again"


class Adapter(NamedTuple):
    """LoRA matrices in a folder, which are not read yet, and the checkpoint they belong to."""

    folder: str
    base: str  # name or folder of the checkpoint
    revision: str | None  # of its hub repository, where the name does not say it
    digest: str  # of its weights, see `digest_weights`
    files: dict[str, str]  # digests of peft's

    def merge(self, model: Any, digest: str, name: str) -> tuple[Any, str]:
        """Add the matrices to a checkpoint of this digest; return it, and its new digest."""
        if digest != self.digest:
            raise SgmftError(TEXTS["other checkpoint"], folder=self.folder, name=name)
        with lora_library() as peft:
            model = peft.PeftModel.from_pretrained(model, self.folder).merge_and_unload()
        return model, digest_of(self.files | {"before": digest})


def save_adapter(adapted: Any, folder: Path, base: str, revision: str | None, digest: str) -> None:
    """Write LoRA matrices, and which checkpoint they belong to, see `Adapter`."""
    with writing(folder):
        adapted.save_pretrained(folder)
        (folder / "README.md").unlink(missing_ok=True)  # peft's, an empty form
        (folder / MATRICES[1]).chmod(0o644)  # else only its owner reads it
        known = {"name": base, "revision": revision, "digest": digest}
        write_description(folder / DESCRIPTION, {"format": FORMAT, "base": known}, MATRICES)


def read_adapter(folder: str | Path) -> Adapter | None:
    """Read what a folder says of the matrices in it; None without any, SgmftError if damaged."""
    path = Path(folder) / DESCRIPTION
    if not path.is_file():
        return None
    with raising(f"{path} cannot be read, or is of another kind: {FIX}.", *MALFORMED):
        described = read_own(path, FORMAT, str(path), FIX, MATRICES)
        known, files = described["base"], described[FILES]
        if known.keys() != {"name", "revision", "digest"} or files.keys() != {*MATRICES}:
            raise TypeError
    return Adapter(str(folder), known["name"], known["revision"], known["digest"], files)


def digest_weights(model: Any, dtype: "torch.dtype", settings: object = "") -> str:
    """Return a digest of settings and a fixed sample of every weight: enough to differ."""
    digest = hashlib.sha256(repr(settings).encode() if settings else b"")
    for name, weight in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(weight.flatten()[:64].to(dtype).float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


@contextmanager
def lora_library() -> Iterator[Any]:
    """Yield the package, and keep from users that it calls the library by a deprecated name."""
    with needs_extra("tune", "LoRA"):
        import peft
    with warnings.catch_warnings(action="ignore", category=FutureWarning):
        yield peft
