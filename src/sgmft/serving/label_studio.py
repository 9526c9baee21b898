"""Label Studio's machine-learning backend: suggestions, annotations that are kept, training."""

import asyncio
import json
import logging
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from starlette.requests import ClientDisconnect, Request

from sgmft.data.posts import Post
from sgmft.data.tables import RawRow, RawTable
from sgmft.data.tables.label_studio import is_task, local_path, make_prediction
from sgmft.data.tables.posts import USUAL_COLUMNS, iter_table
from sgmft.errors import TEXTS, Message, SgmftError, raising
from sgmft.serving.engine import InferenceEngine
from sgmft.serving.problems import Problem
from sgmft.serving.requests import parse_object
from sgmft.utils.checksums import MALFORMED, short_digest
from sgmft.utils.files import check_writable, write_file

_log = logging.getLogger("sgmft")
MAX_CONFIG = 2**20  # characters of a labelling configuration


class LabelStudio:
    """Answers one project of Label Studio.

    With its JSON `export`, which may be still to be made, pictures of tasks are read in the folder
    of that file, and annotations are added to it. The shell's `command` trains the model again.
    """

    def __init__(self, engine: InferenceEngine, export: str = "", command: str = "") -> None:
        self._engine, self._command, self._keeping = engine, command, asyncio.Lock()
        self._export = Path(export) if export else None
        self._training: asyncio.Task[None] | None = None
        if self._export is not None:
            _keep(self._export)
            check_writable(self._export.resolve().parent)

    async def setup(self, request: Request) -> dict[str, str]:
        """Connect a project of Label Studio: some choices of its `schema` must be labels here."""
        given = await parse_object(request, self._engine.limits)
        return {"model_version": (await asyncio.to_thread(self._accept, given.get("schema")))[0]}

    async def predict(self, request: Request) -> dict[str, list[Any]]:
        """Suggest a label, or none, for each of Label Studio's `tasks`, with `warnings`."""
        results, warnings, step = list[Any](), list[Any](), self._engine.limits.batch
        with self._engine.places.take():
            given = await parse_object(request, self._engine.limits)
            *about, known = await asyncio.to_thread(self._accept, given.get("label_config"))
            tasks = given["tasks"] if isinstance(given.get("tasks"), list) else []
            for i in range(0, len(tasks), step):
                if await request.is_disconnected():
                    raise ClientDisconnect
                posts = await asyncio.to_thread(self._read_posts, tasks[i : i + step])
                for x in await self._engine.predict(posts):
                    made = [make_prediction(x.label, x.probability, *about)]
                    results.append(made if x.label in known else [])
                    why = [x.error, x.abstained, *x.post.warnings]
                    if x.label and not results[-1]:
                        why.append(f"its label {x.label!r} is no choice")
                    warnings.append([*filter(None, why)])
        return {"results": results, "warnings": warnings}

    async def webhook(self, request: Request) -> dict[str, str]:
        """Keep or delete annotations of Label Studio, or train, if the server is to do so."""
        event = await parse_object(request, self._engine.limits)
        if self._command and event.get("action") == "START_TRAINING":
            if self._training is None or self._training.done():
                self._training = asyncio.create_task(self._train())
            return {"status": "training"}
        if self._export is None or not event.keys() & {"annotation", "annotations"}:
            return {"status": "nothing to keep: the event or the server is without annotations"}
        try:
            async with self._keeping:  # one event at a time, in their order
                await asyncio.to_thread(_keep, self._export, event)
        except SgmftError as error:
            _log.error("Label Studio: %s", error)
            raise Problem("not-kept", str(error)) from None
        return {"status": "kept"}

    def _accept(self, config: Any) -> tuple[str, str, str, set[str]]:
        """Return the model's version, the object and name of choices, and its labels there."""
        model, others = self._engine.model, list[str]()
        version = f"sgmft {short_digest(model.model_dump_json().encode())[:8]}"
        text = str(config)[:MAX_CONFIG].replace("<!DOCTYPE", " ")  # may have endless entities
        try:
            tags = ElementTree.fromstring(text).findall(".//Choices")
        except (SyntaxError, LookupError, ValueError) as error:
            raise Problem("invalid-request", f"The labelling configuration: {error}.") from None
        if any(tag.find(".//Choices") is not None for tag in tags):  # quadratic
            raise Problem("invalid-request", "The labelling configuration: Choices in Choices.")
        for tag in tags:
            there = [x.get("alias") or x.get("value") or "" for x in tag.iter("Choice")]
            if known := {*there} & {*model.labels}:
                return version, tag.get("toName", ""), tag.get("name", ""), known
            others += there
        theirs, own = (", ".join(x)[:500] or "none" for x in (others, model.labels))
        refusal = f"The choices are {theirs}, and the model knows only {own}."
        _log.warning("Label Studio: %r", refusal)
        raise Problem("invalid-request", refusal)

    def _read_posts(self, tasks: list[Any]) -> list[Post]:
        data = (x["data"] if isinstance(x, dict) and is_task(x) else {} for x in tasks)
        rows = (RawRow(i, values) for i, values in enumerate(data, 1))
        folder = self._export.parent if self._export else Path("/dev/null")  # which holds nothing
        raw = RawTable("tasks", folder, [], rows, to_path=local_path)
        return list(iter_table(raw, USUAL_COLUMNS, outside=False))

    async def _train(self) -> None:
        process = await asyncio.create_subprocess_shell(self._command)
        if await process.wait() == 0:  # else it has said why
            self._engine.reload()


def _keep(export: Path, event: dict[str, Any] | None = None) -> None:
    """Add annotations to an export, each in place of what it was before, or delete them."""
    with raising(Message(TEXTS["no export"], path=export), *MALFORMED, RecursionError):
        text = export.read_text("utf-8-sig") if export.is_symlink() or export.exists() else "[]"
        read = json.loads(text, object_hook=lambda x: x)  # at which other threads have a turn
        kept = {x["id"]: x | {"annotations": x.get("annotations") or []} for x in read}
        ids = [x["id"] for task in kept.values() for x in task["annotations"]]
        if not (len(kept) == len(read) and len({*ids}) == len(ids) and all(map(is_task, read))):
            raise ValueError
    if event is None:  # to see that it can
        return
    given = (event.get(x) or [] for x in ("task", "annotation"))
    try:
        pairs = zip(*(x if isinstance(x, list) else [x] for x in given), strict=True)
        new = {annotation["id"]: (task, annotation) for task, annotation in pairs}
        changed = {*new, *(x["id"] for x in event.get("annotations", []))}
        for task in kept.values():
            task["annotations"] = [x for x in task["annotations"] if x["id"] not in changed]
        for task, annotation in new.values():
            first = {"id": task["id"], "data": {**task["data"]}, "annotations": []}
            own = {key: annotation[key] for key in ("id", "result", "was_cancelled")}
            kept.setdefault(task["id"], first)["annotations"].append(own)
    except MALFORMED:
        raise Problem("invalid-request", "The event has no task with annotation.") from None
    text = ",\n".join(json.dumps(x, ensure_ascii=False) for x in kept.values())
    # Not over a link; half a character, which UTF-8 has not, is escaped as it was.
    write_file(export.resolve(), f"[{text}]".encode(errors="backslashreplace"))
