"""The texts of the page, and the reasons of the library in them."""

from __future__ import annotations

import re
from pathlib import Path
from string import Formatter
from typing import Any

import pytest
from stub_engine import label_table

from image_files import encoded, plain
from sgmft import Post, SemanticLocator, read_posts
from sgmft.errors import Message, SgmftError, join_messages
from sgmft.evaluation.explain.page import describe_strongest, summarize_explanation
from sgmft.features.encode import prepare_post
from sgmft.locator.abstention import Abstention
from sgmft.serving.page.language import get_language
from sgmft.serving.page.tables import TableJob
from sgmft.serving.problems import PROBLEMS, Problem
from tiny_encoder import TinyEncoder

ENGLISH, CHINESE = get_language("en"), get_language("zh")
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


def names(value: Any) -> Any:
    """The names in braces of a text, or of all in a list or mapping."""
    if isinstance(value, str):
        return {name for _, name, _, _ in Formatter().parse(value) if name}
    if isinstance(value, dict):
        return {key: names(x) for key, x in value.items()}
    return [names(x) for x in value]


def test_both_languages_have_the_same_texts_to_fill_in() -> None:
    assert ENGLISH.texts.keys() == CHINESE.texts.keys()
    for code, text in ENGLISH.texts.items():
        if code in ("problems", "reasons"):
            assert text.keys() <= CHINESE.texts[code].keys()
            assert text.keys() - {""} <= PROBLEMS.keys() or code == "reasons"
        else:
            assert names(text) == names(CHINESE.texts[code]), code
    for english, chinese in CHINESE.texts["reasons"].items():
        assert names(chinese) <= names(english), english


def is_chinese(sentence: str) -> bool:
    """Whether nothing but names is in another language."""
    left = KEPT.sub("", sentence)
    return not re.search("[A-Za-z]", left) and bool(re.search("[一-鿿]", left))


def refused(folder: Path) -> list[str]:
    """The library's errors of pictures, posts and rows."""
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
    errors = [prepare_post(post, info) for post in posts] + [post.error for post in rows]
    return [error for error in errors if isinstance(error, str)]


def test_the_librarys_errors_are_translated(tmp_path: Path) -> None:
    errors = refused(tmp_path)
    assert len(set(errors)) == 12
    assert [x for x in errors if not is_chinese(CHINESE.translate(x))] == []
    assert [x for x in errors if not is_chinese(CHINESE.translate_kind(x))] == []
    kinds = {ENGLISH.translate_kind(x) for x in errors}
    assert "there is no file …" in kinds
    assert not any("a." in x for x in kinds)


@pytest.mark.parametrize("table", [b"", b"a,b\n1,2\n", b"text\n\xff\xff\n"])
def test_so_are_those_of_a_table(tmp_path: Path, table: bytes) -> None:
    (tmp_path / "a.csv").write_bytes(table)
    with pytest.raises(SgmftError) as caught:
        list(read_posts(tmp_path / "a.csv"))
    sentence = CHINESE.translate(str(caught.value), hidden=f"{tmp_path}/")
    assert is_chinese(sentence.replace("：a, b。", "："))
    assert sentence.endswith("。")


@pytest.mark.parametrize("reason", ["a reason nobody knows", "x" * 600, "is empty {x}", ""])
def test_an_unknown_reason_stays_as_it_is(reason: str) -> None:
    assert CHINESE.translate(reason) == CHINESE.translate_kind(reason) == reason


def test_of_several_reasons_each_is_translated() -> None:
    file = Message("there is no file {name}", name="a.jpg")
    most = Message("the text has more than {most:,} characters", most=5000)
    several = join_messages([file, "no such {thing}", most])
    assert (
        several
        == "there is no file a.jpg; no such {thing}; the text has more than 5,000 characters"
    )
    assert CHINESE.translate(several) == "找不到文件 a.jpg；no such {thing}；文字超过 5,000 个字符"
    assert CHINESE.translate_kind(several) == "找不到文件 …；no such {thing}；文字超过 … 个字符"


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [
        (Problem("busy", "English."), "服务器正忙，请稍后再试。"),
        (Problem("not-a-form", "English."), "无法处理：English."),
        (
            Problem(
                "too-many-pixels",
                Message(
                    "{post}: {name} has {count:,} pixels; at most {most:,}.",
                    **{"post": "The post", "name": "a.png", "count": 1768, "most": 100},
                ),
            ),
            "图片像素过多，请换一张小一些的：a.png 有 1,768 像素，最多 100。",
        ),
    ],
)
def test_a_problem_is_translated_by_its_kind(problem: Problem, sentence: str) -> None:
    assert CHINESE.describe(problem) == sentence


def test_a_rule_is_shown_in_percent() -> None:
    reason = Message("no label has a probability of {least:g}", least=0.9)
    assert ENGLISH.translate(reason) == "No label has a probability of 90\u00a0%."
    assert CHINESE.translate(reason) == "没有标签的概率达到 90%。"


@pytest.mark.parametrize(("share", "shown"), [(0, "0%"), (0.001, "不到 1%"), (0.87, "87%")])
def test_shares_in_percent(share: float, shown: str) -> None:
    assert CHINESE.percent(share) == shown
    assert CHINESE.percent(1 - share) in ("100%", "超过 99%", "13%")


def test_a_table_has_its_reasons_in_chinese_and_its_file_in_english(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(ROWS.replace("again", "a" * 51))
    with (tmp_path / "a.csv").open("rb") as table:
        job = TableJob("a.csv", table, None, tmp_path, CHINESE, Abstention(), 1000)
        done = label_table(job)
    assert "<li>1 × 没有文字，也没有图片</li>" in done.html
    assert "<td><span>../a.jpg 不在表格所在的文件夹里</span></td>" in done.html
    assert "nothing to go on" not in done.html
    assert "nothing to go on" in done.file.read_text("utf-8-sig")


def test_an_explanation_is_summarized_as_by_the_command(trained: Path, sample: Path) -> None:
    """In English; the Chinese has the same names and numbers."""
    locator = SemanticLocator.from_pretrained(trained)
    for post in list(read_posts(sample))[:4]:
        found = locator.explain(post)
        assert ENGLISH.summarize(found, None) == summarize_explanation(found)
        assert ENGLISH.strongest(found) == describe_strongest(found)
        shown = CHINESE.summarize(found, None)
        assert shown.startswith(f"{found.label}，{CHINESE.percent(found.probability)}：")
        assert CHINESE.summarize(found, found.label) in shown
