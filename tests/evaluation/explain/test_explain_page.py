"""The page: self-contained, escaped, and readable without colour."""

import re
from dataclasses import replace

import pytest

from html_page import EVIL, Page
from sgmft import Post
from sgmft.errors import Message
from sgmft.evaluation.explain.explanation import (
    Explanation,
    ImageAttribution,
    PartAttribution,
    SimilarityMap,
    WordAttribution,
)
from sgmft.evaluation.explain.page import (
    ENGLISH,
    explanation_page,
    format_points,
)


@pytest.fixture
def found(small_posts):
    picture = small_posts[0].images[0]
    return Explanation(
        post=Post("火锅 is not a desk", [picture], id="p1", label="Restaurant"),
        label="Restaurant",
        predicted="Restaurant",
        probabilities={"Home": 0.1, "Restaurant": 0.87, "Work": 0.03},
        base=0.2,
        parts=(
            PartAttribution("text", 0.72, "Restaurant"),
            PartAttribution("picture", -0.05, "Home"),
        ),
        exact=True,
        words=(WordAttribution("火锅", 0, 2, 0.4), WordAttribution("desk", 12, 16, -0.1)),
        pictures=(ImageAttribution(str(picture), None, "", 2, (0.1, -0.05, 0.0, 0.02)),),
        similarity=None,
        gate=0.83,
        guidance=(0.65, float("nan")),
    )


def test_the_sentence(found):
    assert ENGLISH.summarize(found) == (
        "Restaurant, 87\u00a0%: mostly because of the word “火锅”; "
        "the picture alone would say Home."
    )
    other = replace(found, label="Work", parts=(PartAttribution("text", -0.1, "Home"),))
    assert ENGLISH.summarize(other) == (
        "Work, 3\u00a0%: nothing in the post speaks for it. "
        "The model's own answer is Restaurant, 87\u00a0%."
    )
    both = replace(
        found, parts=tuple(PartAttribution(f"picture {i}", 0.2, "Restaurant") for i in (1, 2))
    )
    assert "because of picture 1 and picture 2." in ENGLISH.summarize(both)


def test_numbers():
    shown = [ENGLISH.percent(x) for x in (0, 0.001, 0.5, 0.999, 1)]
    expected = ["0 %", "under 1 %", "50 %", "over 99 %", "100 %"]
    assert [x.replace("\u00a0", " ") for x in shown] == expected
    points = [format_points(x) for x in (0.1234, -0.02, -0.00001, 0.0)]
    assert points == ["+12.3", "−2.0", "+0.0", "+0.0"]


def test_the_page_says_it_all(found):
    page = explanation_page([found])
    assert ENGLISH.summarize(found) in page
    assert re.search(r'class="w for" style="--s: 1.0" title="\+40.0 points">火锅<', page)
    assert re.search(r'class="w against" style="--s: 0.25" title="−10.0 points">desk<', page)
    assert page.count('src="data:image/jpeg;base64,') == 2
    assert "the strongest word by 40.0 and the strongest region by 10.0 points" in page
    for text in ("+72.0", "−5.0", "20\u00a0%", "83\u00a0%", "0.650", "no similarity map", "p1"):
        assert text in page
    assert "nan" not in page.casefold()


def test_in_chinese_it_has_the_same_numbers_and_names(found):
    similar = SimilarityMap("P^e", ("火锅", "desk"), 2, ((0.1, 0.2, 0.3, 0.4),) * 2)
    warning = Message("there is no file {name}", name="b.png")
    post = replace(found.post, warnings=(warning,))
    other = replace(found, post=post, label="Work", similarity=similar, exact=False)
    bad = Post("", id="p2", error="nothing to go on: no text and no picture")
    english, chinese = (Page(explanation_page([found, other], [bad], x)) for x in ("en", "zh"))
    for words in (
        "为什么是这里？",
        "模型自己的答案是 Restaurant，87\u00a0%。",
        "找不到文件 b.png。",
    ):
        assert words in chinese.text
    assert english.numbers() == chinese.numbers()
    kept = "p1|p2|Home|Work|Restaurant|P|is not a desk|desk|b.png|m|e"
    assert re.findall("[A-Za-z]+", re.sub(kept, "", chinese.text)) == []


def test_effects_under_a_point_are_not_shown(found):
    words, picture = (WordAttribution("火锅", 0, 2, 0.009),), found.pictures[0]
    regions = (replace(picture, contributions=(0.004, -0.009, 0.0, 0.0)),)
    page = explanation_page([replace(found, words=words, pictures=regions)])
    assert "No single word or region moves the probability by one point." in page
    assert page.count('src="data:image/jpeg;base64,') == 1


def test_similarity_is_drawn(found):
    similar = SimilarityMap("P^e", ("火锅", "desk"), 2, ((0.1, 0.2, 0.3, 0.4),) * 2)
    page = explanation_page([replace(found, similarity=similar)])
    assert page.count('class="alike"') == 8 and "no similarity map" not in page
    assert 'style="--s: 1.0" title="0.400"' in page


def test_it_escapes_everything_and_fetches_nothing(found, tmp_path):
    post = Post(EVIL, [tmp_path / f"{EVIL}.png"], id=EVIL, label=EVIL)
    hostile = replace(
        found,
        post=post,
        label=EVIL,
        predicted=EVIL,
        probabilities={EVIL: 1.0},
        parts=(PartAttribution("text", 0.8, EVIL),),
        words=(WordAttribution(EVIL, 0, len(EVIL), 0.4),),
        pictures=(ImageAttribution(str(post.images[0]), None, "", 1, (0.1,)),),
        similarity=SimilarityMap("cosine", (EVIL,), 1, ((0.5,),)),
    )
    bad = Post(EVIL, id=EVIL, error=EVIL, place=EVIL)
    page = explanation_page([hostile], refused=[bad])
    assert page.count("&lt;script") >= 8 and "url(" not in page
    Page(page).check_harmless("data:")


def test_odd_spans_lose_no_text(found):
    words = tuple(WordAttribution("x", a, b, 0.1) for a, b in ((0, 2), (1, 3), (0, 0), (4, 6)))
    page = explanation_page([replace(found, words=words)])
    quote = re.search(r"<blockquote>(.*)</blockquote>", page, re.S).group(1)
    assert re.sub(r"<[^>]*>", "", quote) == found.post.text
