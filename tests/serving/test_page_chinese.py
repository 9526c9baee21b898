"""The page's reasons in Chinese, made of what the library really says."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from string import Formatter
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs gradio: pip install 'sgmft[serve]'")

from toy_engine import ToyEngine, label_table

from image_files import encoded, plain
from sgmft import Post, read_posts
from sgmft.data.summary import count_errors
from sgmft.errors import SgmftError
from sgmft.features.encode import prepare_post
from sgmft.locator.abstention import Abstention
from sgmft.serving.limits import Limits
from sgmft.serving.page.asking import OFF, answers
from sgmft.serving.page.chinese import CHINESE
from sgmft.serving.page.chinese_reasons import REASONS, reason
from sgmft.serving.page.tables import TableJob
from tiny_encoder import TinyEncoder

KEPT = re.compile(
    r"\b(http://a\.jpg|a\.\w+|JPEG|PNG|GIF|WebP|BMP|TIFF|AVIF|MP4|MOV|WebM|MiB|x"
    r"|UTF|GB18030|text|image)\b"
)
FILES = {
    "a.empty": b"",
    "a.damaged": encoded(plain(), "JPEG")[:200],
    "a.text": b"no picture",
    "a.large": encoded(plain(size=(1, 1))).replace(b"\0\0\0\1\0\0\0\1", b"\0\1\0\0\0\1\0\0"),
}
ROWS = """id,text,image
1,,
1,again,
2,,../a.jpg
3,,http://a.jpg
"""


def is_chinese(told: str) -> bool:
    """Whether nothing but names is in another language."""
    return not re.search("[A-Za-z]", KEPT.sub("", told)) and bool(re.search("[一-鿿]", told))


def refused(folder: Path) -> list[str]:
    """What the library says of pictures, posts and rows that it cannot use."""
    info = TinyEncoder().info
    posts = [Post("", folder / "a.missing"), Post("http://x.y"), Post("", [folder / "a.text"] * 99)]
    for name, data in FILES.items():
        (folder / name).write_bytes(data)
        posts.append(Post("", folder / name))
    with (folder / "a.bytes").open("wb") as file:
        file.truncate(65 * 2**20)
    posts.append(Post("", folder / "a.bytes"))
    (folder / "a.csv").write_text(ROWS)
    rows = list(read_posts(folder / "a.csv"))
    return [str(prepare_post(post, info)) for post in posts] + [str(post.error) for post in rows]


def test_what_the_library_says_is_told_in_chinese(tmp_path: Path) -> None:
    said = refused(tmp_path)
    assert len(set(said)) == 12
    assert [told for told in said if not is_chinese(reason(told))] == []
    kinds = count_errors(Post(error=told) for told in said)
    assert [told for told in kinds if not is_chinese(reason(told))] == []


@pytest.mark.parametrize("table", [b"", b"a,b\n1,2\n", b"text\n\xff\xff\n"])
def test_so_is_what_it_says_of_a_table(tmp_path: Path, table: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(table)
    with pytest.raises(SgmftError) as caught:
        list(read_posts(tmp_path / "a.csv"))
    told = reason(str(caught.value).replace(f"{tmp_path}/", "").replace(": a, b.", ": a.b."))
    assert is_chinese(told)
    assert told.endswith("。")


@pytest.mark.parametrize("told", ["a reason nobody knows", "x" * 600, "is empty", ""])
def test_an_unknown_reason_is_told_as_it_is(told: str) -> None:
    assert reason(told) == told


def test_of_several_reasons_each_is_told() -> None:
    told = reason("there is no file a.jpg; no such thing; the text has more than 5 characters")
    assert told == "找不到文件 a.jpg；no such thing；文字超过 5 个字符"


def test_a_reason_in_chinese_names_what_the_other_names() -> None:
    for english, chinese in REASONS.items():
        found, there = (
            {name for _, name, _, _ in Formatter().parse(x) if name} for x in (chinese, english)
        )
        assert found <= there, english


def test_a_picture_beyond_the_limit_is_refused_in_chinese(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encoded(plain()))

    async def asked() -> list[str]:
        engine: Any = ToyEngine(limits=Limits(pixels=100))
        return [x async for x in answers(engine, CHINESE, "", [str(file)], OFF)]

    (page,) = asyncio.run(asked())
    assert "图片像素过多，请换一张小一些的：a.png 有 768 像素，最多 100。" in page


def test_a_table_tells_its_reasons_in_chinese_and_keeps_them_as_they_are(tmp_path: Path) -> None:
    table = tmp_path / "a.csv"
    table.write_text(ROWS.replace("again", "a" * 51))

    done = label_table(TableJob(table, None, tmp_path, CHINESE, Abstention(), 1000))
    assert "<li>1 × 没有文字，也没有图片</li>" in done.html
    assert "<td><span>../a.jpg 不在表格所在的文件夹里</span></td>" in done.html
    assert "nothing to go on" not in done.html
    assert "nothing to go on" in done.file.read_text("utf-8-sig")
