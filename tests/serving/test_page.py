"""One post on the page, in a browser, on a server that a user started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gradio", reason="the page needs gradio: pip install 'sgmft[serve]'")
pytest.importorskip("playwright", reason="playwright drives the browser")

from browser import CHROMIUM, Visit

pytest_plugins = ["browser_fixtures"]
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt install it")
PHONE = {"width": 390, "height": 844}


def test_an_empty_page_becomes_an_explained_prediction(
    visit: Any, server: Any, pictures: list[Path]
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


def test_a_prediction_set_can_be_asked_for(visit: Any, server: Any) -> None:
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


def test_the_page_speaks_two_languages(visit: Any, server: Any) -> None:
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
    page.on("filechooser", lambda chooser: None)  # from now on, not when it is waited for
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


def test_a_phone_shows_all_without_scrolling_sideways(browser: Any, server: Any) -> None:
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
