"""Folders of pictures that are named after their labels."""

import os
from collections.abc import Iterator
from pathlib import Path

from sgmft.data.tables.base import RawRow, RawTable
from sgmft.data.tables.collectors import PICTURES, VIDEOS, Collector, adapt_table

NAME = "class-folders"


def find_class_folders(folder: Path) -> list[Path]:
    """Return the folder if pictures lie in at least two below it: LABEL/ or SPLIT/LABEL/."""
    labels = set[str]()
    for file in _iter_files(folder) if folder.is_dir() else ():
        labels.add(file.parent.name)
        if len(labels) > 1:
            return [folder]
    return []


def open_class_folders(folder: Path) -> RawTable:
    """Open folders as posts of one picture each, with columns ``label`` and perhaps ``split``."""
    places = {file.parent for file in _iter_files(folder)}
    splits = any(place.parent != folder for place in places)
    labels = sorted({place.name for place in places})

    def rows() -> Iterator[RawRow]:
        for number, file in enumerate(_iter_files(folder), 1):
            values = {"id": file.relative_to(folder).as_posix(), "label": file.parent.name}
            split = file.parent.parent.name if file.parent.parent != folder else None
            yield RawRow(number, values | ({"split": split} if splits else {}))

    columns = ["images", "id", "label", *["split"] * splits]
    shown = ", ".join(labels[:8]) + (", ..." if labels[8:] else "")
    return adapt_table(
        RawTable(folder.name, folder, columns, rows()),
        f"{NAME} of the labels {shown}",
        lambda row: {"images": [row["id"]]},
        own=("images",),
    )


CLASS_FOLDERS = Collector(NAME, parts=find_class_folders, read=open_class_folders)


def _iter_files(folder: Path) -> Iterator[Path]:
    """Yield the pictures and videos one or two folders down, in order."""
    for at, folders, names in os.walk(folder):
        place = Path(at)
        depth = len(place.relative_to(folder).parts)
        folders[:] = sorted(x for x in folders if depth < 2 and not x.startswith((".", "_")))
        for name in sorted(names):
            if depth and Path(name).suffix.lower() in (*PICTURES, *VIDEOS) and name[0] != ".":
                yield place / name
