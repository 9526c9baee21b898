"""What tests of faults share: small disks, commands in this process, results to compare."""

import json
import os
import subprocess
from contextlib import contextmanager

import pyarrow.parquet as pq
import pytest

COMPARE = ("--tables", "1", "--figures", "", "--methods", "linear-probe,text-only,unis-mmc")
COMPARE += ("--seeds", "1", "--trials", "2", "--epochs", "2")


@contextmanager
def mounted(folder, size="64m"):
    """A disk of its own at `folder`; call what is given with mount's options to change it.

    Skips the test where nothing can be mounted.
    """
    folder.mkdir()
    words = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    try:
        subprocess.run(words, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        pytest.skip("mounting a small disk needs Linux and root")

    def change(options):
        subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)

    try:
        yield change
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def fill(folder, pages):
    """Fill a disk but for so many pages; the file that fills it."""
    page = os.sysconf("SC_PAGE_SIZE")
    filler = folder / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(page))
        except OSError:
            file.truncate(max(0, file.tell() - pages * page))
    return filler


def shards_of(folder):
    """The shards of the stores in a folder."""
    return {path.name: path.read_bytes() for path in sorted(folder.glob("*/part-*.parquet"))}


def model_of(folder):
    """All files of a saved model."""
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def comparison_of(folder):
    """What a comparison found: its tables, without how long they took, and all predictions."""
    results = json.loads((folder / "results.json").read_text("utf-8"))
    return _timeless(results), pq.read_table(folder / "predictions.parquet").to_pydict()


def _timeless(values):
    if isinstance(values, dict):
        return {key: _timeless(x) for key, x in values.items() if "seconds" not in key}
    return [_timeless(x) for x in values] if isinstance(values, list) else values
