"""The page in a browser, on a server that a user started."""

from __future__ import annotations

import csv
import json
import socket
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("gradio", reason="the page needs gradio: pip install 'sgmft[serve]'")
pytest.importorskip("playwright", reason="playwright drives the browser")

from browser import CHROMIUM, Visit, chromium

from conftest import Server

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt install it")
WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def asked_for() -> list[str]:
    """Every address that a page of these tests has asked for."""
    return []


@pytest.fixture(scope="module")
def context(browser: Any, asked_for: list[str]) -> Any:
    made = browser.new_context(viewport=WIDE, locale="de-DE", accept_downloads=True)
    made.on("request", lambda request: asked_for.append(request.url))
    return made


@pytest.fixture
def visit(context: Any, server: Server) -> Iterator[Callable[..., Visit]]:
    visits: list[Visit] = []

    def start(language: str = "en") -> Visit:
        visits.append(Visit(context, server.address, language))
        return visits[-1]

    yield start
    for made in visits:
        made.page.close()


@pytest.fixture(scope="module")
def pictures(sample: Path) -> list[Path]:
    """Of the generated posts, in the order of the posts."""
    return sorted((sample.parent / "images").glob("*.jpg"))


@pytest.fixture(scope="module")
def posts(sample: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in sample.read_text("utf-8").splitlines()][:12]


def write_table(path: Path, posts: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "text", "images"])
        rows.writerows((post["id"], post["text"], "|".join(post["images"])) for post in posts)
        rows.writerows([("lost", "a text", "images/nowhere.jpg"), ("out", "", "../secret.jpg")])
    return path


def write_zip(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return path


def test_an_empty_page_becomes_an_explained_prediction(
    visit: Any, server: Server, pictures: list[Path]
) -> None:
    page, text = visit(), "爆米花都吃完了，片子才刚刚开始"
    page.give(text, pictures[:1])
    page.ask()
    result = page.explained()

    files = {"images": (pictures[0].name, pictures[0].read_bytes())}
    told = server.post("/v1/predict", data={"text": text}, files=files).json()["predictions"][0]
    assert result.locator(".verdict strong").inner_text() == told["label"]
    shown = result.locator(".top dt").all_inner_texts()
    assert shown == sorted(told["probabilities"], key=lambda x: -told["probabilities"][x])
    numbers = result.locator(".top dd:not(.bar)").all_inner_texts()
    assert numbers[0] == f"{100 * told['probability']:.0f}\u00a0%"
    assert result.locator("blockquote").inner_text() == text
    assert result.locator("blockquote .w").count() > 3
    assert result.locator("figure .heat .cells i").count() == 16
    assert result.locator(".steps dt").all_inner_texts() == [
        "with nothing",
        "text",
        "picture",
        "this post",
    ]
    assert told["label"] in page.page.locator("#said").inner_text()  # for those who do not see it


def test_several_pictures_and_the_frames_of_a_video_are_shown_one_by_one(
    visit: Any, pictures: list[Path]
) -> None:
    from video_files import coloured, video

    film = {"name": "film.mp4", "mimeType": "video/mp4", "buffer": video(coloured(6))}
    page = visit()
    page.give("", [])
    page.page.locator("input[type=file]").first.set_input_files(pictures[:2])
    page.wait_for_files(2)
    page.ask()
    result = page.explained()
    told = result.locator("figcaption").all_inner_texts()
    assert told == [f"picture {i + 1} · {pictures[i].name}" for i in range(2)]
    assert result.locator(".pair").count() == 2

    page.page.reload()
    page.page.locator("#ask").wait_for()
    page.page.locator("input[type=file]").first.set_input_files([film])
    page.wait_for_files(1)
    page.ask()
    told = page.explained().locator("figcaption").all_inner_texts()
    assert len(told) > 1
    assert told[1] == "picture 2 · film.mp4 · frame 2"


def test_an_example_can_be_pressed(visit: Any) -> None:
    page = visit()
    page.page.get_by_role("button", name="Text only").click()
    result = page.explained()
    assert result.locator("figure").count() == 0
    typed = page.page.get_by_label("Text of the post").input_value()
    assert result.locator("blockquote").inner_text() == typed


def test_a_prediction_set_can_be_asked_for(visit: Any, server: Server) -> None:
    text = "今天又是普通的一天"
    told = server.post("/v1/predict", json={"text": text, "coverage": 0.9}).json()
    members = told["predictions"][0]["set"]
    page = visit()
    page.give(text)
    page.page.get_by_label("90\u00a0%").check()
    page.ask()
    result = page.explained()
    shown = result.locator(".set").inner_text().partition(": ")[2]
    assert shown == (", ".join(members) or "no label")
    if len(members) != 1:
        assert result.locator(".verdict").inner_text() == "Cannot tell"
        assert "possible" in result.inner_text() or "enough" in result.inner_text()


def test_a_bad_picture_is_named_and_the_page_goes_on(visit: Any, pictures: list[Path]) -> None:
    page = visit()
    data = pictures[0].read_bytes()
    cut = {"name": "cut.jpg", "mimeType": "image/jpeg", "buffer": data[: len(data) // 2]}
    page.give("", [cut])
    page.ask()
    assert page.problem().startswith("cut.jpg is cut off or damaged")
    page.page.get_by_label("Text of the post").fill("吃火锅去")
    page.page.get_by_role("button", name="Clear").first.click()
    page.ask()
    assert page.explained().locator(".verdict").inner_text()


def test_what_is_too_large_or_missing_is_told_in_a_sentence(visit: Any, tmp_path: Path) -> None:
    page = visit()
    page.ask()
    assert page.problem() == "Write a text or add a picture first."
    large = tmp_path / "large.jpg"
    with large.open("wb") as file:
        file.truncate(34 * 2**20)
    page.give("", [large])
    page.ask()
    page.page.locator("#result").get_by_text("The files have 35.7 MB together").wait_for()
    page.give("很" * 20_001)
    page.page.get_by_role("button", name="Clear").first.click()
    page.ask()
    page.page.locator("#result").get_by_text("The text has 20,001 characters").wait_for()


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


def test_a_table_with_a_zip_comes_back_labelled(
    visit: Any, trained: Path, posts: list[dict[str, Any]], sample: Path, tmp_path: Path
) -> None:
    from sgmft import SemanticLocator
    from sgmft.jobs import Source, predict_table

    table = write_table(sample.parent / "few.csv", posts)
    names = [name for post in posts for name in post["images"]]
    packed = write_zip(
        tmp_path / "few-pictures.zip", {n: (sample.parent / n).read_bytes() for n in names}
    )
    expected = tmp_path / "expected.csv"
    told = predict_table(Source(str(table)), expected, SemanticLocator.from_pretrained(trained))

    page = visit()
    page.label(table, packed)
    found = page.download(tmp_path)
    assert found.name == "few-labelled.csv"
    rows, wanted = read(found), read(expected)
    assert len(rows) == told.posts == 14
    for row, other in zip(rows, wanted, strict=True):
        assert list(row) == list(other)
        for name, value in other.items():
            if name.startswith("p"):  # chances, of batches that are cut otherwise
                assert row[name] == value or float(row[name]) == pytest.approx(
                    float(value), abs=1e-3
                )
            else:
                assert row[name] == value
    assert [row["id"] for row in rows if row["error"]] == ["lost", "out"]

    result = page.page.locator("#table-result")
    assert result.locator("h2").inner_text() == "12 of 14 posts have a label."
    assert "2 cannot be used" in result.inner_text()
    assert "1 × there is no file …" in result.locator("li").all_inner_texts()
    assert result.locator("tbody tr").count() == 8


def read(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        return list(csv.DictReader(file))


def test_a_dangerous_zip_is_refused_and_the_page_goes_on(visit: Any, tmp_path: Path) -> None:
    table = write_table(tmp_path / "posts.csv", [])
    outside = write_zip(tmp_path / "outside.zip", {"../outside.jpg": b"x"})
    page = visit()
    page.label(table, outside)
    assert "../outside.jpg" in page.problem("#table-result")

    huge = write_zip(tmp_path / "huge.zip", {"huge.jpg": b"0" * (8 * 2**20)})
    page = visit()
    page.label(table, huge)
    assert "too large unpacked" in page.problem("#table-result")


def test_a_table_that_is_none_is_told_without_paths_of_the_server(
    visit: Any, tmp_path: Path
) -> None:
    table = tmp_path / "nothing.csv"
    table.write_bytes(b"")
    (tmp_path / "other.csv").write_text("a,b\n1,2\n")
    for name in ("nothing.csv", "other.csv"):
        page = visit()
        page.label(tmp_path / name)
        told = page.problem("#table-result")
        assert name in told
        assert "/tmp" not in told


def test_the_page_speaks_two_languages(visit: Any, server: Server) -> None:
    for wanted, path in (
        ("zh-TW,zh;q=0.9,en;q=0.8", "/zh/"),
        ("de,en;q=0.5", "/en/"),
        ("", "/en/"),
    ):
        answer = server.get("/", headers={"accept-language": wanted})
        assert (answer.status_code, answer.headers["location"]) == (307, path)
    page = visit("zh")
    assert page.has("document.documentElement.lang") == "zh-CN"
    page.page.get_by_role("button", name="只有文字").click()
    told = page.explained().inner_text()
    assert "各标签的概率" in told
    assert "空白帖子" in told
    assert page.page.get_by_text("点击上传").count()  # the framework's own words, too
    page.page.get_by_role("link", name="English").click()
    page.page.get_by_role("button", name="Where was it?").wait_for()
    assert page.has("document.documentElement.lang") == "en"


def test_the_keyboard_is_enough(visit: Any, pictures: list[Path]) -> None:
    page = visit().page
    page.locator("body").click(position={"x": 2, "y": 2})

    def tab_to(wanted: str) -> None:
        for _ in range(12):
            page.keyboard.press("Tab")
            here = page.evaluate(
                "[document.activeElement.ariaLabel || document.activeElement.innerText ||"
                " document.activeElement.labels?.[0]?.innerText ||"
                " document.activeElement.tagName,"
                " [document.activeElement, document.activeElement.closest('label')].some((x) =>"
                " x && getComputedStyle(x).outlineStyle == 'solid')]"
            )
            assert here[1], f"{here[0]} is not seen to have the focus"
            if wanted in here[0]:
                return
        raise AssertionError(f"{wanted} is not reached")

    tab_to("Text of the post")
    page.keyboard.type("和朋友看电影")
    tab_to("Pictures or a short video")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(pictures[0])
    page.locator(".file-preview tr.file").wait_for()
    tab_to("80\u00a0%")
    page.keyboard.press("Space")
    assert page.get_by_label("80\u00a0%").is_checked()
    tab_to("Where was it?")
    page.keyboard.press("Enter")
    page.locator("#result .steps").wait_for()
    assert page.locator("#result .set").count() == 1


def test_a_phone_shows_all_without_scrolling_sideways(browser: Any, server: Server) -> None:
    context = browser.new_context(viewport=PHONE, is_mobile=True, has_touch=True)
    page = Visit(context, server.address, "zh")
    page.page.get_by_role("button", name="英文文字加两张图片").tap()
    page.explained()
    assert page.has("document.documentElement.scrollWidth") == 390
    assert page.has(
        "[...document.querySelectorAll('.sgmft *')].every("
        "(x) => x.getBoundingClientRect().right <= innerWidth)"
    )
    page.page.get_by_role("tab", name="整张表格").tap()
    assert page.has("document.documentElement.scrollWidth") == 390
    context.close()


def test_no_request_leaves_the_server(visit: Any, server: Server, asked_for: list[str]) -> None:
    page = visit()
    page.page.get_by_role("tab", name="A table").click()
    page.page.get_by_role("tab", name="One post").click()
    page.page.get_by_role("button", name="A picture only").click()
    page.explained()
    assert len(asked_for) > 20
    allowed = (server.address, "data:", f"blob:{server.address}")
    assert [address for address in asked_for if not address.startswith(allowed)] == []


def test_the_server_fetches_nothing_for_a_visitor(server: Server) -> None:
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


def test_only_what_the_page_needs_is_there(server: Server) -> None:
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


def test_an_open_page_does_not_keep_the_server_from_ending(
    serving: Callable[..., Server], trained: Path, browser: Any
) -> None:
    server = serving(trained)
    context = browser.new_context()
    Visit(context, server.address)
    time.sleep(1)  # the connection that is kept open
    server.process.terminate()
    assert server.process.wait(10) == 0
    context.close()
