"""What the page keeps to itself, and out."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("gradio", reason="the page needs gradio: pip install 'sgmft[serve]'")
pytest.importorskip("playwright", reason="playwright drives the browser")

from browser import CHROMIUM, Visit

pytest_plugins = ["browser_fixtures"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt install it")


def test_text_is_text(visit: Any) -> None:
    page = visit()
    text = "<img src=x onerror=\"document.title='x'\"> ${7*7} {{7*7}} </section><script>1</script>"
    evil = {"name": "<img src=x onerror=1>.jpg", "mimeType": "image/jpeg", "buffer": b"no picture"}
    page.give(text)
    page.ask()
    result = page.explained()
    assert result.locator("blockquote").inner_text() == text
    assert result.locator("blockquote img, blockquote script").count() == 0
    assert page.page.title() == "Where was this post written?"
    page.give(text, [evil])
    page.ask()
    page.problem()
    assert page.page.locator(".problem img").count() == 0


def test_no_request_leaves_the_server(visit: Any, asked_for: list[str]) -> None:
    page = visit()
    page.page.get_by_role("tab", name="A table").click()
    page.page.get_by_role("tab", name="One post").click()
    page.page.get_by_role("button", name="A picture only").click()
    page.explained()
    assert len(asked_for) > 20
    assert {httpx.URL(x).host for x in asked_for if x.startswith("http")} == {"127.0.0.1"}
    assert {x.partition(":")[0] for x in asked_for} <= {"http", "data", "blob"}


def test_the_server_fetches_nothing_for_a_visitor(server: Any) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(3)
        address = f"http://127.0.0.1:{listening.getsockname()[1]}/picture.jpg"
        config = server.get("/en/config").json()
        kinds = {x["id"]: x["type"] for x in config["components"]}
        asking = next(
            x
            for x in config["dependencies"]
            if [kinds[i] for i in x["inputs"]] == ["textbox", "file", "radio"]
        )
        file = {"path": address, "url": address, "meta": {"_type": "gradio.FileData"}}
        body = {"data": ["", [file], "off"], "fn_index": asking["id"], "session_hash": "abc"}
        assert server.post("/en/gradio_api/queue/join", json=body).status_code == 200
        events = f"{server.address}/en/gradio_api/queue/data?session_hash=abc"
        with httpx.stream("GET", events, timeout=20) as stream:
            told = "".join(stream.iter_text())
        assert "no longer there" in told
        with pytest.raises(TimeoutError):
            listening.accept()


def test_only_what_the_page_needs_is_there(server: Any) -> None:
    for path in ("proxy=http://127.0.0.1:1", "run/predict", "call/x", "vibe-code", "runs"):
        assert server.get(f"/en/gradio_api/{path}").status_code == 404
        assert server.post(f"/en/gradio_api/{path}", json={}).status_code == 404
    assert server.get("/en/gradio_api/file=/etc/passwd").status_code == 403
    assert server.get("/en/monitoring").status_code == 404
    assert server.get("/en/gradio_api/info").json()["named_endpoints"] == {}
    for path in ("/health", "/ready", "/metrics", "/v1/model", "/openapi.json", "/problems/busy"):
        assert server.get(path).status_code == 200
    assert "/en" not in server.get("/openapi.json").text
    headers = {"origin": "http://elsewhere.example", "host": "server.example"}
    assert "access-control-allow-origin" not in server.get("/en/", headers=headers).headers


@pytest.mark.slow
def test_an_open_page_does_not_keep_the_server_from_ending(
    serving: Callable[..., Any], trained: Path, browser: Any
) -> None:
    server = serving(trained)
    context = browser.new_context()
    Visit(context, server.address)
    time.sleep(1)  # the connection that is kept open
    server.process.terminate()
    assert server.process.wait(10) == 0
    context.close()
