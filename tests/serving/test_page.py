"""The page in a browser, on a server that a user started."""

import csv
import json
import zipfile

import pytest

pytest.importorskip("playwright", reason="playwright drives the browser")

from browser import CHROMIUM, Visit, chromium
from loopback import until

from sgmft import SemanticLocator
from sgmft.data.source import Source
from sgmft.jobs.predict import predict_table
from video_files import coloured, video

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium: apt install it"),
]


@pytest.fixture(scope="module")  # its tools hold an event loop, so that others cannot run one
def browser():
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def fetched():
    """Every address that a page of these tests has fetched."""
    return []


@pytest.fixture(scope="module")
def context(browser, fetched):
    wide = {"width": 1280, "height": 900}
    made = browser.new_context(viewport=wide, locale="de-DE", accept_downloads=True)
    made.on("request", lambda request: fetched.append(request.url))
    yield made
    made.close()


@pytest.fixture
def visit(context, server, fetched):
    """Opens the page: `visit("zh")`; it fetches nothing from elsewhere, and has no mistake."""
    visits = []

    def start(language="en"):
        visits.append(Visit(context, server.address, language))
        return visits[-1]

    yield start
    for made in visits:
        made.page.close()
        assert made.mistakes == []
    own = (server.address, "data:", f"blob:{server.address}")
    assert len(fetched) > 4  # the page, its style, its script, its icon, an example
    assert [address for address in fetched if not address.startswith(own)] == []


@pytest.fixture(scope="module")
def pictures(sample):
    """Of the generated posts, in the order of the posts."""
    return sorted((sample.parent / "images").glob("*.jpg"))


def file(name, data, kind="image/jpeg"):
    return {"name": name, "mimeType": kind, "buffer": data}


def test_an_empty_page_becomes_an_explained_prediction(visit, server, pictures):
    text = "爆米花都吃完了，片子才刚刚开始"
    page = visit()
    result = page.explain(text, pictures[:1])

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


def test_several_pictures_and_the_frames_of_a_video_are_shown_one_by_one(visit, pictures):
    page = visit()
    page.give("", pictures[:1])
    result = page.explain("", pictures[1:2])  # beside the first
    captions = result.locator("figcaption").all_inner_texts()
    assert captions == [f"picture {i + 1} · {pictures[i].name}" for i in range(2)]
    assert result.locator(".pair").count() == 2

    result = visit().explain("", [file("film.mp4", video(coloured(6)), "video/mp4")])
    captions = result.locator("figcaption").all_inner_texts()
    assert len(captions) > 1
    assert captions[1] == "picture 2 · film.mp4 · frame 2"


def test_pictures_can_be_dropped_and_removed(visit):
    page = visit()
    dropped = page.page.evaluate_handle(
        """async (address) => {
            const data = new DataTransfer();
            const picture = await (await fetch(address)).blob();
            for (const name of ["a.jpg", "b.jpg"])
                data.items.add(new File([picture], name, {type: "image/jpeg"}));
            return data;
        }""",
        "../static/examples/travel-1.jpg",
    )
    for name in ("dragenter", "dragover", "drop"):
        page.page.dispatch_event(".drop[data-name=images]", name, {"dataTransfer": dropped})
    files = page.page.locator("#post-form .files li")
    assert files.locator(".name").all_inner_texts() == ["a.jpg", "b.jpg"]
    assert files.locator("img").count() == 2
    page.press("Remove a.jpg")
    page.ask()
    assert page.explained().locator("figcaption").all_inner_texts() == ["picture · b.jpg"]


def test_an_example_can_be_pressed(visit):
    page = visit()
    page.press("Text only")
    result = page.explained()
    assert result.locator("figure").count() == 0
    typed = page.page.get_by_label("Text of the post").input_value()
    assert result.locator("blockquote").inner_text() == typed


def test_a_prediction_set_can_be_chosen(visit, server):
    text = "今天又是普通的一天"
    answer = server.post("/v1/predict", json={"text": text, "coverage": 0.9}).json()
    members = answer["predictions"][0]["set"]
    page = visit()
    page.page.get_by_label("90\u00a0%").first.check()
    result = page.explain(text)
    shown = result.locator(".set").inner_text().partition(": ")[2]
    assert shown == (", ".join(members) or "no label")
    if len(members) != 1:
        assert result.locator(".verdict").inner_text() == "Cannot tell"
        assert "possible" in result.inner_text() or "enough" in result.inner_text()


def test_a_bad_picture_is_named_and_the_page_goes_on(visit, pictures):
    data = pictures[0].read_bytes()
    cut = file("cut.jpg", data[: len(data) // 2])
    page = visit()
    assert page.refused("", [cut]) == "cut.jpg is cut off or damaged."
    page.clear()
    assert page.explain("吃火锅去").locator(".verdict").inner_text()
    assert visit("zh").refused("", [cut]) == "这条帖子无法使用：cut.jpg 不完整或已损坏。"


def test_what_is_too_large_or_missing_is_explained_in_a_sentence(visit, pictures, tmp_path):
    page = visit()
    assert page.refused("") == "Write a text or add a picture first."
    large = tmp_path / "large.jpg"
    with large.open("wb") as hollow:
        hollow.truncate(34 * 2**20)
    for text, files, sentence in (
        ("", [large], "The files have 35.7 MB together"),
        ("", [pictures[0]] * 17, "There are 17 pictures; at most 16"),
        ("很" * 20_001, [], "The text has 20,001 characters"),
    ):
        page.give(text, files)
        page.ask()
        page.page.locator("#post-result").get_by_text(sentence).wait_for()
        page.clear()


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
    visit, status, body, sentence
):
    page = visit("zh")
    page.page.route(
        "**/post", lambda x: x.fulfill(status=status, body=body) if status else x.abort()
    )
    assert page.refused("在家").startswith(sentence)
    page.mistakes.clear()  # the browser's own word of a broken request


def test_the_page_has_two_languages(visit, server):
    """And a view of it one line in the log."""
    page = visit("zh")
    until(lambda: any("GET /zh/ 200" in line for line in server.log))
    assert not [line for line in server.log if "GET /static" in line or "GET / " in line]
    assert page.has("document.documentElement.lang") == "zh-CN"
    page.press("只有文字")
    shown = page.explained().inner_text()
    assert "各标签的概率" in shown
    assert "空白帖子" in shown
    page.page.get_by_role("link", name="English").click()
    page.page.get_by_role("button", name="Where was it?").wait_for()
    assert page.has("document.documentElement.lang") == "en"


def test_the_keyboard_is_enough(visit, pictures):
    page = visit().page
    page.on("filechooser", lambda chooser: None)  # from now on, not when it is waited for
    page.locator("body").click(position={"x": 2, "y": 2})

    def tab_to(wanted):
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


def test_a_phone_shows_all_without_scrolling_sideways(browser, server):
    phone = {"width": 390, "height": 844}
    context = browser.new_context(viewport=phone, is_mobile=True, has_touch=True)
    page = Visit(context, server.address, "zh")
    page.page.get_by_role("button", name="英文文字加两张图片").tap()
    page.page.locator("#post-result .verdict").wait_for()
    page.page.wait_for_function(
        "document.querySelector('#post-result .verdict').getBoundingClientRect().top < 60"
    )
    page.explained()
    assert page.has("document.documentElement.scrollWidth") == 390
    assert page.has(
        "[...document.querySelectorAll('#post-result *')].every("
        "(x) => x.getBoundingClientRect().right <= innerWidth)"
    )
    page.page.get_by_role("tab", name="整张表格").tap()
    assert page.has("document.documentElement.scrollWidth") == 390
    context.close()


def test_text_is_text(visit):
    page = visit()
    text = "<img src=x onerror=\"document.title='x'\"> ${7*7} {{7*7}} </section><script>1</script>"
    result = page.explain(text)
    assert result.locator("blockquote").inner_text() == text
    assert result.locator("blockquote img, blockquote script").count() == 0
    assert page.page.title() == "Where was this post written?"
    page.refused("", [file("<img src=x onerror=1>.jpg", b"no picture")])
    assert page.page.locator(".problem img").count() == 0


def test_no_script_but_the_pages_own_is_run(visit, server):
    policy = server.get("/en/").headers["content-security-policy"]
    assert "script-src 'self';" in policy
    assert "unsafe" not in policy
    page = visit()
    page.has("document.body.append(Object.assign(document.createElement('script'), {text: 'x=1'}))")
    assert page.has("typeof x") == "undefined"
    assert "Content Security Policy" in page.mistakes.pop()


def write_table(path, posts=()):
    with path.open("w", encoding="utf-8", newline="") as table:
        rows = csv.writer(table)
        rows.writerow(["id", "text", "images"])
        rows.writerows((post["id"], post["text"], "|".join(post["images"])) for post in posts)
        rows.writerows([("lost", "a text", "images/nowhere.jpg"), ("out", "", "../secret.jpg")])
    return path


def write_texts(path, count):
    path.write_text("text\n" + "".join(f"at home on day {i}\n" for i in range(count)))
    return path


def write_zip(path, files):
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files.items():
            packed.writestr(name, data)
    return path


def read(path):
    with path.open(encoding="utf-8-sig", newline="") as table:
        return list(csv.DictReader(table))


def test_a_table_with_a_zip_comes_back_labelled(visit, trained, sample, tmp_path):
    posts = [json.loads(line) for line in sample.read_text("utf-8").splitlines()][:12]
    table = write_table(sample.parent / "few.csv", posts)
    names = [name for post in posts for name in post["images"]]
    packed = write_zip(
        tmp_path / "few-pictures.zip", {n: (sample.parent / n).read_bytes() for n in names}
    )
    expected = tmp_path / "expected.csv"
    summary = predict_table(Source(str(table)), expected, SemanticLocator.from_pretrained(trained))

    page = visit()
    page.label(table, packed)
    found = page.download(tmp_path)
    assert found.name == "few-labelled.csv"
    rows, wanted = read(found), read(expected)
    assert len(rows) == summary.posts == 14
    for row, other in zip(rows, wanted, strict=True):
        assert list(row) == list(other)
        for name, value in other.items():
            if name.startswith("p") and row[name] != value:  # of batches that are cut otherwise
                assert float(row[name]) == pytest.approx(float(value), abs=1e-3)
            else:
                assert row[name] == value
    assert [row["id"] for row in rows if row["error"]] == ["out"]
    assert [row["id"] for row in rows if row["warning"]] == ["lost"]

    result = page.page.locator("#table-result")
    assert result.locator("h2").inner_text() == "13 of 14 posts have a label."
    assert "1 cannot be used" in result.inner_text()
    assert "Left out or doubtful" in result.inner_text()
    assert "1 × there is no file …" in result.locator("li").all_inner_texts()
    assert result.locator("tbody tr").count() == 8


@pytest.mark.parametrize("language", ["en", "zh"])
def test_columns_are_recognised_and_can_be_chosen(visit, sample, tmp_path, language):
    """Also that a picture is left out, and rows that repeat the header are told."""
    rows = [["编号", "words", "shots", "昵称"], ["1", "在家看书", "a.jpg|gone.jpg", "u"]]
    rows += [rows[0], ["1", "=在学校", "", "v"], ["3", "", "gone.jpg", "w"]]
    with (tmp_path / "posts.csv").open("w", encoding="utf-8", newline="") as table:
        csv.writer(table).writerows(rows + [["4", "加班", "", "x" * 2000]] * 200)
    photo = next((sample.parent / "images").glob("*.jpg")).read_bytes()
    packed = write_zip(tmp_path / "pictures.zip", {"a.jpg": photo})
    page = visit(language)
    page.page.get_by_role("tab", name=page.words["table"]).click()
    page.page.locator("#pictures").set_input_files(packed)
    page.page.locator("#table").set_input_files(tmp_path / "posts.csv")
    chosen = page.page.locator("#columns select")
    chosen.first.wait_for()
    shown = chosen.evaluate_all("all => all.map(x => [x.name, x.options[0].text])")
    nothing = {"en": "none", "zh": "无"}[language]
    assert dict(shown) == {
        "text": nothing,
        "image": nothing,
        "id": "编号",
        "user": "昵称",
        "label": nothing,
    }
    hint = page.page.locator("#columns .hint").inner_text()
    assert {"en": "No column of texts", "zh": "没有识别出"}[language] in hint
    page.press(page.words["label"])
    assert "posts.csv" in page.problem("#table-result")
    page.page.locator("#columns select[name=text]").select_option("words")
    page.page.locator("#columns select[name=image]").select_option("shots")
    page.press(page.words["label"])
    found = read(page.download(tmp_path))
    assert [bool(row["label"]) for row in found] == [True, True, False] + [True] * 200
    result = page.page.locator("#table-result").inner_text()
    said = {
        "en": (
            "1 × there is no file …",
            "repeat the header are left out: 1",
            "spreadsheet",
        ),
        "zh": ("1 × 找不到文件 …", "有 1 行重复了标题行", "用电子表格打开时"),
    }
    for sentence in said[language]:
        assert sentence in result
    (tmp_path / "named.csv").write_text("text,image\n在家看书,a.jpg\n加班,b.jpg\n", "utf-8")
    other = visit(language)
    other.label(tmp_path / "named.csv")
    without = {
        "en": "2 × pictures not found: add the zip",
        "zh": "2 × 找不到图片：请添加图片压缩包",
    }
    other.page.locator("#table-result").get_by_text(without[language]).wait_for()
    page.page.locator("#table-form .remove").first.click()
    assert not chosen.count(), "they are those of a table"
    assert not page.mistakes


def test_a_picture_that_is_left_out_is_named(visit, pictures, tmp_path):
    (tmp_path / "empty.jpg").touch()
    for language, sentence in (("en", "Left out: empty.jpg is empty"), ("zh", "未采用：empty.jpg")):
        result = visit(language).explain("在家看书", [pictures[0], tmp_path / "empty.jpg"])
        assert sentence in result.inner_text()


def test_a_tables_name_is_written_down_nowhere(visit, server, tmp_path):
    """Also where there is a warning of its encoding."""
    table = tmp_path / "confidential.csv"
    table.write_bytes("text\n在电影院看电影\n上课中\n".encode("gb18030"))
    page = visit()
    page.label(table)
    found = page.download(tmp_path)
    assert found.name == "confidential-labelled.csv"
    assert [row["text"] for row in read(found)] == ["在电影院看电影", "上课中"]
    assert "confidential" not in "".join(server.log)


def test_a_table_that_cannot_be_used_is_refused_and_the_page_goes_on(visit, tmp_path):
    page = visit()
    page.page.get_by_role("tab", name="A table").click()
    page.press("Label the table")
    assert page.problem("#table-result") == "Choose a table first."
    table = write_table(tmp_path / "posts.csv")
    for name, data, sentence in (
        ("../outside.jpg", b"x", "../outside.jpg"),
        ("huge.jpg", b"0" * (8 * 2**20), "too large unpacked"),
    ):
        page.label(table, write_zip(tmp_path / "pictures.zip", {name: data}))
        page.page.locator("#table-result").get_by_text(sentence).wait_for()
    for name, content in (("nothing.csv", ""), ("other.csv", "a,b\n1,2\n")):
        page = visit()
        (tmp_path / name).write_text(content)
        page.label(tmp_path / name)
        shown = page.problem("#table-result")
        assert name in shown
        assert "/tmp" not in shown


def test_a_table_can_be_stopped(visit, server, tmp_path):
    page = visit()
    stop = page.page.locator("#stop")
    assert stop.is_disabled()
    page.label(write_texts(tmp_path / "long.csv", 20_000))
    page.page.locator("#table-result progress[value]").wait_for()
    assert stop.is_enabled()
    page.press("Stop")
    assert page.problem("#table-result") == "Stopped. Nothing was kept." and stop.is_disabled()
    until(lambda: server.counted("sgmft_inside") == 0)
    page.label(write_texts(tmp_path / "long.csv", 1))
    assert len(read(page.download(tmp_path))) == 1


def test_a_table_that_the_servers_end_breaks_off_leaves_nothing(
    serving, trained, browser, tmp_path, monkeypatch
):
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    server = serving(trained)
    context = browser.new_context()
    page = Visit(context, server.address)
    page.label(write_texts(tmp_path / "long.csv", 50_000))
    until(lambda: server.counted("sgmft_batch_posts_count") > 3)
    assert [x for x in scratch.rglob("*") if x.is_file() and x.name.startswith("long")]
    server.process.terminate()
    assert server.process.wait(30) == 0
    assert list(scratch.glob("sgmft*")) == []
    assert server.complaints() == []
    context.close()
