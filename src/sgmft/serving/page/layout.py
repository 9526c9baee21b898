"""What is where on the page, and what happens when it is pressed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import gradio as gr

from sgmft.data.tables.formats import STREAMED
from sgmft.serving.engine import Engine
from sgmft.serving.page.asking import OFF, answers, sentence
from sgmft.serving.page.drop import file_drop
from sgmft.serving.page.examples import EXAMPLES
from sgmft.serving.page.remote import RemotePredictor, Stopped
from sgmft.serving.page.result import problem_html
from sgmft.serving.page.tables import TableJob
from sgmft.serving.page.wording import Wording
from sgmft.utils.templates import render

COVERAGES = (0.8, 0.9, 0.95)

TABLES = 2  # that are labelled at the same time

KEPT = (300, 3600)  # seconds between looking for files, and of their age when they are removed

UPLOAD = 8  # times the server's limit of a request: of a table or its zip

UNPACKED = 2  # times that

_HIDDEN: dict[str, Any] = {"api_visibility": "private"}


class Page:
    """The page in one language.

    Args:
        home: the folder of everything that is given to the page.
        pictures: of each of `EXAMPLES`.
    """

    def __init__(
        self, engine: Engine, words: Wording, home: Path, pictures: Sequence[list[str]]
    ) -> None:
        self._engine, self._words, self._home, self._pictures = engine, words, home, pictures
        self._stops: dict[str | None, threading.Event] = {}

    def blocks(self) -> gr.Blocks:
        """As the framework has it."""
        w = self._words
        blocks: gr.Blocks
        with gr.Blocks(analytics_enabled=False, title=w.title, delete_cache=KEPT) as blocks:
            self._html(render("serving/templates/serving_top.html", w=w))
            with gr.Tabs():
                with gr.Tab(w.post_tab, id="post"):
                    self._one_post()
                with gr.Tab(w.table_tab, id="table"):
                    self._table()
            blocks.unload(self._stop)
        blocks.queue(max_size=self._engine.limits.requests)
        return blocks

    def stop(self) -> None:
        """End what is being done for tables."""
        for stop in self._stops.values():
            stop.set()

    def _one_post(self) -> None:
        w = self._words
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                text = gr.Textbox(label=w.text, placeholder=w.text_hint, lines=4, max_lines=12)
                files = file_drop(
                    w.gone, ["image", "video"], label=w.files, file_count="multiple", height=150
                )
                coverage = self._coverage()
                ask = gr.Button(w.ask, variant="primary", elem_id="ask")
                with gr.Column(elem_id="try"):
                    self._html(f"<p>{w.examples}</p>")
                    buttons = [
                        gr.Button(name, size="sm", icon=paths[0] if paths else None)
                        for name, paths in zip(w.example_names, self._pictures, strict=True)
                    ]
            with gr.Column(scale=3, min_width=300):
                result = self._html(
                    render("serving/templates/serving_hint.html", w=w, told=w.empty), "result"
                )

        async def asked(text: str, files: list[str], coverage: str) -> AsyncIterator[str]:
            async for html in answers(self._engine, w, text, files, coverage):
                yield html

        how: dict[str, Any] = {
            "inputs": [text, files, coverage],
            "outputs": result,
            "concurrency_limit": None,
            "scroll_to_output": True,
            **_HIDDEN,
        }
        ask.click(asked, **how)
        text.submit(asked, **how)
        for example, paths, button in zip(EXAMPLES, self._pictures, buttons, strict=True):
            chosen = button.click(
                lambda example=example, paths=paths: (example.text, paths or None),
                outputs=[text, files],
                show_progress="hidden",
                **_HIDDEN,
            )
            chosen.success(asked, **how)

    def _table(self) -> None:
        w = self._words
        with gr.Row(equal_height=False):
            with gr.Column(scale=2, min_width=300):
                kinds = list(STREAMED)
                table = file_drop(w.gone, kinds, label=w.table, height=130)
                self._html(f'<p class="told">{w.table_hint}</p>')
                pictures = file_drop(w.gone, [".zip"], label=w.pictures, height=130)
                self._html(f'<p class="told">{w.pictures_hint}</p>')
                coverage = self._coverage()
                with gr.Row():
                    start = gr.Button(w.label_table, variant="primary", min_width=120)
                    stop = gr.Button(w.stop, min_width=90, scale=0)
            with gr.Column(scale=3, min_width=300):
                hint = render("serving/templates/serving_hint.html", w=w, told=w.table_empty)
                result = self._html(hint, "table-result")
                download = gr.DownloadButton(
                    w.download, variant="primary", visible=False, elem_id="download"
                )
        labelled = start.click(
            self._label,
            [table, pictures, coverage],
            [result, download],
            concurrency_limit=TABLES,
            concurrency_id="tables",
            scroll_to_output=True,
            show_progress_on=result,
            **_HIDDEN,
        )
        stop.click(self._stop, cancels=[labelled], **_HIDDEN)

    async def _label(
        self,
        table: str | None,
        pictures: str | None,
        coverage: str,
        request: gr.Request,
        progress: gr.Progress = gr.Progress(),  # noqa: B008 how the framework finds it
    ) -> tuple[str, Any]:
        """Label a table; the HTML of its summary, and the file to download."""
        w, nothing = self._words, gr.update(visible=False, value=None)
        if table is None:
            return problem_html(w, w.no_table), nothing
        stop = self._stops[request.session_hash] = threading.Event()
        total = 0

        def read(count: int) -> None:
            nonlocal total
            total = count
            told(0)

        def told(done: int) -> None:
            progress((done, total), desc=w.predicting, unit=w.unit)

        if pictures is not None:
            progress(None, desc=w.unpacking)
        coverages = None if coverage == OFF else float(coverage)
        job = TableJob(
            Path(table),
            None if pictures is None else Path(pictures),
            self._home,
            w,
            rules=replace(self._engine.rules, coverage=coverages),
            unpacked=UNPACKED * UPLOAD * self._engine.limits.body,
        )
        predictor = RemotePredictor(self._engine, asyncio.get_running_loop(), stop, told)
        try:
            done = await asyncio.to_thread(job.run, predictor, on_total=read)
            return done.html, gr.update(visible=True, value=str(done.file))
        except Stopped:
            return problem_html(w, w.stopped), nothing
        except Exception as error:
            return problem_html(w, sentence(w, error)), nothing
        finally:
            stop.set()
            self._stops.pop(request.session_hash, None)

    def _stop(self, request: gr.Request) -> None:
        """Whoever asked for a table has left, or does not want it any more."""
        if stop := self._stops.get(request.session_hash):
            stop.set()

    def _html(self, html: str, name: str | None = None) -> gr.HTML:
        return gr.HTML(html, elem_id=name, apply_default_css=False, js_on_load=None)

    def _coverage(self) -> gr.Radio:
        """Which prediction sets are asked for; hidden where the model has too few posts for any."""
        w, own = self._words, self._engine.rules.coverage
        held_out = self._engine.about.held_out
        offered = {x for x in COVERAGES if held_out > 1 / min(x, 1 - x)}
        if own is not None:
            offered.add(own)
        choices = [(w.off, OFF), *((w.percent(x), str(x)) for x in sorted(offered))]
        return gr.Radio(
            choices,
            value=OFF if own is None else str(own),
            label=w.coverage,
            info=w.coverage_hint,
            visible=bool(offered),
        )
