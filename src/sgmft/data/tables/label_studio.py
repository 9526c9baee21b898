"""Label Studio: its exports as one flat record per post, and tasks to import into it."""

import json
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

from sgmft.data.posts import Attachment, Post
from sgmft.data.tables.cells import replace_surrogates
from sgmft.data.tables.columns import USUAL
from sgmft.errors import TEXTS, Message, SgmftError, warn
from sgmft.utils.files import write_file
from sgmft.utils.templates import render

CONTROL = "label"  # the choice control of the tasks, and so the column in an export of them
_LOCAL_FILES, _UPLOAD = "/data/local-files/?d=", "/data/upload/"
_OF_ANNOTATIONS = ("annotation_id", "annotator", "created_at", "updated_at", "lead_time")


def is_task(item: Mapping[str, Any]) -> bool:
    """Return whether a record is a task of the full JSON export; others are flat (JSON-MIN)."""
    return isinstance(item.get("data"), dict)


def find_post(item: Mapping[str, Any]) -> str | None:
    """Return a key that all records of one post share; None where there is no other.

    Tasks of several rounds are of one post when their data have one text, the same pictures and one
    id, or one `row`. JSON-MIN has a record for each annotation of a task, under the task's id in
    the place of theirs.
    """
    data = item["data"] if is_task(item) else item
    first, second = ("id", "row") if is_task(item) else ("row", "id")
    own = data.get(first) or data.get(second)
    if not own or not (is_task(item) or "annotation_id" in item):
        return None
    # One round may have the pictures as a text, another as a list.
    cells = [cell for name, cell in data.items() if name.strip().casefold() in USUAL["image"]]
    listed = [cell if isinstance(cell, list) else [cell] for cell in cells]
    return repr((own, data.get("text"), [x for cell in listed for x in cell if x]))


def flatten(items: Sequence[Mapping[str, Any]]) -> tuple[dict[str, Any], set[str]]:
    """Merge the records of one post; return the one and the names of its choice controls.

    Of tasks that are the data, an id unless the data have one, and for each control what most
    annotators chose: a text, or a list when the control allows several choices or the annotators
    are tied. Cancelled annotations are left out. A data column named as a control is "data.NAME".
    """
    if not is_task(first := items[0]):
        return _merge([_unwrap_choices(item) for item in items]), set()
    record: dict[str, Any] = {"id": first.get("id"), **first["data"]}
    votes: dict[str, Counter[tuple[str, ...]]] = {}
    annotations = (x for item in items for x in _objects(item.get("annotations")))
    kept = (_objects(x.get("result")) for x in annotations if not x.get("was_cancelled"))
    for result in chain.from_iterable(kept):
        value = result.get("value")
        choices = value.get("choices") if isinstance(value, dict) else None
        if isinstance(choices, list) and choices:
            name = str(result.get("from_name") or "label")
            votes.setdefault(name, Counter())[tuple(sorted(map(str, choices)))] += 1
    for name, counts in votes.items():
        if name in record:
            record[f"data.{name}"] = record[name]
        winners = (x for x, count in counts.items() if count == max(counts.values()))
        record[name] = _one_or_all(sorted({choice for choices in winners for choice in choices}))
    return record, set(votes)


def local_path(path: str, folder: Path) -> str:
    """Translate the address Label Studio gave a picture to a path relative to the export.

    ``/data/local-files/?d=rel/path`` is ``rel/path``; ``/data/upload/1/name.jpg`` is ``name.jpg``
    or ``upload/1/name.jpg``, whichever is there (the first when neither is).
    """
    for mark in (_LOCAL_FILES, _UPLOAD):
        server, found, rest = path.partition(mark)
        if not found or (server and "://" not in server):
            continue
        if mark == _LOCAL_FILES:
            return unquote(rest)
        name, nested = rest.rpartition("/")[2], f"upload/{rest}"
        return nested if not (folder / name).exists() and (folder / nested).exists() else name
    return path


def write_tasks(
    path: str | Path,
    posts: Sequence[Post],
    labels: Sequence[str],
    folder: Path,
    *,
    predictions: Sequence[tuple[str, float] | None] = (),
    model_version: str = "sgmft",
) -> Path:
    """Write `NAME.json` for Label Studio's import, and `NAME.config.xml`, whose path is returned.

    Label Studio serves local files from the `folder` of the posts' table, and an export saved there
    finds them again; SgmftError where a picture lies outside. `predictions` are label and
    probability of each post by a model, or None.
    """
    path = Path(path)
    several = any(len(post.images) > 1 for post in posts)
    shown = "text" if any(post.text for post in posts) else "image"
    tasks: list[dict[str, Any]] = [{"data": _data(post, folder, several)} for post in posts]
    for task, predicted in zip(tasks, predictions, strict=bool(predictions)):
        if predicted is not None:
            task["predictions"] = [make_prediction(*predicted, model_version, shown)]
    beside = [x for post in posts for x in _paths(post) if os.sep not in os.path.relpath(x, folder)]
    if beside:
        warn(Message(TEXTS["not served"], folder=folder, name=beside[0].name))
    config = path.with_suffix(".config.xml")
    text = json.dumps(tasks, ensure_ascii=False, indent=1, allow_nan=False)
    pictures = any(post.images for post in posts) and ("valueList" if several else "value")
    names = [*map(replace_surrogates, labels)]
    own = {"control": CONTROL, "shown": shown, "pictures": pictures}
    write_file(config, render("data/tables/label_studio.xml", labels=names, **own).encode())
    write_file(path, replace_surrogates(text).encode())
    return config


def make_prediction(
    label: str | None, score: float | None, version: str, shown: str, control: str = CONTROL
) -> dict[str, Any]:
    """Return a prediction as a task has it: the choice of a label."""
    value = {"choices": [label]}
    choice = {"type": "choices", "from_name": control, "to_name": shown, "value": value}
    return {"model_version": version, "score": score, "result": [choice]}


def _merge(records: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return the first record, but of cells that differ the most frequent, or a list of ties."""
    merged = dict(records[0])
    for name in dict.fromkeys(name for record in records for name in record):
        cells = [record.get(name) for record in records]
        counts = Counter(repr(cell) for cell in cells if cell not in (None, "", []))
        if len(counts) > 1 and name not in _OF_ANNOTATIONS:
            most = [cell for cell in cells if counts[repr(cell)] == max(counts.values())]
            known = {repr(cell): cell for cell in most}
            merged[name] = _one_or_all([known[key] for key in sorted(known)])
        elif counts:
            merged[name] = next(cell for cell in cells if repr(cell) in counts)
    return merged


def _unwrap_choices(record: Mapping[str, Any]) -> dict[str, Any]:
    """Return a JSON-MIN record without the ``{"choices": [...]}`` around choices."""
    alone = {name: x for name, x in record.items() if isinstance(x, dict) and len(x) == 1}
    lists = {name: x.get("choices") for name, x in alone.items()}
    return {**record, **{name: _one_or_all(x) for name, x in lists.items() if isinstance(x, list)}}


def _objects(value: Any) -> list[dict[str, Any]]:
    return [x for x in value if isinstance(x, dict)] if isinstance(value, list) else []


def _one_or_all(choices: list[Any]) -> Any:
    return choices[0] if len(choices) == 1 else choices


def _data(post: Post, folder: Path, several: bool) -> dict[str, Any]:
    """Return what a task shows of a post, and what leads back to its row."""
    images = []
    for file in _paths(post):
        path = os.path.relpath(file, folder)
        if path == os.pardir or path.startswith(os.pardir + os.sep):
            raise SgmftError(TEXTS["not shown"], place=post.place or "A post", file=file)
        images.append(_LOCAL_FILES + quote(replace_surrogates(Path(path).as_posix())))
    # Label Studio wants the key in any case, and opens no task with an empty list.
    image = images if several and images else "".join(images)
    origin = {"id": post.id, "user": post.user, "row": post.place}
    return {"text": post.text, "image": image} | {key: x for key, x in origin.items() if x}


def _paths(post: Post) -> list[Path]:
    if any(isinstance(file, Attachment) for file in post.images):
        raise SgmftError("Label Studio can be shown files only, not pictures in memory: save them.")
    return [Path(str(file)) for file in post.images]
