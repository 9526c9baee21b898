"""A table from the page, with its zip of pictures: labelled, summarised, and shown in part."""

import asyncio
import lzma
import shutil
import tempfile
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import copy_context
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path, PurePath, PurePosixPath
from stat import S_ISLNK
from typing import Any, BinaryIO

from sgmft import errors
from sgmft.data.posts import MediaFile, Post
from sgmft.data.preprocessing.images import count_pixels
from sgmft.data.source import JobSummary, Source
from sgmft.data.tables import Columns, open_table
from sgmft.data.tables.csv import CSV
from sgmft.data.tables.images import names_pictures
from sgmft.data.tables.posts import USUAL_COLUMNS, recognize_columns
from sgmft.errors import Message, SgmftError, join_messages, raising
from sgmft.evaluation.explain.page import Wording
from sgmft.jobs.predict import predict_table
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction, Predictions
from sgmft.serving.engine import InferenceEngine
from sgmft.serving.problems import Problem
from sgmft.utils.templates import read_texts, render


class Language(Wording):
    """The texts of the page by code; `problems` by kind, `reasons` by the English template."""

    def __init__(self, code: str) -> None:
        super().__init__(code)
        self.texts |= read_texts("serving/page/texts", code)
        self.texts["reasons"] = read_texts("evaluation/templates", code) | self.texts["reasons"]

    def translate(self, message: str, hidden: str = "", *, bare: bool = False) -> str:
        """Return a message of the library in this language; one without a translation as it is.

        Without `hidden`, the server's own folder; `bare` without its names and numbers.
        """
        reasons: dict[str, str] = self.texts["reasons"]
        if not isinstance(message, Message):
            message = errors.kind_of(message) if bare and message not in reasons else message
            return reasons.get(message, message)
        values = dict(message.values)
        for name, value in values.items():
            if name in errors.SENTENCES:
                values[name] = self.translate(value, hidden, bare=bare)
            elif bare:
                values[name] = value if name == "kinds" else errors.Omitted("…")
            elif name == "least":
                values[name] = self.percent(value)
            elif not isinstance(value, int | float):
                values[name] = str(value).replace(hidden, "")
        return reasons.get(message.template, message.template).format(**values)

    def recognized(self, roles: Mapping[str, Sequence[str]], tool: str | None) -> str:
        """Return which columns of a table hold what, and the tool that wrote it."""
        there = {name: roles[x] for x, name in self.texts["roles"].items() if roles[x]}
        lists = {name: self.join(columns, "others") for name, columns in there.items()}
        items = [self.text("in_columns", role=x, columns=columns) for x, columns in lists.items()]
        code = "recognized" if roles["text"] or roles["image"] else "nothing_recognized"
        start = self.text("read_as", tool=tool) if tool else ""
        return start + self.text(code, items=self.join(items, "columns"))

    def describe(self, problem: Problem) -> str:
        """Return the sentence for a problem, by its kind."""
        problems = self.texts["problems"]
        values = problem.detail.values if isinstance(problem.detail, Message) else {}
        values = values | {"detail": self.translate(str(problem))}
        return str(problems.get(problem.kind, problems[""]).format(**values))


LANGUAGES = {code: Language(code) for code in ("en", "zh")}


def problem_html(language: Language, sentence: str) -> str:
    """Return the reason why there is no result, as HTML."""
    return render("serving/page/templates/problem.html", t=language.texts, sentence=sentence)


SHOWN = 8  # rows
CELL = 120  # characters
FIRST = ("label", "probability", "set", "text", "abstained", "error", "warning")  # columns
FILES = 20_000  # of a zip of pictures, unpacked
RATIO = 100  # of a file's size to its packed size; pictures are packed already
SMALL = 1024 * 1024  # bytes of a file whose ratio does not matter
_DAMAGE: tuple[type[Exception], ...] = (zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError)
_DAMAGE += OSError, NotImplementedError, UnicodeError  # the latter of ways of packing, and names
_TOO_LARGE = "The file is too large unpacked. Pack smaller or fewer pictures, or give a .csv."


def safe_name(name: str) -> str:
    """Return the name of a visitor's file as that of one of ours."""
    path = PurePath(PurePath(name.replace("\\", "/").replace("\0", "")).name)
    stem = path.stem.encode()[:150].decode("utf-8", "ignore").strip(".")
    return stem + path.suffix[:20] or "table"


def columns_html(language: Language, home: Path, name: str, table: BinaryIO) -> str:
    """Return as HTML the choice of columns for a table's beginning, and what is recognised."""
    with tempfile.TemporaryDirectory(prefix="columns-", dir=home) as folder:
        path = Path(folder) / safe_name(name)
        try:
            _keep(table, path)
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
        _keep(self.table, source)
        self._total = sum(1 for _ in open_table(source).rows)
        self._on_progress(0, self._total)
        table, context = Source(str(source), self.columns), copy_context()
        context.run(errors.HEARD.set, self._notes)
        return context.run(predict_table, table, done, self, abstain=self.rules)

    def _html(self, summary: JobSummary, done: Path, folder: Path) -> str:
        rows = [x.values for x in islice(CSV.read(done).rows, SHOWN)]
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


def unpack(file: Path | BinaryIO, folder: Path, most: int) -> int:
    """Write the files of a zip below a folder, with their own folders; return their number.

    SgmftError where it is damaged; before anything is written, for unsafe, too many or large files.
    """
    with raising("The zip is damaged, or no zip.", *_DAMAGE), zipfile.ZipFile(file) as packed:
        found = {path: entry for entry in packed.infolist() if (path := _checked(entry))}
        if len(found) > FILES:
            raise SgmftError("The zip has too many files.")
        if sum(entry.file_size for entry in found.values()) > most:
            raise SgmftError(_TOO_LARGE)
        for path, entry in found.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            with packed.open(entry) as source, (folder / path).open("wb") as target:
                shutil.copyfileobj(source, target)  # zipfile reads no more than the header says
        return len(found)


def _checked(entry: zipfile.ZipInfo) -> PurePosixPath | None:
    """Return the place of a file below the folder; None for what is no file or of no use."""
    name = _name(entry).replace("\\", "/")
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts or "\0" in name or name[1:2] == ":":
        raise SgmftError(errors.TEXTS["outside the folder"], name=name[:100])
    if S_ISLNK(entry.external_attr >> 16):
        raise SgmftError("The zip has a link in place of a file: {name}.", name=name[:100])
    if entry.flag_bits & 0x1:
        raise SgmftError("The zip has a password: pack it without one ({name}).", name=name[:100])
    _check_ratio(entry)
    if entry.is_dir() or not path.parts or path.parts[0] == "__MACOSX":
        return None
    return path


def _check_ratio(entry: zipfile.ZipInfo) -> None:
    if entry.file_size > max(SMALL, RATIO * entry.compress_size):
        raise SgmftError(_TOO_LARGE)


def _keep(table: BinaryIO, path: Path) -> None:
    """Write a visitor's table to a file; SgmftError where a workbook would unpack to far more."""
    with path.open("wb") as file:
        shutil.copyfileobj(table, file)
    with suppress(*_DAMAGE), zipfile.ZipFile(path) as packed:  # what is no workbook is read later
        for entry in packed.infolist():
            _check_ratio(entry)


def _name(entry: zipfile.ZipInfo) -> str:
    """Return the name as it was given: not every program records its encoding."""
    for encoding in () if entry.flag_bits & 0x800 else ("utf-8", "gb18030"):
        with suppress(UnicodeError):
            return entry.filename.encode("cp437").decode(encoding)
    return entry.filename
