"""A table from the page: labelled by the serving model, told about, and shown in part."""

from __future__ import annotations

import csv
import re
import shutil
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import NamedTuple

from sgmft.data.source import Source
from sgmft.data.summary import JobSummary
from sgmft.data.tables import open_table
from sgmft.errors import SgmftError
from sgmft.jobs.predict import predict_table
from sgmft.locator.abstention import Abstention
from sgmft.serving.page.asking import Refusal
from sgmft.serving.page.remote import RemotePredictor
from sgmft.serving.page.unpack import UnsafeZipError, unpack
from sgmft.serving.page.wording import Wording
from sgmft.utils.templates import render

SHOWN = 8  # rows

CELL = 120  # characters

FIRST = ("label", "probability", "set", "abstained", "error", "text")  # columns


class Labelled(NamedTuple):
    """A table that has its labels."""

    file: Path
    html: str


@dataclass(frozen=True)
class TableJob:
    """A table that is to be labelled.

    Attributes:
        table: its file.
        pictures: a zip of its pictures.
        home: a folder for what the job needs meanwhile, and for the labelled table.
        words: of the page.
        rules: by which labels are kept back.
        unpacked: bytes of the zip's files, at most.
    """

    table: Path
    pictures: Path | None
    home: Path
    words: Wording
    rules: Abstention
    unpacked: int

    def run(
        self, predictor: RemotePredictor, on_total: Callable[[int], None] = lambda total: None
    ) -> Labelled:
        """Label it; all but the result is removed.

        Args:
            on_total: called with the number of rows, before the first is labelled.

        Raises:
            Refusal: the zip or the table cannot be read.
            Problem, Stopped: as `RemotePredictor.predictions`.
        """
        with tempfile.TemporaryDirectory(prefix="table-", dir=self.home) as name:
            folder = Path(name)
            try:
                done = folder / f"{self.table.stem}-labelled.csv"
                summary = self._label(folder / "posts", done, predictor, on_total)
            except UnsafeZipError as error:
                raise Refusal(self.words.zips[error.kind].format(name=error.name)) from None
            except SgmftError as error:
                told = self.words.reason(str(error).replace(f"{folder / 'posts'}/", ""))
                raise Refusal(self.words.problems[""].format(detail=told)) from None
            except FileNotFoundError:
                raise Refusal(self.words.gone) from None
            html = _html(self.words, summary, done)
            kept = Path(tempfile.mkdtemp(prefix="labelled-", dir=self.home))
            return Labelled(done.rename(kept / done.name), html)

    def _label(
        self, folder: Path, done: Path, predictor: RemotePredictor, on_total: Callable[[int], None]
    ) -> JobSummary:
        folder.mkdir()
        if self.pictures is not None:
            unpack(self.pictures, folder, self.unpacked)
        source = folder / self.table.name
        source.unlink(missing_ok=True)
        shutil.copyfile(self.table, source)
        on_total(sum(1 for _ in open_table(source).rows))
        return predict_table(Source(str(source)), done, predictor, abstain=self.rules)


def _html(words: Wording, told: JobSummary, labelled: Path) -> str:
    """What there is to say, and the first rows."""
    unusable, withheld = sum(told.errors.values()), sum(told.abstained.values())
    with labelled.open(encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        columns = [x for x in rows.fieldnames or () if not x.startswith("p_")]
        columns = [x for x in FIRST if x in columns] + [x for x in columns if x not in FIRST]
        first = [[_cell(words, x, row.get(x)) for x in columns] for row in islice(rows, SHOWN)]
    return render(
        "serving/templates/serving_table.html",
        w=words,
        done=words.done.format(labelled=told.posts - unusable - withheld, posts=told.posts),
        withheld=words.withheld.format(count=withheld) if withheld else "",
        abstained=[(_reason(words, x), count) for x, count in told.abstained.items()],
        unusable=words.unusable.format(count=unusable) if unusable else "",
        errors=[(_reason(words, x), count) for x, count in told.errors.items()],
        preview=words.preview.format(count=len(first)),
        columns=columns,
        rows=first,
    )


def _reason(words: Wording, told: str) -> str:
    return words.reasons.get(told) or words.reason(told)


def _cell(words: Wording, column: str, value: str | None) -> str:
    """As it is shown; the file itself has reasons in the words of the library."""
    found = value or ""
    if column in ("abstained", "error"):
        found = _reason(words, found)
    if re.fullmatch(r"0\.\d{4,}", found):
        return found[:5]
    return found if len(found) <= CELL else f"{found[:CELL]}…"
