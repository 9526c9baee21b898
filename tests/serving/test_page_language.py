"""The texts of the page, and the reasons of the library in them."""

import re
from string import Formatter

import pytest

from image_files import encoded, plain
from sgmft import Post, SemanticLocator, read_posts
from sgmft.errors import HEARD, Message, SgmftError, join_messages
from sgmft.features.encode import prepare_post
from sgmft.serving.page.tables import LANGUAGES
from sgmft.serving.problems import PROBLEMS, Problem
from tiny_encoder import TinyEncoder

ENGLISH, CHINESE = LANGUAGES.values()
KEPT = re.compile(
    r"\b(http://a\.jpg|a\.\w+|JPEG|PNG|GIF|WebP|BMP|TIFF|AVIF|HEIC|MP4|MOV|WebM|MiB|x"
    r"|UTF|GB18030|Big5|text|image)\b"
)
FILES = {
    "a.empty": b"",
    "a.damaged": encoded(plain(), "JPEG")[:200],
    "a.text": b"no picture",
    "a.large": encoded(plain(size=(1, 1))).replace(b"\0\0\0\1\0\0\0\1", b"\0\1\0\0\0\1\0\0"),
}


def names(value):
    """The names in braces of a text, or of all in a list or mapping."""
    if isinstance(value, str):
        return {name for _, name, _, _ in Formatter().parse(value) if name}
    if isinstance(value, dict):
        return {key: names(x) for key, x in value.items()}
    return [names(x) for x in value]


def test_both_languages_have_the_same_texts_to_fill_in():
    assert ENGLISH.texts.keys() == CHINESE.texts.keys()
    for code, text in ENGLISH.texts.items():
        if code in ("problems", "reasons"):
            assert text.keys() <= CHINESE.texts[code].keys()
            assert text.keys() - {""} <= PROBLEMS.keys() or code == "reasons"
        else:
            assert names(text) == names(CHINESE.texts[code]), code
    for english, chinese in CHINESE.texts["reasons"].items():
        assert names(chinese) <= names(english) | {"count", "more"}, english


def is_chinese(sentence):
    """Whether nothing but names is in another language."""
    left = KEPT.sub("", sentence)
    return not re.search("[A-Za-z]", left) and bool(re.search("[一-鿿]", left))


def test_the_librarys_errors_are_translated(tmp_path):
    posts = [Post("", tmp_path / "a.missing"), Post("http://x.y")]
    posts += [Post("家", [tmp_path / "a.text"] * 99), Post("", tmp_path / "a.bytes")]
    for name, data in FILES.items():
        (tmp_path / name).write_bytes(data)
        posts.append(Post("", tmp_path / name))
    with (tmp_path / "a.bytes").open("wb") as file:
        file.truncate(65 * 2**20)
    (tmp_path / "a.csv").write_text("id,text,image\n1,,\n1,again,\n2,,../a.jpg\n3,,http://a.jpg\n")
    prepared = [prepare_post(post, TinyEncoder().info) for post in posts]
    errors = [x for x in prepared if isinstance(x, str)]
    errors += [warning for x in prepared if not isinstance(x, str) for warning in x.warnings]
    for post in read_posts(tmp_path / "a.csv"):
        errors += [*post.warnings, *([post.error] if post.error else [])]
    lines = [
        '{"id": "501235000000000000", "text": ["a"], "label": ["家", "校"], "image": "a.jpg"}',
        '{"id": {"oid": 1}, "text": "家", "user": {"age": 7}}',
        '{"id": "1", "text": "家"}\n{"id": "1", "text": "家"}',
    ]
    (tmp_path / "b.jsonl").write_text("\n".join(lines), "utf-8")
    errors += [warning for post in read_posts(tmp_path / "b.jsonl") for warning in post.warnings]
    assert len(set(errors)) == 12 + 6
    assert [x for x in errors if not is_chinese(CHINESE.translate(x))] == []
    assert [x for x in errors if not is_chinese(CHINESE.translate(x, bare=True))] == []
    kinds = {ENGLISH.translate(x, bare=True) for x in errors}
    assert "there is no file …" in kinds
    assert not any("a." in x for x in kinds)


@pytest.mark.parametrize("table", [b"", b"a,b\n1,2\n", b"text\n\xff\xff\n"])
def test_so_are_those_of_a_table(tmp_path, table):
    (tmp_path / "a.csv").write_bytes(table)
    with pytest.raises(SgmftError) as caught:
        list(read_posts(tmp_path / "a.csv"))
    sentence = CHINESE.translate(str(caught.value), hidden=f"{tmp_path}/")
    assert is_chinese(sentence.replace("：a, b。", "："))
    assert sentence.endswith("。")


@pytest.mark.parametrize("reason", ["a reason nobody knows", "x" * 600, "is empty {x}", ""])
def test_an_unknown_reason_stays_as_it_is(reason):
    assert CHINESE.translate(reason) == CHINESE.translate(reason, bare=True) == reason


def test_which_columns_were_guessed_is_translated(tmp_path):
    (tmp_path / "a.csv").write_text("正文,图片\n在家,\n", "utf-8")
    heard = HEARD.set([])
    list(read_posts(tmp_path / "a.csv"))
    (said,) = HEARD.get()
    HEARD.reset(heard)
    assert CHINESE.translate(said) == "a.csv：'正文' 列按 text 读取；'图片' 列按 image 读取"


def test_of_several_reasons_each_is_translated():
    file = Message("there is no file {name}", name="a.jpg")
    most = Message("the text has more than {most:,} characters", most=5000)
    several = join_messages([file, "no such {thing}", most])
    assert several == f"{file}; no such {{thing}}; the text has more than 5,000 characters"
    assert CHINESE.translate(several) == "找不到文件 a.jpg；no such {thing}；文字超过 5,000 个字符"
    bare = CHINESE.translate(several, bare=True)
    assert bare == "找不到文件 …；no such {thing}；文字超过 … 个字符"


MANY_PIXELS = Message(
    "{post}: {name} has {count:,} pixels; at most {most:,}.",
    **{"post": "The post", "name": "a.png", "count": 1768, "most": 100},
)


@pytest.mark.parametrize(
    ("kind", "detail", "sentence"),
    [
        ("busy", "English.", "服务器正忙，请稍后再试。"),
        ("not-a-form", "English.", "无法处理：English."),
        (
            "too-many-pixels",
            MANY_PIXELS,
            "图片像素过多，请换一张小一些的：a.png 有 1,768 像素，最多 100。",
        ),
    ],
)
def test_a_problem_is_translated_by_its_kind(kind, detail, sentence):
    assert CHINESE.describe(Problem(kind, detail)) == sentence


def test_a_rule_is_shown_in_percent():
    reason = Message("no label has a probability of {least:g}", least=0.9)
    assert ENGLISH.translate(reason) == "No label has a probability of 90\u00a0%."
    assert CHINESE.translate(reason) == "没有标签的概率达到 90\u00a0%。"


@pytest.mark.parametrize(("share", "shown"), [(0, "0"), (0.001, "不到 1"), (0.87, "87")])
def test_shares_in_percent(share, shown):
    assert CHINESE.percent(share) == f"{shown}\u00a0%"
    assert CHINESE.percent(1 - share) in ("100\u00a0%", "超过 99\u00a0%", "13\u00a0%")


def test_an_explanation_is_summarized_with_the_same_names_and_numbers(trained, sample):
    locator = SemanticLocator.from_pretrained(trained)
    for post in list(read_posts(sample))[:2]:
        found = locator.explain(post)
        shown = CHINESE.summarize(found, None)
        assert shown.startswith(f"{found.label}，{CHINESE.percent(found.probability)}：")
        assert CHINESE.summarize(found, found.label) in shown
