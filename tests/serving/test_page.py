"""One post on the page, in a browser, on a server that a user started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

pytest.importorskip("playwright", reason="playwright drives the browser")

from browser import CHROMIUM, Visit

pytest_plugins = ["browser_fixtures"]
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt install it"),
]
PHONE = {"width": 390, "height": 844}


def test_an_empty_page_becomes_an_explained_prediction(
    visit: Any, server: Any, pictures: list[Path]
) -> None:
    page, text = visit(), "爆米花都吃完了，片子才刚刚开始"
    page.give(text, pictures[:1])
    page.ask()
    result = page.explained()

    files = {"images": (pictures[0].name, pictures[0].read_bytes())}
    answer = server.post("/v1/predict", data={"text": text}, files=files).json()["predictions"][0]
    assert result.locator(".verdict strong").inner_text() == answer["label"]
    shown = result.locator(".top dt").all_inner_texts()
    assert shown == sorted(answer["probabilities"], key=lambda x: -answer["probabilities"][x])
    numbers = result.locator(".top dd:not(.bar)").all_inner_texts()
    assert numbers[0] == f"{100 * answer['probability']:.0f}\u00a0%"
    bar = page.has("document.querySelector('.bar i').style.width")
    assert float(bar.rstrip("%")) == pytest.approx(100 * answer["probability"], abs=0.1)
    assert result.locator("blockquote").inner_text() == text
    assert result.locator("blockquote .w").count() > 3
    assert result.locator("figure .heat .cells i").count() == 16
    steps = ["with nothing", "text", "picture", "this post"]
    assert result.locator(".steps dt").all_inner_texts() == steps
    assert answer["label"] in page.page.locator("#announcer").inner_text()  # for screen readers


def test_several_pictures_and_the_frames_of_a_video_are_shown_one_by_one(
    visit: Any, pictures: list[Path]
) -> None:
    from video_files import coloured, video

    page = visit()
    page.give("", pictures[:1])
    page.give("", pictures[1:2])  # beside the first
    page.ask()
    result = page.explained()
    captions = result.locator("figcaption").all_inner_texts()
    assert captions == [f"picture {i + 1} · {pictures[i].name}" for i in range(2)]
    assert result.locator(".pair").count() == 2

    page = visit()
    page.give("", [{"name": "film.mp4", "mimeType": "video/mp4", "buffer": video(coloured(6))}])
    page.ask()
    captions = page.explained().locator("figcaption").all_inner_texts()
    assert len(captions) > 1
    assert captions[1] == "picture 2 · film.mp4 · frame 2"


def test_pictures_can_be_dropped_and_removed(visit: Any, pictures: list[Path]) -> None:
    page = visit()
    dropped = page.page.evaluate_handle(
        """async (address) => {
            const data = new DataTransfer();
            const picture = await (await fetch(address)).blob();
            for (const name of ["a.jpg", "b.jpg"])
                data.items.add(new File([picture], name, {type: "image/jpeg"}));
            return data;
        }""",
        "../examples/travel-1.jpg",
    )
    for name in ("dragenter", "dragover", "drop"):
        page.page.dispatch_event(".drop[data-name=images]", name, {"dataTransfer": dropped})
    files = page.page.locator("#post-form .files li")
    assert files.locator(".name").all_inner_texts() == ["a.jpg", "b.jpg"]
    assert files.locator("img").count() == 2
    page.page.get_by_role("button", name="Remove a.jpg").click()
    page.ask()
    assert page.explained().locator("figcaption").all_inner_texts() == ["picture · b.jpg"]


def test_an_example_can_be_pressed(visit: Any) -> None:
    page = visit()
    page.page.get_by_role("button", name="Text only").click()
    result = page.explained()
    assert result.locator("figure").count() == 0
    typed = page.page.get_by_label("Text of the post").input_value()
    assert result.locator("blockquote").inner_text() == typed


def test_a_prediction_set_can_be_chosen(visit: Any, server: Any) -> None:
    text = "今天又是普通的一天"
    answer = server.post("/v1/predict", json={"text": text, "coverage": 0.9}).json()
    members = answer["predictions"][0]["set"]
    page = visit()
    page.give(text)
    page.page.get_by_label("90\u00a0%").first.check()
    page.ask()
    result = page.explained()
    shown = result.locator(".set").inner_text().partition(": ")[2]
    assert shown == (", ".join(members) or "no label")
    if len(members) != 1:
        assert result.locator(".verdict").inner_text() == "Cannot tell"
        assert "possible" in result.inner_text() or "enough" in result.inner_text()


def test_a_bad_picture_is_named_and_the_page_goes_on(visit: Any, pictures: list[Path]) -> None:
    data = pictures[0].read_bytes()
    cut = {"name": "cut.jpg", "mimeType": "image/jpeg", "buffer": data[: len(data) // 2]}
    page = visit()
    page.give("", [cut])
    page.ask()
    assert page.problem() == "cut.jpg is cut off or damaged."
    page.clear()
    page.give("吃火锅去")
    page.ask()
    assert page.explained().locator(".verdict").inner_text()

    page = visit("zh")
    page.give("", [cut])
    page.ask()
    assert page.problem() == "这条帖子无法使用：cut.jpg 不完整或已损坏。"


def test_what_is_too_large_or_missing_is_explained_in_a_sentence(
    visit: Any, pictures: list[Path], tmp_path: Path
) -> None:
    page = visit()
    page.ask()
    assert page.problem() == "Write a text or add a picture first."
    large = tmp_path / "large.jpg"
    with large.open("wb") as file:
        file.truncate(34 * 2**20)
    page.give("", [large])
    page.ask()
    page.page.locator("#post-result").get_by_text("The files have 35.7 MB together").wait_for()
    page.clear()
    page.give("", [pictures[0]] * 17)
    page.ask()
    page.page.locator("#post-result").get_by_text("There are 17 pictures; at most 16").wait_for()
    page.clear()
    page.give("很" * 20_001)
    page.ask()
    page.page.locator("#post-result").get_by_text("The text has 20,001 characters").wait_for()


@pytest.mark.parametrize(
    ("status", "body", "sentence"),
    [
        (413, '{"type": "/problems/body-too-large"}', "文件合计过大"),
        (503, '{"type": "/problems/busy"}', "服务器正忙"),
        (400, '{"type": "/problems/not-a-form", "detail": "why"}', "无法处理：why"),
        (502, "<html>a proxy's</html>", "无法连接服务器"),
        (200, '{"progress": "x"}\n', "无法连接服务器"),
        (0, "", "无法连接服务器"),
    ],
)
def test_a_request_that_fails_is_explained_in_the_language_of_the_page(
    visit: Any, status: int, body: str, sentence: str
) -> None:
    page = visit("zh")
    page.page.route(
        "**/post", lambda x: x.fulfill(status=status, body=body) if status else x.abort()
    )
    page.give("在家")
    page.ask()
    assert page.problem().startswith(sentence)
    page.mistakes.clear()  # the browser's own word of a broken request


def test_the_page_has_two_languages(visit: Any, server: Any) -> None:
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
    shown = page.explained().inner_text()
    assert "各标签的概率" in shown
    assert "空白帖子" in shown
    page.page.get_by_role("link", name="English").click()
    page.page.get_by_role("button", name="Where was it?").wait_for()
    assert page.has("document.documentElement.lang") == "en"


def test_the_keyboard_is_enough(visit: Any, pictures: list[Path]) -> None:
    page = visit().page
    page.on("filechooser", lambda chooser: None)  # from now on, not when it is waited for
    page.locator("body").click(position={"x": 2, "y": 2})

    def tab_to(wanted: str) -> None:
        for _ in range(12):
            page.keyboard.press("Tab")
            here = page.evaluate(
                "[document.activeElement.labels?.[0]?.innerText || document.activeElement.innerText"
                " || document.activeElement.tagName,"
                " [document.activeElement, ...document.activeElement.labels ?? []].some((x) =>"
                " getComputedStyle(x).outlineStyle == 'solid'"
                " && getComputedStyle(x).outlineWidth == '3px')]"
            )
            assert here[1], f"{here[0]} is not seen to have the focus"
            if wanted in here[0]:
                return
        raise AssertionError(f"{wanted} is not reached")

    tab_to("One post")
    page.keyboard.press("ArrowRight")
    assert page.get_by_label("Table of posts").count() == 1
    page.keyboard.press("ArrowLeft")
    tab_to("Text of the post")
    page.keyboard.type("和朋友看电影")
    tab_to("Pictures or a short video")
    with page.expect_file_chooser() as chooser:
        page.keyboard.press("Enter")
    chooser.value.set_files(pictures[0])
    page.locator(".files li").wait_for()
    tab_to("off")
    page.keyboard.press("ArrowRight")
    assert page.get_by_label("80\u00a0%").first.is_checked()
    tab_to("Where was it?")
    page.keyboard.press("Enter")
    page.locator("#post-result .steps").wait_for()
    assert page.locator("#post-result .set").count() == 1


def test_a_phone_shows_all_without_scrolling_sideways(browser: Any, server: Any) -> None:
    context = browser.new_context(viewport=PHONE, is_mobile=True, has_touch=True)
    page = Visit(context, server.address, "zh")
    page.page.get_by_role("button", name="英文文字加两张图片").tap()
    page.explained()
    assert page.has("document.documentElement.scrollWidth") == 390
    assert page.has(
        "[...document.querySelectorAll('#post-result *')].every("
        "(x) => x.getBoundingClientRect().right <= innerWidth)"
    )
    page.page.get_by_role("tab", name="整张表格").tap()
    assert page.has("document.documentElement.scrollWidth") == 390
    context.close()


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


def test_no_request_leaves_the_server(visit: Any, fetched: list[str]) -> None:
    page = visit()
    page.page.get_by_role("tab", name="A table").click()
    page.page.get_by_role("tab", name="One post").click()
    page.page.get_by_role("button", name="A picture only").click()
    page.explained()
    assert len(fetched) > 5
    assert {httpx.URL(x).host for x in fetched if x.startswith("http")} == {"127.0.0.1"}
    assert {x.partition(":")[0] for x in fetched} <= {"http", "data", "blob"}


def test_no_script_but_the_pages_own_is_run(visit: Any, server: Any) -> None:
    policy = server.get("/en/").headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    page = visit()
    page.has("document.body.append(Object.assign(document.createElement('script'), {text: 'x=1'}))")
    assert page.has("typeof x") == "undefined"
    assert "Content Security Policy" in page.mistakes.pop()
