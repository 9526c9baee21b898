"""Addresses of the page: itself, its files, one post, a table, and a labelled table to download.

A post or a table is sent as a form, as to the API; what comes back are lines of JSON, as soon as
there is something to show: `{"html": ...}` for the place of the result, or the progress of a job.
"""

import asyncio
import atexit
import json
import re
import secrets
import shutil
import tempfile
import tomllib
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import FileResponse, HTMLResponse, RedirectResponse, StreamingResponse
from fastapi.staticfiles import StaticFiles
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from sgmft.data.tables import Columns
from sgmft.data.tables.formats import READABLE
from sgmft.errors import SgmftError
from sgmft.evaluation.explain.explanation import Explanation
from sgmft.evaluation.explain.page import MOST_CLASSES, explanation_view
from sgmft.locator.prediction import Prediction
from sgmft.serving.engine import InferenceEngine
from sgmft.serving.guard import log_bug
from sgmft.serving.page import tables
from sgmft.serving.page.tables import LANGUAGES, Language, TableJob, TableRefused
from sgmft.serving.problems import Places, Problem
from sgmft.serving.requests import ExplainedPost, Form, ParsedRequest, open_form, parse_request
from sgmft.utils.templates import render

Events = AsyncGenerator[dict[str, Any], None]  # lines of a response
COVERAGES = (0.8, 0.9, 0.95)
UPLOADS = 16  # posts that come in at a time; and tables, from their first byte to their labels
TABLES = 2  # that are labelled at the same time
KEPT = 3600  # seconds that a labelled table can be downloaded
_DATA = tomllib.loads(Path(__file__).with_name("page.toml").read_text("utf-8"))
EXAMPLES: dict[str, list[str]] = _DATA["examples"]
HEADERS: dict[str, str] = _DATA["headers"]


def add_page(app: FastAPI, engine: InferenceEngine) -> Callable[[], None]:
    """Add the page to the application, at `/en/` and `/zh/`; `/` leads to one of them.

    Tables are in a temporary folder that only this user can read; labelled ones are removed after
    an hour, and the folder when the process ends. Returns what ends the work on tables, in the
    event loop, which the server that is to stop would else wait for.
    """
    page = Page(engine)
    app.add_api_route("/", choose_language, include_in_schema=False)
    for code, language in LANGUAGES.items():
        show = partial(page.show, language)
        app.add_api_route(f"/{code}/", show, methods=["GET", "HEAD"], include_in_schema=False)
        for endpoint in (page.post, page.table, page.columns):
            app.add_route(f"/{code}/{endpoint.__name__}", partial(endpoint, language), ["POST"])
        app.add_route(f"/{code}", RedirectResponse(f"{code}/"), ["GET"])  # type: ignore[arg-type]
    app.add_api_route("/tables/{token}", page.download, include_in_schema=False)
    app.mount("/static", _PageFiles(directory=Path(__file__).parent / "static"))
    return page.stop


async def choose_language(request: Request) -> RedirectResponse:
    """Redirect to the page in the language that an `Accept-Language` header prefers."""
    code = rf"(?:^|,)\s*({'|'.join(LANGUAGES)})\b[^,;]*(?:;\s*q=(\d(?:\.\d{{1,3}})?)\s*(?=,|$))?"
    found = re.findall(code, request.headers.get("accept-language", "").lower())  # "": weighs 1
    best, _ = max([("en", "0"), *found], key=lambda x: float(x[1] or 1))
    address = f"{request.scope.get('root_path', '')}/{best}/"
    return RedirectResponse(address, headers={"Vary": "Accept-Language"})


class Page:
    """The page of one server, in all its languages; `home` has what it keeps for a while."""

    def __init__(self, engine: InferenceEngine) -> None:
        self._engine, self.home = engine, Path(tempfile.mkdtemp(prefix="sgmft-page-"))
        atexit.register(shutil.rmtree, self.home, ignore_errors=True)
        self._uploads, self._tables = Places(UPLOADS), Places(UPLOADS)
        self._turns = asyncio.Semaphore(TABLES)
        self._jobs, self._labelled = set[TableJob](), dict[str, Path]()

    def stop(self) -> None:
        """End the work on tables."""
        for job in self._jobs:
            job.stop.set()

    async def show(self, language: Language, request: Request) -> HTMLResponse:
        """Return the page itself."""
        limits, model, own = self._engine.limits, self._engine.model, self._engine.rules.coverage
        offered = {x for x in COVERAGES if model.held_out > 1 / min(x, 1 - x)}
        offered |= set() if own is None else {own}
        config = {"bytes": {"post": limits.body, "table": limits.upload}}
        config |= {"texts": {code: language.texts[code] for code in _DATA["script_texts"]}}
        given: Any = {"t": language.texts, "formats": ",".join(READABLE), "chosen": own}
        given["coverages"] = [(x, language.percent(x)) for x in sorted(offered)]
        given["examples"] = zip(language.texts["example_names"], EXAMPLES.items(), strict=True)
        given["config"] = config | {"pictures": limits.pictures}
        html = render("serving/page/templates/page.html", **given)
        return HTMLResponse(html, headers=HEADERS | {"Cache-Control": "no-store"})

    async def post(self, language: Language, request: Request) -> Response:
        """Predict one post, and explain it."""
        try:
            with self._uploads.take():
                given = await parse_request(request, self._engine.limits, ExplainedPost)
        except Problem as problem:
            return EventLines(_failure(language, problem))
        return EventLines(self._results(language, given))

    async def table(self, language: Language, request: Request) -> Response:
        """Label a table."""
        try:
            async with AsyncExitStack() as stack:
                stack.enter_context(self._tables.take())
                opening = open_form(request, 2, self._engine.limits.text)
                form = await stack.enter_async_context(opening)
                return EventLines(self._label(language, self._job(language, form)), stack.pop_all())
        except Problem as problem:
            return EventLines(_failure(language, problem))

    async def columns(self, language: Language, request: Request) -> Response:
        """Return the columns of a table to choose among, and what is recognised."""
        try:
            with self._uploads.take():
                async with open_form(request, 1, self._engine.limits.text) as (_, files):
                    if not files:
                        raise Problem("invalid-request", "The form has no file 'table'.")
                    file = files[0][1]
                    given = language, self.home, file.filename or "", file.file
                    html = await asyncio.to_thread(tables.columns_html, *given)
        except Exception as error:
            html = tables.problem_html(language, _sentence(language, error))
        return JSONResponse({"html": html}, headers=HEADERS)

    async def download(self, token: str) -> FileResponse:
        """Return a labelled table."""
        if (file := self._labelled.get(token)) is None:
            raise Problem("not-found", "There is no such table, or no more.")
        return FileResponse(file, filename=file.name, media_type="text/csv", headers=HEADERS)

    async def _results(self, language: Language, given: ParsedRequest) -> Events:
        engine, (post,) = self._engine, given.posts
        rules = replace(engine.rules, coverage=given.rules.coverage if given.rules else None)

        def show(found: Prediction, explained: Explanation | None = None, note: str = "") -> Any:
            """Return the result, with an explanation or, in its place, the text of code `note`."""
            assert found.probabilities is not None
            shares = dict(zip(engine.model.labels, found.probabilities.tolist(), strict=True))
            given = {"language": language, "prediction": found, "shares": shares, "note": note}
            given |= {"coverage": rules.coverage, "shown": MOST_CLASSES, "found": explained}
            view = explained and explanation_view(explained)
            return {"html": render("serving/page/templates/result.html", view=view, **given)}

        try:
            with engine.places.take():
                (prediction,) = await engine.predict([post], rules)
                if prediction.error is not None:
                    raise Problem("unusable-post", "{reason}.", reason=prediction.error)
                if not engine.model.explains:
                    yield show(prediction, note="no_explanation")
                    return
                yield show(prediction, note="explaining")
                try:
                    prediction, explanation = await engine.explain(post, None, rules)
                    yield show(prediction, explanation)
                except Problem as problem:
                    if problem.kind not in ("takes-too-long", "worker-stopped", "busy"):
                        raise
                    yield show(prediction, note="too_long_to_explain")
        except Exception as error:
            yield {"html": tables.problem_html(language, _sentence(language, error))}

    def _job(self, language: Language, form: Form) -> TableJob:
        files, coverage = dict(form[1]), form[0].get("coverage")
        if "table" not in files:
            raise Problem("invalid-request", "The form has no file 'table'.")
        try:
            rules = replace(self._engine.rules, coverage=float(coverage) if coverage else None)
        except (ValueError, SgmftError):
            raise Problem("invalid-request", "The field 'coverage' is no share.") from None
        table = files["table"]
        pictures = files["pictures"].file if "pictures" in files else None
        chosen = {x.name: form[0].get(x.name) or None for x in fields(Columns)}
        given = table.filename or "", table.file, pictures, Columns(**chosen)
        return TableJob(self._engine, self.home, language, rules, *given)

    async def _label(self, language: Language, job: TableJob) -> Events:
        loop = asyncio.get_running_loop()
        events: asyncio.Queue[dict[str, Any] | None] = asyncio.Queue()
        later, put = loop.call_soon_threadsafe, events.put_nowait

        def count(done: int, total: int) -> None:
            later(put, {"progress": language.texts["predicting"], "done": done, "total": total})

        def work() -> None:
            try:
                file, html = job.run(count)
                token = secrets.token_urlsafe(16)
                later(self._keep, token, file, job.stop.is_set())
                later(put, {"html": html, "download": f"../tables/{token}"})
            except Exception as error:
                stopped = job.stop.is_set()
                reason = language.text("stopped") if stopped else _sentence(language, error)
                later(put, {"html": tables.problem_html(language, reason)})
            finally:
                later(put, None)

        self._jobs.add(job)
        try:
            if self._turns.locked():
                yield {"progress": language.texts["in_line"]}
            async with self._turns:
                yield {"progress": language.texts["unpacking" if job.pictures else "predicting"]}
                loop.run_in_executor(None, work)
                while (event := await events.get()) is not None:
                    yield event
        finally:
            job.stop.set()
            self._jobs.discard(job)

    def _keep(self, token: str, file: Path, unwanted: bool) -> None:
        self._labelled[token] = file
        asyncio.get_running_loop().call_later(0 if unwanted else KEPT, self._remove, token)

    def _remove(self, token: str) -> None:
        shutil.rmtree(self._labelled.pop(token).parent, ignore_errors=True)


class EventLines(StreamingResponse):
    """Lines of JSON as they come, until the client leaves; then what they needed is closed."""

    def __init__(self, events: Events, needed: AsyncExitStack | None = None) -> None:
        lines = (json.dumps(event) + "\n" async for event in events)
        super().__init__(lines, media_type="application/x-ndjson", headers=HEADERS)
        self._events, self._needed = events, needed or AsyncExitStack()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the lines."""
        async with self._needed:
            try:
                await super().__call__(scope, receive, send)
            finally:
                await self._events.aclose()


class _PageFiles(StaticFiles):
    def file_response(self, *args: Any, **options: Any) -> Response:
        response = super().file_response(*args, **options)
        response.headers.update(HEADERS | {"Cache-Control": "no-cache"})
        return response


async def _failure(language: Language, problem: Problem) -> Events:
    yield {"html": tables.problem_html(language, language.describe(problem))}


def _sentence(language: Language, error: Exception) -> str:
    """Return what is shown of an error; a bug goes to the log, without what a post says."""
    if isinstance(error, Problem):
        return language.describe(error)
    if isinstance(error, TableRefused):
        return str(error)
    log_bug(error)
    return str(language.texts["problems"]["internal"])
