"""What the page is made of, without a browser."""

from __future__ import annotations

import asyncio
import io
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from string import Formatter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("gradio", reason="the page needs gradio: pip install 'sgmft[serve]'")

from sgmft.abstention import Abstention
from sgmft.posts import Post
from sgmft.prediction import Prediction
from sgmft.serving.limits import Limits
from sgmft.serving.page import _language
from sgmft.serving.page.asking import OFF, answers
from sgmft.serving.page.chinese import CHINESE
from sgmft.serving.page.english import ENGLISH
from sgmft.serving.page.remote import RemotePredictor, Stopped
from sgmft.serving.page.unpack import UnsafeZipError, unpack
from sgmft.serving.problems import Problem


@dataclass
class ToyEngine:
    """Answers at once: the label is the text's first letter, "a" or "b".

    Attributes:
        trouble: called with the posts of each request, before they are answered.
        requests: the posts of each.
    """

    trouble: Callable[[Sequence[Post]], None] = lambda posts: None
    limits: Limits = field(default_factory=lambda: Limits(batch=3, text=50))
    rules: Abstention = field(default_factory=Abstention)
    about: Any = field(
        default_factory=lambda: SimpleNamespace(labels=("a", "b"), explains=False, held_out=0)
    )
    requests: list[list[Post]] = field(default_factory=list)

    @contextmanager
    def place(self) -> Iterator[None]:
        yield

    async def predict(
        self, posts: Sequence[Post], rules: Abstention | None = None
    ) -> list[Prediction]:
        self.trouble(posts)
        self.requests.append(list(posts))
        return [self._said(post) for post in posts]

    def _said(self, post: Post) -> Prediction:
        if post.error is not None:
            return Prediction(post, None, None, None)
        chances = np.array([0.75, 0.25] if post.text[0] == "a" else [0.25, 0.75], np.float32)
        return Prediction(post, post.text[0], chances, None)


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


def packed(path: Path, files: dict[str | zipfile.ZipInfo, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as into:
        for name, data in files.items():
            into.writestr(name, data)
    return path


def test_a_zip_is_unpacked_with_its_folders(tmp_path: Path) -> None:
    source = packed(tmp_path / "a.zip", {"a/b.jpg": b"1", "c.jpg": b"22", "__MACOSX/c.jpg": b"3"})
    assert unpack(source, tmp_path / "to", 100) == 2
    found = {str(x.relative_to(tmp_path / "to")) for x in (tmp_path / "to").rglob("*.*")}
    assert found == {"a/b.jpg", "c.jpg"}
    assert (tmp_path / "to" / "c.jpg").read_bytes() == b"22"


@pytest.mark.parametrize("encoding", ["gb18030", "utf-8"])
def test_names_that_do_not_say_how_they_are_written_are_read(tmp_path: Path, encoding: str) -> None:
    name = "图片/火锅.jpg".encode(encoding)
    placeholder = "x" * len(name)
    data = packed(tmp_path / "a.zip", {placeholder: b"1"}).read_bytes()
    (tmp_path / "a.zip").write_bytes(data.replace(placeholder.encode(), name))
    unpack(tmp_path / "a.zip", tmp_path / "to", 100)
    assert (tmp_path / "to" / "图片" / "火锅.jpg").is_file()


def link() -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo("link.jpg")
    entry.external_attr = 0o120777 << 16
    return entry


@pytest.mark.parametrize(
    ("files", "kind"),
    [
        ({"../a.jpg": b""}, "outside"),
        ({"a/../../b.jpg": b""}, "outside"),
        ({"/etc/a.jpg": b""}, "outside"),
        ({"..\\a.jpg": b""}, "outside"),
        ({"C:\\a.jpg": b""}, "outside"),
        ({link(): b"/etc/passwd"}, "link"),
        ({"a.jpg": b"0" * 2**21}, "too-large"),
        ({f"{i}.bin": bytes(range(256)) * 200 for i in range(3)}, "too-large"),
        ({f"{i}": b"" for i in range(20_001)}, "too-many"),
    ],
)
def test_a_dangerous_zip_leaves_nothing(tmp_path: Path, files: Any, kind: str) -> None:
    (tmp_path / "to").mkdir()
    with pytest.raises(UnsafeZipError) as told:
        unpack(packed(tmp_path / "a.zip", files), tmp_path / "to", 100_000)
    assert told.value.kind == kind
    assert sorted(x.name for x in tmp_path.rglob("*")) == ["a.zip", "to"]


def test_a_zip_that_lies_about_its_sizes_is_no_way_around_the_limit(tmp_path: Path) -> None:
    source = packed(tmp_path / "a.zip", {"a.bin": bytes(range(256)) * 4000})
    size = (256 * 4000).to_bytes(4, "little")
    source.write_bytes(source.read_bytes().replace(size, (500).to_bytes(4, "little")))
    with pytest.raises(UnsafeZipError):
        unpack(source, tmp_path / "to", 10_000)
    assert sum(x.stat().st_size for x in (tmp_path / "to").rglob("*.*")) <= 10_000


@pytest.mark.parametrize("how", ["cut", "flipped", "text", "encrypted"])
def test_a_zip_that_cannot_be_read_is_told(tmp_path: Path, how: str) -> None:
    data = bytearray(packed(tmp_path / "a.zip", {"a.bin": bytes(range(256)) * 40}).read_bytes())
    if how == "cut":
        data = data[: len(data) // 2]
    if how == "flipped":
        data[60] ^= 0xFF
    if how == "text":
        data = bytearray(b"no zip")
    if how == "encrypted":
        with zipfile.ZipFile(io.BytesIO(bytes(data))) as found:
            start = found.start_dir
        data[start + 8] |= 1  # the flag in the directory
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(UnsafeZipError) as told:
        unpack(tmp_path / "a.zip", tmp_path / "to", 100_000)
    assert told.value.kind == ("encrypted" if how == "encrypted" else "damaged")
