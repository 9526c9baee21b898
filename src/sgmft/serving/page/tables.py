"""A table from the page: labelled by the serving model, summarised, and shown in part."""

import asyncio
import csv
import re
import shutil
import tempfile
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from itertools import islice
from pathlib import Path, PurePath
from typing import BinaryIO, NamedTuple

from sgmft.data.posts import Post
from sgmft.data.preprocessing.images import count_pixels
from sgmft.data.source import Source
from sgmft.data.summary import JobSummary
from sgmft.data.tables import open_table
from sgmft.errors import Message, SgmftError
from sgmft.jobs.predict import predict_table
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction
from sgmft.serving.engine import InferenceEngine
from sgmft.serving.page.archive import UnsafeZipError, unpack
from sgmft.serving.page.language import Language
from sgmft.serving.problems import Problem
from sgmft.utils.templates import render

SHOWN = 8  # rows
CELL = 120  # characters
FIRST = ("label", "probability", "set", "abstained", "error", "text")  # columns
_PATIENCE = 1.0  # seconds before a busy server is tried again, where it gives no other number


class TableRefused(Exception):  # noqa: N818 a sentence for the visitor
    """A table or zip that cannot be used; the reason in the language of the page."""


class JobStopped(Exception):  # noqa: N818 nothing is wrong
    """The visitor does not want the table any more, or the server ends."""


class LabelledTable(NamedTuple):
    """A table that has its labels, and its HTML as the page shows it."""

    file: Path
    html: str


class TableJob:
    """A table that is to be labelled, in another thread than the event loop in which it is made.

    It is what `predict_table` knows as a model. Posts go to the engine in chunks that each count as
    one request, so that others get their turn.

    Args:
        engine: of the server.
        home: a folder for what the job needs meanwhile, and for the labelled table.
        language: of the page.
        rules: by which labels are withheld.
        name: of the table's file, as the visitor has it.
        table: its bytes.
        pictures: a zip of its pictures, if there are any.

    Attributes:
        labels: of the model.
        stop: once it is set, the job ends with `JobStopped`.
    """

    def __init__(
        self,
        engine: InferenceEngine,
        home: Path,
        language: Language,
        rules: Abstention,
        name: str,
        table: BinaryIO,
        pictures: BinaryIO | None,
    ) -> None:
        name = PurePath(name.replace("\\", "/").replace("\0", "")).name
        stem, suffix = PurePath(name).stem, PurePath(name).suffix[:20]
        self.name = stem.encode()[:150].decode("utf-8", "ignore").strip(".") + suffix or "table"
        self.pictures, self.stop = pictures, threading.Event()
        self.labels = list(engine.model.labels)
        self._engine, self._loop = engine, asyncio.get_running_loop()
        self._home, self._language, self._rules, self._table = home, language, rules, table
        self._done = self._total = 0
        self._on_progress: Callable[[int, int], None] = lambda done, total: None
        self._first: list[Prediction] = []
        self._reasons: dict[str, Counter[str]] = {"abstained": Counter(), "error": Counter()}

    def run(self, on_progress: Callable[[int, int], None]) -> LabelledTable:
        """Label it; all but the result is removed.

        Args:
            on_progress: called with the numbers of labelled posts and of all.

        Raises:
            TableRefused: the zip or the table cannot be read.
            Problem, JobStopped: as `predictions`.
        """
        self._on_progress = on_progress
        with tempfile.TemporaryDirectory(prefix="table-", dir=self._home) as name:
            folder, done = Path(name) / "posts", Path(name) / f"{Path(self.name).stem}-labelled.csv"
            try:
                summary = self._label(folder, done)
            except UnsafeZipError as error:
                zips = self._language.texts["zips"]
                raise TableRefused(zips[error.kind].format(name=error.name)) from None
            except SgmftError as error:
                reason = self._language.translate(str(error), hidden=f"{folder}/")
                raise TableRefused(reason.replace(f"{folder}/", "")) from None
            html = self._html(summary, done)
            kept = Path(tempfile.mkdtemp(prefix="labelled-", dir=self._home))
            return LabelledTable(done.rename(kept / done.name), html)

    def predictions(
        self, posts: Iterable[Post], abstain: Abstention | None = None
    ) -> Iterator[Prediction]:
        """Yield predictions in the order of the posts; a post beyond the limits has an error.

        Raises:
            Problem: the model cannot do what `abstain` asks for.
            JobStopped: it is to stop.
        """
        waiting = iter(posts)
        while chunk := list(islice(waiting, self._engine.limits.batch)):
            chunk = [replace(post, error=post.error or self._excess(post)) for post in chunk]
            found = self._predict(chunk, abstain)
            self._first += found[: SHOWN - len(self._first)]
            for kind, counted in self._reasons.items():
                reasons = (getattr(x, kind) for x in found)
                bare = kind == "error"
                counted.update(self._language.translate(x, bare=bare) for x in reasons if x)
            self._done += len(found)
            self._on_progress(self._done, self._total)
            yield from found

    def _excess(self, post: Post) -> Message | None:
        """Return by what a post is beyond the server's limits."""
        limits = self._engine.limits
        if len(post.text) > limits.text:
            return Message("the text has more than {most:,} characters", most=limits.text)
        if len(post.images) > limits.pictures:
            return Message("there are more than {most} pictures", most=limits.pictures)
        for image in post.images:
            if isinstance(image, Path) and image.is_file():
                pixels = count_pixels(image.read_bytes(), image.name)
                if pixels is not None and pixels > limits.pixels:
                    template = "{name} has {count:,} pixels; at most {most:,}"
                    return Message(template, name=image.name, count=pixels, most=limits.pixels)
        return None

    def _predict(self, posts: Sequence[Post], rules: Abstention | None) -> list[Prediction]:
        """Predict one chunk, in halves where a post in it stops the worker."""
        try:
            found = self._request([replace(post, row={}) for post in posts], rules)
        except Problem as problem:
            if problem.kind not in ("takes-too-long", "worker-stopped"):
                raise
            if len(posts) == 1:
                error = f"the model cannot read it ({problem.kind.replace('-', ' ')})"
                return [Prediction(replace(posts[0], error=error), None, None, None)]
            half = len(posts) // 2
            return self._predict(posts[:half], rules) + self._predict(posts[half:], rules)
        return [
            x._replace(post=replace(post, error=x.error, warnings=x.post.warnings))
            for x, post in zip(found, posts, strict=True)
        ]

    def _request(self, posts: Sequence[Post], rules: Abstention | None) -> list[Prediction]:
        """Predict as one request, again while the server is busy."""

        async def request() -> list[Prediction]:
            with self._engine.places.take():
                return await self._engine.predict(posts, rules)

        while not self.stop.is_set():
            try:
                return asyncio.run_coroutine_threadsafe(request(), self._loop).result()
            except Problem as problem:
                if problem.kind != "busy":
                    raise
                self.stop.wait(problem.retry or _PATIENCE)
        raise JobStopped

    def _label(self, folder: Path, done: Path) -> JobSummary:
        folder.mkdir()
        if self.pictures is not None:
            unpack(self.pictures, folder, self._engine.limits.unpacked)
        source = folder / self.name
        source.unlink(missing_ok=True)
        with source.open("wb") as file:
            shutil.copyfileobj(self._table, file)
        self._total = sum(1 for _ in open_table(source).rows)
        self._on_progress(0, self._total)
        return predict_table(Source(str(source)), done, self, abstain=self._rules)

    def _html(self, summary: JobSummary, done: Path) -> str:
        """Return the counts, the reasons, and the first rows."""
        labelled = summary.posts - sum(x.total() for x in self._reasons.values())
        with done.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            columns = [x for x in rows.fieldnames or () if not x.startswith("p_")]
            columns = [x for x in FIRST if x in columns] + [x for x in columns if x not in FIRST]
            first = [
                [self._cell(row.get(x) or "", x, prediction) for x in columns]
                for row, prediction in zip(islice(rows, SHOWN), self._first, strict=True)
            ]
        text = self._language.text
        reasons = [
            (text(code, count=counted.total()), counted.most_common())
            for code, counted in zip(("withheld", "unusable"), self._reasons.values(), strict=True)
            if counted
        ]
        return render(
            "serving/page/templates/table.html",
            t=self._language.texts,
            done=text("done", labelled=labelled, posts=summary.posts),
            reasons=reasons,
            preview=text("preview", count=len(first)),
            columns=columns,
            rows=first,
        )

    def _cell(self, value: str, column: str, prediction: Prediction) -> str:
        """Return a cell as it is shown; the file itself has reasons in English."""
        if column in ("abstained", "error"):
            value = self._language.translate(getattr(prediction, column) or "")
        if re.fullmatch(r"0\.\d{4,}", value):
            return f"{float(value):.3f}"
        return value if len(value) <= CELL else f"{value[:CELL]}…"
