"""A table from the page: labelled by the serving model, summarised, and shown in part."""

from __future__ import annotations

import csv
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePath
from typing import BinaryIO, NamedTuple

from sgmft.data.source import Source
from sgmft.data.summary import JobSummary
from sgmft.data.tables import open_table
from sgmft.errors import SgmftError
from sgmft.jobs.predict import predict_table
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction
from sgmft.serving.page.archive import UnsafeZipError, unpack
from sgmft.serving.page.language import Language
from sgmft.serving.page.predictor import EnginePredictor
from sgmft.utils.templates import render

SHOWN = 8  # rows

CELL = 120  # characters

FIRST = ("label", "probability", "set", "abstained", "error", "text")  # columns


class TableRefused(Exception):  # noqa: N818 a sentence for the visitor
    """A table or zip that cannot be used; the reason in the language of the page."""


class LabelledTable(NamedTuple):
    """A table that has its labels, and its HTML as the page shows it."""

    file: Path
    html: str


@dataclass
class TableJob:
    """A table that is to be labelled.

    Attributes:
        name: its file's name, as the visitor has it.
        table: its bytes.
        pictures: a zip of its pictures, if there are any.
        home: a folder for what the job needs meanwhile, and for the labelled table.
        language: of the page.
        rules: by which labels are withheld.
        unpacked: bytes of the zip's files, at most.
    """

    name: str
    table: BinaryIO
    pictures: BinaryIO | None
    home: Path
    language: Language
    rules: Abstention
    unpacked: int
    _first: list[Prediction] = field(default_factory=list, init=False)
    _reasons: dict[str, Counter[str]] = field(init=False)

    def __post_init__(self) -> None:
        name = PurePath(self.name.replace("\\", "/").replace("\0", "")).name
        stem, suffix = PurePath(name).stem, PurePath(name).suffix[:20]
        self.name = stem.encode()[:150].decode("utf-8", "ignore").strip(".") + suffix or "table"
        self._reasons = {"errors": Counter(), "abstained": Counter()}

    def see(self, predictions: Sequence[Prediction]) -> None:
        """Take note of predictions; `EnginePredictor` calls it."""
        self._first += predictions[: SHOWN - len(self._first)]
        kinds = (self.language.translate_kind(x.error) for x in predictions if x.error)
        self._reasons["errors"].update(kinds)
        reasons = (self.language.translate(x.abstained) for x in predictions if x.abstained)
        self._reasons["abstained"].update(reasons)

    def run(
        self, predictor: EnginePredictor, on_total: Callable[[int], None] = lambda total: None
    ) -> LabelledTable:
        """Label it; all but the result is removed.

        Args:
            on_total: called with the number of rows, before the first is labelled.

        Raises:
            TableRefused: the zip or the table cannot be read.
            Problem, JobStopped: as `EnginePredictor.predictions`.
        """
        with tempfile.TemporaryDirectory(prefix="table-", dir=self.home) as name:
            folder, done = Path(name) / "posts", Path(name) / f"{Path(self.name).stem}-labelled.csv"
            try:
                summary = self._label(folder, done, predictor, on_total)
            except UnsafeZipError as error:
                zips = self.language.texts["zips"]
                raise TableRefused(zips[error.kind].format(name=error.name)) from None
            except SgmftError as error:
                reason = self.language.translate(str(error), hidden=f"{folder}/")
                raise TableRefused(reason.replace(f"{folder}/", "")) from None
            html = self._html(summary, done)
            kept = Path(tempfile.mkdtemp(prefix="labelled-", dir=self.home))
            return LabelledTable(done.rename(kept / done.name), html)

    def _label(
        self, folder: Path, done: Path, predictor: EnginePredictor, on_total: Callable[[int], None]
    ) -> JobSummary:
        folder.mkdir()
        if self.pictures is not None:
            unpack(self.pictures, folder, self.unpacked)
        source = folder / self.name
        source.unlink(missing_ok=True)
        with source.open("wb") as file:
            shutil.copyfileobj(self.table, file)
        on_total(sum(1 for _ in open_table(source).rows))
        return predict_table(Source(str(source)), done, predictor, abstain=self.rules)

    def _html(self, summary: JobSummary, done: Path) -> str:
        """Return the counts, the reasons, and the first rows."""
        errors, abstained = self._reasons["errors"], self._reasons["abstained"]
        labelled = summary.posts - errors.total() - abstained.total()
        with done.open(encoding="utf-8-sig", newline="") as file:
            rows = csv.DictReader(file)
            columns = [x for x in rows.fieldnames or () if not x.startswith("p_")]
            columns = [x for x in FIRST if x in columns] + [x for x in columns if x not in FIRST]
            first = [
                [self._cell(row.get(x) or "", x, prediction) for x in columns]
                for row, prediction in zip(islice(rows, SHOWN), self._first, strict=True)
            ]
        reasons = [
            (self.language.text(code, count=counted.total()), counted.most_common())
            for code, counted in (("withheld", abstained), ("unusable", errors))
            if counted
        ]
        return render(
            "serving/page/templates/table.html",
            t=self.language.texts,
            done=self.language.text("done", labelled=labelled, posts=summary.posts),
            reasons=reasons,
            preview=self.language.text("preview", count=len(first)),
            columns=columns,
            rows=first,
        )

    def _cell(self, value: str, column: str, prediction: Prediction) -> str:
        """Return a cell as it is shown; the file itself has reasons in English."""
        if column in ("abstained", "error"):
            value = self.language.translate(getattr(prediction, column) or "")
        if re.fullmatch(r"0\.\d{4,}", value):
            return f"{float(value):.3f}"
        return value if len(value) <= CELL else f"{value[:CELL]}…"
