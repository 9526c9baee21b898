"""What the page is made of, without a browser."""

from __future__ import annotations

import asyncio
import threading
import zipfile
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from string import Formatter
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs gradio: pip install 'sgmft[serve]'")

from toy_engine import ToyEngine, label_table

from sgmft.data.posts import Post
from sgmft.locator.abstention import Abstention
from sgmft.locator.prediction import Prediction
from sgmft.serving.limits import Limits
from sgmft.serving.page import _language
from sgmft.serving.page.asking import OFF, Refusal, answers
from sgmft.serving.page.chinese import CHINESE
from sgmft.serving.page.english import ENGLISH
from sgmft.serving.page.remote import RemotePredictor, Stopped
from sgmft.serving.page.tables import TableJob
from sgmft.serving.problems import Problem


async def labelled(engine: Any, posts: Sequence[Post], stop: threading.Event) -> list[Prediction]:
    """What the engine says of the posts, asked as a table's job asks."""
    predictor = RemotePredictor(engine, asyncio.get_running_loop(), stop)
    return await asyncio.to_thread(lambda: list(predictor.predictions(posts)))


def test_posts_are_asked_for_in_chunks_and_come_back_in_order_with_their_rows() -> None:
    engine = ToyEngine()
    posts = [Post("ab"[i % 2] + str(i), row={"n": i}) for i in range(7)]
    said = asyncio.run(labelled(engine, posts, threading.Event()))
    assert [x.label for x in said] == [*"abababa"]
    assert [x.post for x in said] == posts
    assert [len(x) for x in engine.requests] == [3, 3, 1]
    assert not any(post.row for x in engine.requests for post in x)  # rows need not travel


def test_a_busy_server_is_asked_again() -> None:
    times = iter([True, True, False, True, False])

    def busy(posts: Sequence[Post]) -> None:
        if next(times):
            raise Problem("busy", retry=0)

    engine = ToyEngine(busy)
    stop = threading.Event()
    stop.wait = lambda timeout=None: False  # type: ignore[method-assign]
    said = asyncio.run(labelled(engine, [Post("a")] * 6, stop))
    assert [x.label for x in said] == ["a"] * 6


def test_a_server_that_stays_busy_is_left_when_nobody_waits() -> None:
    stop = threading.Event()

    def busy(posts: Sequence[Post]) -> None:
        stop.set()
        raise Problem("busy", retry=1)

    with pytest.raises(Stopped):
        asyncio.run(labelled(ToyEngine(busy), [Post("a")], stop))


def test_the_post_that_stops_the_worker_is_found_and_the_others_are_labelled() -> None:
    def fragile(posts: Sequence[Post]) -> None:
        if any("!" in post.text for post in posts):
            raise Problem("takes-too-long")

    posts = [Post("a"), Post("b!"), Post("b"), Post("a")]
    said = asyncio.run(labelled(ToyEngine(fragile), posts, threading.Event()))
    assert [x.label for x in said] == ["a", None, "b", "a"]
    assert said[1].error == "the model cannot read it (takes too long)"


def test_posts_beyond_the_limits_have_an_error_and_do_not_travel(tmp_path: Path) -> None:
    from PIL import Image

    Image.new("RGB", (30, 30)).save(tmp_path / "large.png")
    engine = ToyEngine(limits=Limits(batch=4, text=50, pictures=2, pixels=800))
    posts = [
        Post("a" * 51),
        Post("a", [tmp_path / "large.png"] * 3),
        Post("a", tmp_path / "large.png"),
        Post("a"),
    ]
    said = asyncio.run(labelled(engine, posts, threading.Event()))
    assert [x.error for x in said] == [
        "the text has more than 50 characters",
        "there are more than 2 pictures",
        "large.png has 900 pixels; at most 800",
        None,
    ]


def test_a_table_leaves_nothing_but_its_labels(tmp_path: Path) -> None:
    home, table, pictures = tmp_path / "home", tmp_path / "t.csv", tmp_path / "t.zip"
    home.mkdir()
    table.write_text("text,image\na post,in/a.jpg\nb post,\n", "utf-8")
    with zipfile.ZipFile(pictures, "w") as packed:
        packed.writestr("in/a.jpg", b"no picture")
        packed.writestr("t.csv", b"x")

    job = TableJob(table, pictures, home, ENGLISH, Abstention(), 1000)
    done = label_table(job)
    assert [x for x in home.rglob("*") if x.is_file()] == [done.file]
    assert [line[:7] for line in done.file.read_text("utf-8-sig").splitlines()[1:]] == [
        "a post,",
        "b post,",
    ]
    assert "2 of 2 posts have a label." in done.html

    done.file.unlink()
    with zipfile.ZipFile(pictures, "w") as packed:
        packed.writestr("../a.jpg", b"")
    with pytest.raises(Refusal, match=r"outside its folder: \.\./a\.jpg"):
        label_table(job)
    assert not [x for x in home.rglob("*") if x.is_file()]


def test_a_model_without_reasons_gives_its_prediction_alone() -> None:
    async def asked() -> list[str]:
        return [x async for x in answers(ToyEngine(), ENGLISH, "a post", [], OFF)]  # type: ignore[arg-type]

    pages = asyncio.run(asked())
    assert len(pages) == 1
    assert "75\u00a0%" in pages[0]
    assert ENGLISH.no_explanation in pages[0]
    assert "blockquote" not in pages[0]


def test_a_mistake_of_ours_is_told_without_what_the_post_says(
    caplog: pytest.LogCaptureFixture,
) -> None:
    def broken(posts: Sequence[Post]) -> None:
        raise ValueError(posts[0].text)

    async def asked() -> list[str]:
        engine: Any = ToyEngine(broken)
        return [x async for x in answers(engine, CHINESE, "a secret", [], OFF)]

    pages = asyncio.run(asked())
    assert CHINESE.problems["internal"] in pages[0]
    assert "secret" not in pages[0] + caplog.text
    assert "ValueError" in caplog.text


def test_both_languages_fill_in_the_same() -> None:
    def names(value: Any) -> Any:
        if isinstance(value, str):
            return {name for _, name, _, _ in Formatter().parse(value) if name}
        return None

    for each in fields(ENGLISH):
        english, chinese = getattr(ENGLISH, each.name), getattr(CHINESE, each.name)
        assert names(english) == names(chinese), each.name
        if each.name in ("zips", "reasons"):
            assert english.keys() == chinese.keys()
        if each.name == "zips":
            assert [*map(names, english.values())] == [*map(names, chinese.values())]


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
def test_the_language_that_is_wanted_more_is_chosen(header: str, language: str) -> None:
    assert _language(header) == language
