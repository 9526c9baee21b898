"""Label Studio exports: one flat record for each post, and where the pictures lie."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from sgmft.data.tables.images import IMAGES

LOCAL_FILES = "/data/local-files/?d="

_UPLOAD = "/data/upload/"

_OF_ANNOTATIONS = ("annotation_id", "annotator", "created_at", "updated_at", "lead_time")


def is_task(item: Mapping[str, Any]) -> bool:
    """Tell a task of the full JSON export from a flat record (JSON-MIN, or any list of rows)."""
    return isinstance(item.get("data"), dict)


def is_annotation_table(columns: Sequence[str]) -> bool:
    """Tell the header of a CSV or TSV export, which has one row for each annotation."""
    return {"annotation_id", "annotator", "lead_time"} <= {*columns}


def post_of(item: Mapping[str, Any]) -> str | None:
    """What all records of one post have in common; None where there is no other.

    Tasks of several rounds are of one post when their data have one text, the same pictures and one
    id, or one `row`. JSON-MIN has a record for each annotation of a task, under the task's id in
    the place of theirs.
    """
    if is_task(item):
        data = item["data"]
        own = data.get("id") or data.get("row")
        return repr((own, *_shown(data))) if own else None
    own = item.get("row") or item.get("id")
    return repr((own, *_shown(item))) if "annotation_id" in item and own else None


def _shown(record: Mapping[str, Any]) -> tuple[Any, list[Any]]:
    """A record's text and its pictures, which one round may have as a text, another as a list."""
    cells = [cell for name, cell in record.items() if name.strip().casefold() in IMAGES]
    listed = [cell if isinstance(cell, list) else [cell] for cell in cells]
    return record.get("text"), [picture for cell in listed for picture in cell if picture]


def flatten(items: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], set[str]]:
    """Turn all the records of one post into one, and name its choice controls."""
    first = items[0]
    if is_task(first):
        annotations = [x for item in items for x in _objects(item.get("annotations"))]
        return _flatten_task({**first, "annotations": annotations})
    return _most_told([_flatten_record(item) for item in items]), set()


def _most_told(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The first record, with what most say where they differ: a list of all where they are tied."""
    told = dict(records[0])
    for name in dict.fromkeys(name for record in records for name in record):
        cells = [record.get(name) for record in records]
        counts = Counter(repr(cell) for cell in cells if cell not in (None, "", []))
        if len(counts) > 1 and name not in _OF_ANNOTATIONS:
            most = [cell for cell in cells if counts[repr(cell)] == max(counts.values())]
            known = {repr(cell): cell for cell in most}
            told[name] = _one_or_all([known[key] for key in sorted(known)])
        elif counts:
            told[name] = next(cell for cell in cells if repr(cell) in counts)
    return told


def _flatten_task(task: Mapping[str, Any]) -> tuple[dict[str, Any], set[str]]:
    """Turn a task of the full JSON export into a flat record, and name its choice controls.

    The record is the task's data, its id (unless the data has an id of its own), and one column
    per choice control, named as in the labelling interface. It holds what most annotators chose:
    a text, or a list when the control allows several choices or the annotators are tied.
    Cancelled annotations are left out. A data column with a control's name is kept as "data.NAME".
    """
    record: dict[str, Any] = {"id": task.get("id"), **task["data"]}
    votes: dict[str, Counter[tuple[str, ...]]] = {}
    for annotation in _objects(task.get("annotations")):
        if annotation.get("was_cancelled"):
            continue
        for result in _objects(annotation.get("result")):
            value = result.get("value")
            choices = value.get("choices") if isinstance(value, dict) else None
            if isinstance(choices, list) and choices:
                name = str(result.get("from_name") or "label")
                votes.setdefault(name, Counter())[tuple(sorted(map(str, choices)))] += 1
    for name, counts in votes.items():
        if name in record:
            record[f"data.{name}"] = record[name]
        most = max(counts.values())
        winners = [choices for choices, count in counts.items() if count == most]
        record[name] = _one_or_all(sorted({choice for choices in winners for choice in choices}))
    return record, set(votes)


def _flatten_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """Unwrap the ``{"choices": [...]}`` cells of a JSON-MIN record; leave the others alone."""
    return {
        name: _one_or_all(value["choices"])
        if isinstance(value, dict) and isinstance(value.get("choices"), list) and len(value) == 1
        else value
        for name, value in record.items()
    }


def local_path(path: str, folder: Path) -> str:
    """Translate the address Label Studio gave a picture to a path relative to the export.

    ``/data/local-files/?d=rel/path`` is ``rel/path``; ``/data/upload/1/name.jpg`` is ``name.jpg``
    or ``upload/1/name.jpg``, whichever is there (the first when neither is). Any other path comes
    back as it is.
    """
    for mark in (LOCAL_FILES, _UPLOAD):
        server, found, rest = path.partition(mark)
        if not found or (server and "://" not in server):
            continue
        if mark == LOCAL_FILES:
            return unquote(rest)
        name = rest.rpartition("/")[2]
        nested = f"upload/{rest}"
        return nested if not (folder / name).exists() and (folder / nested).exists() else name
    return path


def _objects(value: Any) -> list[dict[str, Any]]:
    items = value if isinstance(value, list) else []
    return [item for item in items if isinstance(item, dict)]


def _one_or_all(choices: list[Any]) -> Any:
    return choices[0] if len(choices) == 1 else choices
