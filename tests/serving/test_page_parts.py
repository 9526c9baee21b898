"""The parts of the page, without a browser."""

from __future__ import annotations

import asyncio
import json
import threading
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from stub_engine import StubEngine, label_table

from sgmft.data.posts import Post
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction
from sgmft.serving.guard import Guard
from sgmft.serving.limits import Limits, Places
from sgmft.serving.metrics import ServerMetrics
from sgmft.serving.page import routes
from sgmft.serving.page.language import get_language
from sgmft.serving.page.predictor import EnginePredictor, JobStopped
from sgmft.serving.page.tables import TableJob, TableRefused
from sgmft.serving.problems import Problem

ENGLISH, CHINESE = get_language("en"), get_language("zh")


async def labelled(engine: Any, posts: Sequence[Post], stop: threading.Event) -> list[Prediction]:
    """Predictions of the engine, asked for as a table's job does."""
    predictor = EnginePredictor(engine, asyncio.get_running_loop(), stop)
    return await asyncio.to_thread(lambda: list(predictor.predictions(posts)))


def test_posts_are_predicted_in_chunks_and_come_back_in_order_with_their_rows() -> None:
    engine = StubEngine()
    posts = [Post("ab"[i % 2] + str(i), row={"n": i}) for i in range(7)]
    found = asyncio.run(labelled(engine, posts, threading.Event()))
    assert [x.label for x in found] == [*"abababa"]
    assert [x.post for x in found] == posts
    assert [len(x) for x in engine.requests] == [3, 3, 1]
    assert not any(post.row for x in engine.requests for post in x)  # rows need not travel


def test_a_busy_server_is_tried_again() -> None:
    times = iter([True, True, False, True, False])

    def busy(posts: Sequence[Post]) -> None:
        if next(times):
            raise Problem("busy", retry=0)

    stop = threading.Event()
    stop.wait = lambda timeout=None: False  # type: ignore[method-assign]
    found = asyncio.run(labelled(StubEngine(busy), [Post("a")] * 6, stop))
    assert [x.label for x in found] == ["a"] * 6


def test_a_server_that_stays_busy_is_left_when_nobody_waits() -> None:
    stop = threading.Event()

    def busy(posts: Sequence[Post]) -> None:
        stop.set()
        raise Problem("busy", retry=1)

    with pytest.raises(JobStopped):
        asyncio.run(labelled(StubEngine(busy), [Post("a")], stop))


def test_the_post_that_stops_the_worker_is_found_and_the_others_are_labelled() -> None:
    def fragile(posts: Sequence[Post]) -> None:
        if any("!" in post.text for post in posts):
            raise Problem("takes-too-long")

    posts = [Post("a"), Post("b!"), Post("b"), Post("a")]
    found = asyncio.run(labelled(StubEngine(fragile), posts, threading.Event()))
    assert [x.label for x in found] == ["a", None, "b", "a"]
    assert found[1].error == "the model cannot read it (takes too long)"


def test_posts_beyond_the_limits_have_an_error_and_do_not_travel(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (30, 30)).save(tmp_path / "large.png")
    engine = StubEngine(limits=Limits(batch=4, text=50, pictures=2, pixels=800))
    posts = [
        Post("a" * 51),
        Post("a", [tmp_path / "large.png"] * 3),
        Post("a", tmp_path / "large.png"),
        Post("a"),
    ]
    found = asyncio.run(labelled(engine, posts, threading.Event()))
    assert [x.error for x in found] == [
        "the text has more than 50 characters",
        "there are more than 2 pictures",
        "large.png has 900 pixels; at most 800",
        None,
    ]


def job(folder: Path, table: str, pictures: Path | None = None, name: str = "t.csv") -> TableJob:
    (folder / "given").write_text(table, "utf-8")
    home = folder / "home"
    home.mkdir(exist_ok=True)
    zipped = pictures and pictures.open("rb")
    opened = (folder / "given").open("rb")
    return TableJob(name, opened, zipped, home, ENGLISH, Abstention(), 1000)


def test_a_table_leaves_nothing_but_its_labels(tmp_path: Path) -> None:
    table, pictures = "text,image\na post,in/a.jpg\nb post,\n", tmp_path / "t.zip"
    with zipfile.ZipFile(pictures, "w") as packed:
        packed.writestr("in/a.jpg", b"no picture")
        packed.writestr("t.csv", b"x")
    done = label_table(job(tmp_path, table, pictures))
    assert [x for x in (tmp_path / "home").rglob("*") if x.is_file()] == [done.file]
    lines = done.file.read_text("utf-8-sig").splitlines()
    assert [line[:7] for line in lines[1:]] == ["a post,", "b post,"]
    assert "2 of 2 posts have a label." in done.html

    done.file.unlink()
    with zipfile.ZipFile(pictures, "w") as packed:
        packed.writestr("../a.jpg", b"")
    with pytest.raises(TableRefused, match=r"outside its folder: \.\./a\.jpg"):
        label_table(job(tmp_path, table, pictures))
    assert not [x for x in (tmp_path / "home").rglob("*") if x.is_file()]


@pytest.mark.parametrize(
    ("name", "labelled"),
    [
        ("../../etc/a.csv", "a-labelled.csv"),
        ("..\\a.csv", "a-labelled.csv"),
        ("很" * 100 + ".csv", "很" * 50 + "-labelled.csv"),
        ("a\0b.csv", "ab-labelled.csv"),
    ],
)
def test_no_name_of_a_table_leads_elsewhere(tmp_path: Path, name: str, labelled: str) -> None:
    done = label_table(job(tmp_path, "text\na post\n", name=name))
    assert done.file.name == labelled
    assert done.file.parent.parent == tmp_path / "home"


@pytest.mark.parametrize("name", ["", "..", ".csv", "a.exe", "/"])
def test_what_is_no_name_of_a_table_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(TableRefused, match="is no table sgmft can read"):
        label_table(job(tmp_path, "text\na post\n", name=name))


def client(monkeypatch: pytest.MonkeyPatch, folder: Path, engine: Any = None) -> TestClient:
    """The page of a stub engine."""
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr("tempfile.tempdir", None)
    engine = engine or StubEngine()
    engine.ready, engine.restarts = True, 0
    app = FastAPI()
    routes.add_page(app, engine)
    app.add_middleware(Guard, limits=engine.limits, metrics=ServerMetrics(engine), key=None)
    return TestClient(app)


@pytest.fixture
def page(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> TestClient:
    return client(monkeypatch, tmp_path)


def events(answer: Any) -> list[dict[str, Any]]:
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_model_without_reasons_gives_its_prediction_alone(page: TestClient) -> None:
    (event,) = events(page.post("/en/post", files={"text": (None, "a post")}))
    assert "75\u00a0%" in event["html"]
    assert ENGLISH.texts["no_explanation"] in event["html"]
    assert "blockquote" not in event["html"]


def test_a_labelled_table_can_be_downloaded_for_an_hour(
    page: TestClient, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(routes, "KEPT", 0.2)
    files = {"table": ("场所.csv", b"text\na post\nb post\n")}
    with page:
        *progress, last = events(page.post("/zh/table", files=files, data={"coverage": ""}))
        assert [(x.get("done"), x.get("total")) for x in progress] == [(None, None), (0, 2), (2, 2)]
        assert "2 条帖子中，2 条有了标签。" in last["html"]
        address = last["download"].removeprefix("..")
        answer = page.get(address)
        assert "a post,a," in answer.text
        assert "%E5%9C%BA%E6%89%80-labelled.csv" in answer.headers["content-disposition"]
        assert page.get(address[:-1]).json()["type"] == "/problems/not-found"
        page.portal.call(asyncio.sleep, 0.4)  # type: ignore[union-attr]
        assert page.get(address).status_code == 404
    assert not list(tmp_path.rglob("*.csv"))


@pytest.mark.parametrize(
    ("files", "data", "sentence"),
    [
        ({"x": b""}, {}, "no file &#39;table&#39;"),
        ({"table": b""}, {"coverage": "2"}, "is no share"),
        ({"table": b""}, {"coverage": "nan"}, "is no share"),
        ({"a": b"", "b": b"", "c": b""}, {}, "Too many files"),
    ],
)
def test_a_form_that_is_none_of_the_pages_is_refused(
    page: TestClient, files: Any, data: Any, sentence: str
) -> None:
    (event,) = events(page.post("/en/table", files=files, data=data))
    assert sentence in event["html"]


def test_so_many_tables_and_posts_come_at_a_time(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(routes, "UPLOADS", 0)
    page = client(monkeypatch, tmp_path)
    for address in ("/zh/post", "/zh/table"):
        (event,) = events(page.post(address, files={"table": b"text\na\n"}))
        assert "服务器正忙，请稍后再试。" in event["html"]


def test_a_body_is_bounded_also_where_it_has_no_length(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = client(monkeypatch, tmp_path, StubEngine(limits=Limits(body=1000)))
    form = {"content-type": "multipart/form-data; boundary=x"}
    start = b'--x\r\nContent-Disposition: form-data; name="table"; filename="a.csv"\r\n\r\n'

    def sent(size: int) -> Any:
        yield start
        for _ in range(size // 100):
            yield b"a" * 100

    for address, most in (("/en/post", 1000), ("/en/table", 16_000)):
        for content in (sent(most + 200), start + b"a" * most):
            answer = page.post(address, content=content, headers=form)
            assert (answer.status_code, answer.json()["type"]) == (413, "/problems/body-too-large")
    assert not list(tmp_path.rglob("*.csv"))


def test_places_are_free_again_when_a_client_leaves() -> None:
    places = Places(1)
    with pytest.raises(KeyError), places.take():
        raise KeyError
    with places.take(), pytest.raises(Problem), places.take():
        pass
    assert places.taken == 0


def test_a_bug_is_reported_without_what_the_post_says(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(posts: Sequence[Post]) -> None:
        raise ValueError(posts[0].text)

    page = client(monkeypatch, tmp_path, StubEngine(broken))
    (event,) = events(page.post("/zh/post", files={"text": (None, "a secret")}))
    assert CHINESE.texts["problems"]["internal"] in event["html"]
    assert "secret" not in event["html"] + caplog.text
    assert "ValueError" in caplog.text


@pytest.mark.parametrize(
    ("header", "language"),
    [
        ("", "en"),
        ("zh-CN,zh;q=0.9,en;q=0.8", "zh"),
        ("en-GB,en;q=0.9,zh;q=0.8", "en"),
        ("fr,zh;q=0.4,en;q=0.3", "zh"),
        ("zh;q=0,en;q=0.1", "en"),
        ("zh;q=abc;;,,;q", "zh"),
    ],
)
def test_the_language_that_is_wanted_more_is_chosen(
    page: TestClient, header: str, language: str
) -> None:
    answer = page.get("/", headers={"accept-language": header}, follow_redirects=False)
    assert answer.headers["location"] == f"/{language}/"


def test_only_what_the_page_needs_is_there(page: TestClient) -> None:
    for path in ("/static/../routes.py", "/static/..%2froutes.py", "/static/", "/fr/", "/tables/"):
        assert page.get(path).status_code == 404, path
    assert page.get("/zh", follow_redirects=False).headers["location"] == "zh/"
    for path in ("/en/", "/static/page.js", "/static/page.css", "/examples/cinema-1.jpg"):
        answer = page.get(path, headers={"origin": "http://elsewhere.example"})
        assert answer.status_code == 200, path
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers
    assert "/en" not in json.dumps(page.app.openapi())  # type: ignore[attr-defined]
