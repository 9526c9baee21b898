"""The parts of the page, without a browser."""

import asyncio
import io
import json
import zipfile
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient
from loopback import until
from PIL import Image

from sgmft.data.posts import Post
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction
from sgmft.serving.guard import Guard, ServerMetrics
from sgmft.serving.page import routes
from sgmft.serving.page.tables import LANGUAGES, TableJob, TableRefused
from sgmft.serving.problems import Limits, Places, Problem

ENGLISH, CHINESE = LANGUAGES.values()


@dataclass
class StubEngine:
    """Answers at once: the label is the text's first letter, "a" or "b".

    Attributes:
        trouble: called with the posts of each request, before they are answered.
        requests: the posts of each.
    """

    trouble: Any = lambda posts: None
    limits: Limits = field(default_factory=lambda: Limits(batch=3, text=50))
    rules: Abstention = field(default_factory=Abstention)
    model: Any = field(
        default_factory=lambda: SimpleNamespace(
            labels=("a", "b"), explains=False, held_out=0, attributes=("m",), traits={}
        )
    )
    places: Places = field(default_factory=lambda: Places(100))
    requests: list[list[Post]] = field(default_factory=list)

    async def predict(self, posts, rules=None):
        self.trouble(posts)
        self.requests.append(list(posts))
        return [self._predict(post) for post in posts]

    def _predict(self, post):
        if post.error is not None:
            return Prediction(post, None, None, None)
        probs = np.array([0.75, 0.25] if post.text[0] == "a" else [0.25, 0.75], np.float32)
        return Prediction(post, post.text[0], probs, None)


def with_job(work, engine=None, folder=None, language=ENGLISH, name="t.csv", table="", zipped=None):
    """The result of some work with a table's job, in another thread than its event loop's."""

    async def run():
        given = name, io.BytesIO(table.encode()), zipped and io.BytesIO(zipped)
        job = TableJob(engine or StubEngine(), folder, language, Abstention(), *given)
        return await asyncio.to_thread(work, job)

    return asyncio.run(run())


def predicted(posts, engine, prepare=lambda job: None):
    def work(job):
        prepare(job)
        return list(job.predictions(posts))

    return with_job(work, engine)


def label_table(folder, table="text\na post\n", **options):
    return with_job(lambda job: job.run(lambda *_: None), None, folder, table=table, **options)


def test_posts_are_predicted_in_chunks_and_come_back_in_order_with_their_rows():
    engine = StubEngine()
    posts = [Post("ab"[i % 2] + str(i), row={"n": i, "m": 2 * i}) for i in range(7)]
    found = predicted(posts, engine)
    assert [x.label for x in found] == [*"abababa"]
    assert [x.post for x in found] == posts
    assert [len(x) for x in engine.requests] == [3, 3, 1]
    sent = [post.row for some in engine.requests for post in some]
    assert sent == [{"m": 2 * i} for i in range(7)]  # no more than what the model reads


def test_a_busy_server_is_tried_again():
    times = iter([True, True, False, True, False])

    def busy(posts):
        if next(times):
            raise Problem("busy", retry=0)

    def hurry(job):
        job.stop.wait = lambda timeout=None: False

    found = predicted([Post("a")] * 6, StubEngine(busy), hurry)
    assert [x.label for x in found] == ["a"] * 6


def test_a_server_that_stays_busy_is_left_when_nobody_waits():
    jobs = []

    def busy(posts):
        jobs[0].stop.set()
        raise Problem("busy", retry=1)

    with pytest.raises(TableRefused, match="Nothing was kept"):
        predicted([Post("a")], StubEngine(busy), jobs.append)


def test_the_post_that_stops_the_worker_is_found_and_the_others_are_labelled():
    def fragile(posts):
        if any("!" in post.text for post in posts):
            raise Problem("takes-too-long")

    found = predicted([Post("a"), Post("b!"), Post("b"), Post("a")], StubEngine(fragile))
    assert [x.label for x in found] == ["a", None, "b", "a"]
    assert found[1].error == "the model cannot read it (takes too long)"


def test_what_is_beyond_the_limits_is_left_out_and_does_not_travel(tmp_path):
    large = tmp_path / "large.png"
    Image.new("RGB", (30, 30)).save(large)
    missing = tmp_path / "missing.png"
    posts = [Post("a" * 51), Post("", [large] * 3), Post("a", [missing] * 3), Post("a", large)]
    limits = Limits(batch=4, text=50, pictures=2, pixels=800)
    sentence, many = "large.png has 900 pixels; at most 800", "there are more than 2 pictures"
    found = predicted(posts, StubEngine(limits=limits))
    assert [x.error for x in found] == [
        "the text has more than 50 characters",
        f"{many}; {sentence}; {sentence}",
        None,
        None,
    ]
    assert [x.post.warnings for x in found[2:]] == [(many,), (sentence,)]
    assert [len(x.post.images) for x in found[2:]] == [2, 0]


def zip_of(files):
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as into:
        for name, data in files.items():
            into.writestr(name, data)
    return packed.getvalue()


def test_a_table_leaves_nothing_but_its_labels(tmp_path):
    table, pictures = "text,image\na post,in/a.jpg\nb post,\n", {"in/a.jpg": "?", "t.csv": "x"}
    file, html = label_table(tmp_path, table, zipped=zip_of(pictures))
    assert [x for x in tmp_path.rglob("*") if x.is_file()] == [file]
    lines = file.read_text("utf-8-sig").splitlines()
    assert [line[:7] for line in lines[1:]] == ["a post,", "b post,"]
    assert "2 of 2 posts have a label." in html

    file.unlink()
    with pytest.raises(TableRefused, match=r"outside its folder: \.\./a\.jpg"):
        label_table(tmp_path, table, zipped=zip_of({"../a.jpg": ""}))
    assert not [x for x in tmp_path.rglob("*") if x.is_file()]


def test_a_table_has_its_reasons_in_chinese_and_its_file_in_english(tmp_path):
    rows = ["id,text,image", "1,,", f"1,{'a' * 51},", "2,,../a.jpg", "3,,http://a.jpg"]
    file, html = label_table(tmp_path, "\n".join(rows), language=CHINESE)
    assert "<li>1 × 没有文字，也没有图片</li>" in html
    assert "<td><span>../a.jpg 不在表格所在的文件夹里</span></td>" in html
    assert "nothing to go on" not in html
    assert "nothing to go on" in file.read_text("utf-8-sig")


@pytest.mark.parametrize(
    ("name", "labelled"),
    [
        ("../../etc/a.csv", "a-labelled.csv"),
        ("..\\a.csv", "a-labelled.csv"),
        ("很" * 100 + ".csv", "很" * 50 + "-labelled.csv"),
        ("a\0b.csv", "ab-labelled.csv"),
    ],
)
def test_no_name_of_a_table_leads_elsewhere(tmp_path, name, labelled):
    file, _ = label_table(tmp_path, name=name)
    assert file.name == labelled
    assert file.parent.parent == tmp_path


@pytest.mark.parametrize("name", ["", "..", ".csv", "a.exe", "/"])
def test_what_is_no_name_of_a_table_is_refused(tmp_path, name):
    with pytest.raises(TableRefused, match="is no table sgmft can read"):
        label_table(tmp_path, name=name)


@pytest.fixture
def open_page(monkeypatch, tmp_path):
    """Makes the page of a stub engine."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)

    def make(*trouble, **options):
        engine = StubEngine(*trouble, **options)
        engine.ready, engine.restarts = True, 0
        app = FastAPI()
        routes.add_page(app, engine)
        app.add_middleware(Guard, limits=engine.limits, metrics=ServerMetrics(engine), key=None)
        return TestClient(app)

    return make


@pytest.fixture
def page(open_page):
    return open_page()


def events(answer):
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def test_a_model_without_reasons_gives_its_prediction_alone(page):
    (event,) = events(page.post("/en/post", files={"text": (None, "a post")}))
    assert "75\u00a0%" in event["html"]
    assert ENGLISH.texts["no_explanation"] in event["html"]
    assert "blockquote" not in event["html"]


def test_a_labelled_table_can_be_downloaded_for_an_hour(page, monkeypatch, tmp_path):
    monkeypatch.setattr(routes, "KEPT", 2.0)
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
        until(lambda: page.get(address).status_code == 404)
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
def test_a_form_that_is_none_of_the_pages_is_refused(page, files, data, sentence):
    (event,) = events(page.post("/en/table", files=files, data=data))
    assert sentence in event["html"]


@pytest.mark.parametrize("address", ["/zh/post", "/zh/table"])
def test_so_many_tables_and_posts_come_at_a_time(open_page, monkeypatch, address):
    monkeypatch.setattr(routes, "UPLOADS", 0)
    (event,) = events(open_page().post(address, files={"table": b"text\na\n"}))
    assert "服务器正忙，请稍后再试。" in event["html"]


@pytest.mark.parametrize(("address", "most"), [("/en/post", 1000), ("/en/table", 16_000)])
def test_a_body_is_bounded_also_where_it_has_no_length(open_page, tmp_path, address, most):
    page = open_page(limits=Limits(body=1000))
    form = {"content-type": "multipart/form-data; boundary=x"}
    start = b'--x\r\nContent-Disposition: form-data; name="table"; filename="a.csv"\r\n\r\n'
    for content in (iter([start, *[b"a" * 100] * (most // 100 + 2)]), start + b"a" * most):
        answer = page.post(address, content=content, headers=form)
        assert (answer.status_code, answer.json()["type"]) == (413, "/problems/body-too-large")
    assert not list(tmp_path.rglob("*.csv"))


def test_places_are_free_again_when_a_client_leaves():
    places = Places(1)
    with pytest.raises(KeyError), places.take():
        raise KeyError
    with places.take(), pytest.raises(Problem), places.take():
        pass
    assert places.taken == 0


def test_a_bug_is_reported_without_what_the_post_says(open_page, caplog):
    def broken(posts):
        raise ValueError(posts[0].text)

    (event,) = events(open_page(broken).post("/zh/post", files={"text": (None, "a secret")}))
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
def test_the_language_that_is_wanted_more_is_chosen(page, header, language):
    answer = page.get("/", headers={"accept-language": header}, follow_redirects=False)
    assert (answer.status_code, answer.headers["location"]) == (307, f"/{language}/")


def test_only_what_the_page_needs_is_there(page):
    for path in ("/static/../routes.py", "/static/..%2froutes.py", "/static/", "/fr/", "/tables/"):
        assert page.get(path).status_code == 404, path
    assert page.get("/zh", follow_redirects=False).headers["location"] == "zh/"
    for path in ("/en/", "/static/page.js", "/static/page.css", "/static/examples/cinema-1.jpg"):
        answer = page.get(path, headers={"origin": "http://elsewhere.example"})
        assert answer.status_code == 200, path
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers
    assert "/en" not in json.dumps(page.app.openapi())
