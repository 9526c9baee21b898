"""Which tables a path stands for: one file, an ImageFolder, or a folder of parts."""

from __future__ import annotations

from pathlib import Path

from sgmft.data.tables.raw import reading
from sgmft.errors import SgmftError

METADATA = ("metadata.csv", "metadata.jsonl", "metadata.parquet")

PARTS = (".csv", ".tsv", ".jsonl", ".ndjson", ".parquet")


def list_tables(table: str | Path) -> list[str | Path]:
    """The tables of a path, in order.

    A folder with ``metadata.csv|jsonl|parquet`` is an ImageFolder: that file is its table. Any
    other folder is one table in parts: all its .csv, .tsv, .jsonl, .ndjson and .parquet files by
    name, but those whose names begin with "." or "_", and not those of its sub-folders. Anything
    else, "-" among it, stands for itself.

    Raises:
        SgmftError: a folder holds none of these or more than one metadata file, or cannot be read.
    """
    if str(table) == "-":
        return [table]
    folder = Path(table)
    with reading(folder):
        if not folder.is_dir():
            return [table]
        found = [folder / name for name in METADATA if (folder / name).is_file()]
        parts = sorted(
            file
            for file in folder.iterdir()
            if file.suffix.lower() in PARTS
            and not file.name.startswith((".", "_"))
            and file.is_file()
        )
    if len(found) > 1:
        names = " and ".join(file.name for file in found)
        raise SgmftError(f"{folder} holds {names}: give the one to read as the table.")
    if found:
        return [found[0]]
    if not parts:
        raise SgmftError(
            f"{folder} is a folder without any of {', '.join(METADATA)}, and without tables "
            f"({', '.join(PARTS)}): add one."
        )
    return [*parts]
