"""A table from the page: labelled by the serving model, summarised, and shown in part."""

import asyncio
import csv
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePath
from typing import Any, BinaryIO

from sgmft.data.posts import MediaFile, Post
from sgmft.data.preprocessing.images import count_pixels
from sgmft.data.source import Source
from sgmft.data.summary import JobSummary
from sgmft.data.tables import Columns, open_table
from sgmft.data.tables.images import names_pictures
from sgmft.data.tables.posts import USUAL_COLUMNS, recognize_columns
from sgmft.errors import HEARD, Message, SgmftError, join_messages
from sgmft.jobs.predict import predict_table
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction, Predictions
from sgmft.serving.engine import InferenceEngine
from sgmft.serving.page.archive import unpack
from sgmft.serving.page.language import Language
from sgmft.serving.problems import Problem
from sgmft.utils.templates import render

SHOWN = 8  # rows
CELL = 120  # characters
FIRST = ("label", "probability", "set", "text", "abstained", "error", "warning")  # columns


def safe_name(name: str) -> str:
    """Return the name of a visitor's file as that of one of ours."""
    path = PurePath(PurePath(name.replace("\\", "/").replace("\0", "")).name)
    stem = path.stem.encode()[:150].decode("utf-8", "ignore").strip(".")
    return stem + path.suffix[:20] or "table"


def columns_html(language: Language, home: Path, name: str, table: BinaryIO) -> str:
    """Return as HTML the choice of columns for a table's beginning, and what is recognised."""
    with tempfile.TemporaryDirectory(prefix="columns-", dir=home) as folder:
        path = Path(folder) / safe_name(name)
        with path.open("wb") as file:
            shutil.copyfileobj(table, file)
        try:
            tool, columns, roles = recognize_columns(path)
        except SgmftError as error:
            raise TableRefused(language.translate(str(error), hidden=f"{folder}/")) from None
    given: Any = {"columns": columns, "said": language.recognized(roles, tool)}
    given["roles"] = {role: roles[role] for role in language.texts["roles"]}
    return render("serving/page/templates/columns.html", t=language.texts, **given)


class TableRefused(Exception):  # noqa: N818 a sentence for the visitor
    """A table or zip that cannot be used, or is not wanted any more; in the page's language."""


@dataclass(eq=False)
class TableJob:
    """A table to be labelled in another thread; to `predict_table` it is a model.

    Posts go to the engine in chunks, each as one request. Once `stop` is set, it is refused.
    """

    engine: InferenceEngine
    home: Path  # a folder for what is needed meanwhile, and for the labelled table
    language: Language
    rules: Abstention
    name: str  # of the table's file, as the visitor has it
    table: BinaryIO
    pictures: BinaryIO | None  # a zip
    columns: Columns = USUAL_COLUMNS

    def __post_init__(self) -> None:
        self.name, self.stop = safe_name(self.name), threading.Event()
        self.labels, self.traits = list(self.engine.model.labels), self.engine.model.traits
        self._loop, self._done, self._total = asyncio.get_running_loop(), 0, 0
        self._notes, self._first = list[str](), list[Prediction]()
        self._on_progress: Callable[[int, int], None] = lambda done, total: None
        self._reasons = {kind: Counter[str]() for kind in ("withheld", "unusable", "warned")}

    def run(self, on_progress: Callable[[int, int], None]) -> tuple[Path, str]:
        """Label it; return the table, and its HTML. `on_progress` gets the posts done, and all."""
        self._on_progress = on_progress
        with tempfile.TemporaryDirectory(prefix="table-", dir=self.home) as name:
            folder, done = Path(name) / "posts", Path(name) / f"{Path(self.name).stem}-labelled.csv"
            try:
                summary = self._label(folder, done)
            except SgmftError as error:
                reason = self.language.translate(str(error), hidden=f"{folder}/")
                raise TableRefused(reason.replace(f"{folder}/", "")) from None
            html = self._html(summary, done, folder)
            kept = Path(tempfile.mkdtemp(prefix="labelled-", dir=self.home))
            return done.rename(kept / done.name), html

    def predictions(self, posts: Iterable[Post], abstain: Abstention | None = None) -> Predictions:
        """Yield predictions in the order of the posts; a post beyond the limits has an error."""
        waiting = iter(posts)
        while chunk := list(islice(waiting, self.engine.limits.batch)):
            found = self._predict([self._limit(post) for post in chunk], abstain)
            self._first += found[: SHOWN - len(self._first)]
            translate = partial(self.language.translate, bare=True)
            for x in found:
                self._reasons["withheld"].update(filter(None, [x.abstained]))
                self._reasons["unusable"].update(map(translate, filter(None, [x.error])))
                if not x.error:
                    self._reasons["warned"].update(set(map(translate, x.post.warnings)))
            self._done += len(found)
            self._on_progress(self._done, self._total)
            yield from found

    def _limit(self, post: Post) -> Post:
        """Return a post without the pictures that are beyond the server's limits."""
        limits, kept, left = self.engine.limits, list[MediaFile](), list[str]()
        if len(post.text) > limits.text:
            error = Message("the text has more than {most:,} characters", most=limits.text)
            return replace(post, error=post.error or error)
        if len(post.images) > limits.pictures:
            left.append(Message("there are more than {most} pictures", most=limits.pictures))
        for image in post.images[: limits.pictures]:
            if isinstance(image, Path) and image.is_file():
                pixels = count_pixels(image.read_bytes(), image.name) or 0
                many = {"name": image.name, "count": pixels, "most": limits.pixels}
                if pixels > limits.pixels:
                    left.append(Message("{name} has {count:,} pixels; at most {most:,}", **many))
                    continue
            kept.append(image)
        if left and not kept and not post.text.strip():
            return replace(post, error=post.error or join_messages(left))
        return replace(post, images=kept, warnings=(*post.warnings, *left))

    def _predict(self, posts: Sequence[Post], rules: Abstention | None) -> list[Prediction]:
        """Predict one chunk, in halves where a post in it stops the worker."""
        try:
            read, rows = self.engine.model.attributes, [post.row.items() for post in posts]
            own = ({k: x for k, x in row if k in read or names_pictures(x)} for row in rows)
            sent = [replace(x, row=row) for x, row in zip(posts, own, strict=True)]
            found = self._request(sent, rules)
        except Problem as problem:
            if problem.kind not in ("takes-too-long", "worker-stopped"):
                raise
            if len(posts) == 1:
                error = f"the model cannot read it ({problem.kind.replace('-', ' ')})"
                return [Prediction(replace(posts[0], error=error), None, None, None)]
            half = len(posts) // 2
            return self._predict(posts[:half], rules) + self._predict(posts[half:], rules)
        pairs = zip(found, posts, strict=True)
        return [x._replace(post=replace(x.post, row=post.row)) for x, post in pairs]

    def _request(self, posts: Sequence[Post], rules: Abstention | None) -> list[Prediction]:
        async def request() -> list[Prediction]:
            with self.engine.places.take():
                return await self.engine.predict(posts, rules)

        while not self.stop.is_set():
            try:
                return asyncio.run_coroutine_threadsafe(request(), self._loop).result()
            except Problem as problem:
                if problem.kind != "busy":
                    raise
                self.stop.wait(problem.retry or 1)
        raise TableRefused(self.language.texts["stopped"])

    def _label(self, folder: Path, done: Path) -> JobSummary:
        folder.mkdir()
        if self.pictures is not None:
            unpack(self.pictures, folder, 2 * self.engine.limits.upload)
        source = folder / self.name
        source.unlink(missing_ok=True)
        with source.open("wb") as file:
            shutil.copyfileobj(self.table, file)
        self._total = sum(1 for _ in open_table(source).rows)
        self._on_progress(0, self._total)
        table, context = Source(str(source), self.columns), copy_context()
        context.run(HEARD.set, self._notes)
        return context.run(predict_table, table, done, self, abstain=self.rules)

    def _html(self, summary: JobSummary, done: Path, folder: Path) -> str:
        with done.open(encoding="utf-8-sig", newline="") as file:
            rows = list(islice(csv.DictReader(file), SHOWN))
        names = dict.fromkeys([*FIRST, *(name for row in rows for name in row)])
        columns = [x for x in names if x[:2] != "p_" and any(row.get(x) for row in rows)]
        pairs = zip(rows, self._first, strict=True)
        first = [[self._cell(row[x] or "", x, found) for x in columns] for row, found in pairs]
        translate = partial(self.language.translate, hidden=f"{folder}/")
        lost = self.language.translate(Message("there is no file {name}", name=""), bare=True)
        notes = [translate(x) for x in dict.fromkeys(self._notes)]
        given: Any = {"language": self.language, "summary": summary, "reasons": self._reasons}
        given |= {"notes": notes, "columns": columns, "rows": first}
        given["lost"] = None if self.pictures else lost
        return render("serving/page/templates/table.html", **given)

    def _cell(self, value: str, column: str, prediction: Prediction) -> str:
        """Return a cell as it is shown; the file itself has reasons in English."""
        if column in ("abstained", "error", "warning"):
            reasons = {"abstained": prediction.abstained, "error": prediction.error}
            reason = reasons.get(column, join_messages(prediction.post.warnings))
            value = self.language.translate(reason or "")
        if column == "probability" and value:
            return self.language.percent(float(value))
        return value if len(value) <= CELL else f"{value[:CELL]}…"
