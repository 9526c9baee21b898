"""The page for people: one in each language, beside the API on the same server."""

from __future__ import annotations

import atexit
import os
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import RedirectResponse
from starlette.routing import Mount

from sgmft.serving.engine import Engine
from sgmft.serving.page.wording import Wording
from sgmft.utils.templates import render

_FOREIGN = re.compile(
    r'<meta\s+(?:property|name)="(?:og|twitter):[^>]*>|<link rel="manifest"[^>]*>',
    re.DOTALL,
)


def add_pages(app: FastAPI, engine: Engine) -> Callable[[], None]:
    """Add the page to the application, at `/en/` and `/zh/`; `/` leads to one of them.

    Everything given to it is in a temporary folder that only this user can read. Files are removed
    after an hour, and the folder when the process ends.

    Args:
        engine: started.

    Returns:
        What ends the page's open connections and its work on tables; to be called in the event
        loop when the server is to stop, which would else wait for them.
    """
    home = Path(tempfile.mkdtemp(prefix="sgmft-page-"))
    atexit.register(shutil.rmtree, home, ignore_errors=True)
    given = home / "given"  # the framework removes what is in it when it is old
    os.environ["GRADIO_TEMP_DIR"] = str(given)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"  # read when it is imported
    import gradio as gr

    from sgmft.serving.page.chinese import CHINESE
    from sgmft.serving.page.english import ENGLISH
    from sgmft.serving.page.examples import draw_examples
    from sgmft.serving.page.gate import Gate
    from sgmft.serving.page.layout import KEPT, UPLOAD, Page
    from sgmft.serving.page.theme import theme

    @app.get("/", include_in_schema=False)
    async def start(request: Request) -> RedirectResponse:
        language = _language(request.headers.get("accept-language", ""))
        address = f"{request.scope.get('root_path', '')}/{language}/"
        return RedirectResponse(address, headers={"Vary": "Accept-Language"})

    drawn = home / "examples"
    for folder in (given, drawn):
        folder.mkdir()
    gr.set_static_paths([drawn])  # or copies are shown, and removed like all that is given
    pictures = draw_examples(drawn)
    upload = UPLOAD * engine.limits.body
    ends: list[Callable[[], None]] = []
    for path, words in (("/en", ENGLISH), ("/zh", CHINESE)):
        page = Page(engine, words, given, pictures)
        gr.mount_gradio_app(
            app,
            page.blocks(),
            path,
            footer_links=[],
            run_history=False,
            show_error=False,
            max_file_size=upload,
            ssr_mode=False,
            enable_monitoring=False,
            pwa=False,
            mcp_server=False,
            theme=theme(),
        )
        mount = app.routes[-1]
        assert isinstance(mount, Mount)
        framework: Any = mount.app
        ends += [framework.stop_event.set, page.stop]
        mount.app = Gate(framework, upload, given, KEPT[1], _changed(words))

    def end() -> None:
        for part in ends:
            part()

    return end


def _language(accepted: str) -> str:
    """The one of `en` and `zh` that an `Accept-Language` header wants more."""
    best, most = "en", 0.0
    for part in accepted.split(","):
        tag, _, weight = part.partition(";")
        language = tag.strip().lower().split("-")[0]
        number = re.fullmatch(r"\s*q=(\d(?:\.\d{1,3})?)\s*", weight)
        wanted = float(number[1]) if number else 1.0
        if language in ("en", "zh") and wanted > most:
            best, most = language, wanted
    return best


def _changed(words: Wording) -> Callable[[str], str]:
    """Makes our page of the framework's: its language, title, look, and nothing from elsewhere."""
    head = render("serving/templates/serving_head.html", w=words)
    body = render("serving/templates/serving_body.html", w=words)

    def changed(html: str) -> str:
        start, body_tag, rest = html.partition("<body")
        start = _FOREIGN.sub("", start).replace('lang="en"', f'lang="{words.code}"', 1)
        start = start.replace("</head>", f"{head}</head>", 1)
        tag, end, rest = rest.partition(">")
        return f"{start}{body_tag}{tag}{end}{body}{rest}"

    return changed
