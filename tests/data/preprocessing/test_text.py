import json
import random
import re
import subprocess
import sys
import unicodedata
from dataclasses import fields, replace

import jieba
import pytest
from hypothesis import given, strategies as st

from sgmft.data.preprocessing.text import (
    CLEANINGS,
    MAX_CHARACTERS,
    Cleaning,
    clean_text,
    describe_repair,
    get_cleaning,
    split_words,
)
from sgmft.errors import SgmftError

PAPER, LIGHT, NONE = CLEANINGS["paper"], CLEANINGS["light"], CLEANINGS["none"]
FAMILY = "\U0001f468\u200d\U0001f469\u200d\U0001f467"
ENGLAND = "\U0001f3f4\U000e0067\U000e0062\U000e0065\U000e006e\U000e0067\U000e007f"
SCRIPTS = "Привет café 한국어 ありがとう हिन्दी ไทย"  # which jieba would cut into letters
EMOJI = [FAMILY, ENGLAND, "👍🏽", "🇨🇳", "1️⃣", "#️⃣", "❤️", "🈚", "㊙️", "©", "😂", "🏳️‍🌈"]


def only(**steps: bool) -> Cleaning:
    """No step but these."""
    return replace(NONE, **steps)


# --- choosing --------------------------------------------------------------------------------


def test_get_cleaning():
    assert get_cleaning("paper") is PAPER
    assert get_cleaning(LIGHT) is LIGHT
    assert Cleaning() == PAPER
    with pytest.raises(SgmftError, match=r"no cleaning 'heavy'.*paper, light, none"):
        get_cleaning("heavy")


# --- what is always done ---------------------------------------------------------------------


@pytest.mark.parametrize("cleaning", [LIGHT, NONE])
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", ""),
        (" \t\r\n\u3000\u00a0 ", ""),
        ("ＡＢＣ１２３！？", "ABC123!?"),
        ("a\0b\u200bc\u200dd\ufeffe\ud800f\u202eg\x1bh", "abcdefgh"),
        ("好\u2028吃\n\n 的\t饭", "好 吃 的 饭"),
        ("e\u0301", "é"),
        ("中\ufe0f文", "中文"),
        ("不是[二哈]，是😂。", "不是[二哈],是😂。"),
    ],
)
def test_always(text, expected, cleaning):
    assert clean_text(text, cleaning) == expected


@pytest.mark.parametrize("emoji", [e for e in EMOJI if e not in ("🈚", "㊙️")])
def test_light_keeps_an_emoji_whole_and_as_one_word(emoji):
    assert clean_text(f"吃{emoji}饭", LIGHT) == f"吃{emoji}饭"
    assert split_words(f"吃{emoji}饭", LIGHT) == ["吃", emoji, "饭"]


# --- one step at a time ----------------------------------------------------------------------


STEPS = {
    "urls": [
        ("http://t.cn/A6abc回家", "回家"),
        ("看HTTPS://T.CN/A6abc，走", "看 ,走"),
        ("t.cn/A6xYz", ""),
        ("见www.weibo.com/x好", "见 好"),
        ("见b23.tv/abc好", "见 好"),
        ("http://t.cn/A6abc，abc", ",abc"),
        ("(http://a.com/b?c=d&e=%20#f)。", "( )。"),
        ("https://medium.com/@user/x 好", "好"),
        ("http://t.cn/A6#美食#", "#美食#"),
        ("ｈｔｔｐ：／／ｔ．ｃｎ／Ａ６ 好", "好"),
        ("我在 weibo.com 上班", "我在 weibo.com 上班"),
        ("24/7, 3.5/5, and/or, 1.2.3", "24/7, 3.5/5, and/or, 1.2.3"),
        ("a@b.com/x", "a@b.com/x"),
    ],
    "retweets": [
        ("转发微博", ""),
        ("转发微博//@小明:哈哈", "哈哈"),
        ("好//@小明：哈哈//@user_2: 走//@李-四 x", "好 哈哈 走 x"),
        ("转发微博抽奖", "转发微博抽奖"),
        ("请别转发微博//@小明:好", "请别转发微博 好"),
        ("吃饭//睡觉", "吃饭 睡觉"),
        ("哈哈：//@小明:好", "哈哈: 好"),
        ("RT @bob: hi", "hi"),
        ("START @bob", "START @bob"),
        ("http://t.cn/x", "http://t.cn/x"),
        ("1/2", "1/2"),
    ],
    "mentions": [
        ("@小明 走", "走"),
        ("＠小明，走", ",走"),
        ("和@user_2、@李-四去", "和 、"),
        ("回复@张三:谢谢", "谢谢"),
        ("回覆 @張三：謝謝", "謝謝"),
        ("@john.smith hi", "hi"),
        ("哈lol@小明 走", "哈lol 走"),
        ("mail a@b.com ok", "mail a@b.com ok"),
        ("x.y+z@mail.b-c.co.uk", "x.y+z@mail.b-c.co.uk"),
        ("价格 @ 5元", "价格 @ 5元"),
    ],
    "emoticons": [
        ("[二哈]好[doge][允悲]", "好"),
        ("［Meow］", ""),
        ("[抱抱_旧] [哆啦A梦吃惊]", ""),
        ("[2020] [3月5日] [] [a b]", "[2020] [3月5日] [] [a b]"),
        ("[今天我们一起去吃火锅]", "[今天我们一起去吃火锅]"),
        ("【北京】", "【北京】"),
    ],
}


@pytest.mark.parametrize(
    ("step", "text", "expected"), [(step, *case) for step in STEPS for case in STEPS[step]]
)
def test_a_step(step, text, expected):
    assert clean_text(text, only(**{step: True})) == expected


def test_hashtags_keep_their_words():
    assert clean_text("#北京美食#好吃 #旅行 ＃家＃", only(hashtags=True)) == "北京美食 好吃 旅行 家"
    assert clean_text("#️⃣", only(hashtags=True)) == "#️⃣"


@pytest.mark.parametrize("emoji", EMOJI)
def test_emoji(emoji):
    assert clean_text(f"吃{emoji}饭", only(emoji=True)) == "吃 饭"
    assert clean_text(emoji * 3, PAPER) == ""
    assert split_words(emoji, PAPER) == []


def test_punctuation():
    assert clean_text("好！？，。~$+《书》a_b-c'd", only(punctuation=True)) == "好 书 a b c d"
    assert clean_text("हिन्दी café 3½", only(punctuation=True)).split()[:2] == ["हिन्दी", "café"]


@pytest.mark.parametrize(
    ("text", "cleaning", "words"),
    [
        ("我在家和他们的the学校 And THE cinema", only(stop_words=True), "在家 学校 cinema"),
        ("I am working at home in the room", PAPER, "working home room"),  # places are kept
        ("去电影院 看 a movie", only(segment=False, stop_words=True), "去电影院 movie"),
        ("学校，家！", replace(PAPER, punctuation=False), "学校 , 家 !"),
        ("好吃, 走 吧!", LIGHT, "好吃 , 走 吧 !"),
        ("去星巴克喝coffee time写作业", PAPER, "星巴克 喝 coffee time 写 作业"),
        (
            "Привет café 한국어 ありがとう हिन्दी ไทย",
            LIGHT,
            "Привет café 한국어 ありがとう हिन्दी ไทย",
        ),
    ],
)
def test_words(text, cleaning, words):
    assert split_words(text, cleaning) == words.split()


@pytest.mark.parametrize("step", [field.name for field in fields(Cleaning)])
def test_every_step_can_be_switched_by_itself(step):
    text = "我們//去#话题# @王五<br> t.cn/x [doge] 😂 。"
    off = replace(NONE, segment=False)
    assert (
        split_words(text, replace(off, **{step: True})) != split_words(text, off)
        or step == "stop_words"
    )
    assert split_words("the cinema", replace(off, stop_words=True)) == ["cinema"]


# --- whole posts -----------------------------------------------------------------------------

CHAIN = "转发微博//@小明:电影院[二哈]//@user_2：学校 http://t.cn/A6abc回家"


def test_retweet_chain():
    assert split_words(CHAIN, PAPER) == ["电影院", "学校", "回家"]
    assert clean_text(CHAIN, PAPER) == "电影院学校回家"
    assert clean_text(CHAIN, LIGHT) == "电影院[二哈] 学校 回家"
    assert clean_text(CHAIN, NONE) == CHAIN.replace("：", ":")


def test_spaces_between_words():
    assert clean_text("去星巴克喝coffee time写作业", PAPER) == "星巴克喝 coffee time 写作业"
    assert clean_text("I am working at home in the room", PAPER) == "working home room"


def test_limit():
    text = "电影院 学校 餐厅 商场"
    assert split_words(text, PAPER, 2) == ["电影院", "学校"]
    assert split_words(text, PAPER, 0) == []
    assert len(split_words(text, PAPER, 99)) == 4
    with pytest.raises(SgmftError, match="limit of words is -1"):
        split_words(text, PAPER, -1)


HEAVY = "今天吃饭 a 龘 @ //转发微博 #a http:// a. [a / ﷺ aé :// www."


@pytest.mark.parametrize("unit", [*HEAVY.split(), "\0", " ", FAMILY])
@pytest.mark.parametrize("cleaning", [PAPER, LIGHT])
def test_a_million_characters(unit, cleaning):
    split_words("学校", PAPER)  # loads the dictionary
    text = unit * (1_000_000 // len(unit))
    assert len(clean_text(text, cleaning)) <= 2 * MAX_CHARACTERS
    split_words(text, cleaning)
    assert clean_text("好" * MAX_CHARACTERS + "吃", cleaning) == "好" * MAX_CHARACTERS


# --- loading ---------------------------------------------------------------------------------


def test_import_is_light_and_first_use_is_silent():
    code = (
        "import sys, sgmft.data.preprocessing.text as t\n"
        "assert not {'jieba', 'emoji', 'stopwordsiso'} & set(sys.modules), 'loaded too early'\n"
        "print(t.split_words('我们在电影院😂', t.CLEANINGS['paper']))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == "['电影院']"


def test_words_are_those_of_jieba_with_its_whole_dictionary() -> None:
    whole = jieba.Tokenizer()
    with whole.get_dict_file() as file:
        words = re.findall(r"(?m)^([\u4e00-\u9fff]+) ", file.read().decode())
    with whole.get_dict_file() as file:
        whole.FREQ, whole.total = whole.gen_pfdict(file)
    whole.initialized = True
    draw = random.Random(0)
    for _ in range(300):
        text = "".join(draw.choice(words)[: draw.randint(1, 9)] for _ in range(8))
        assert split_words(text, NONE) == list(whole.cut(text)), text


# --- pages, and wrong encodings --------------------------------------------------------------

POST = "今天电影散场了，爆米花真好吃，明天上班"
READ = "今天电影散场了,爆米花真好吃,明天上班"
CARD = (
    '<a  href="http://weibo.com/p/1001" data-hide=""><span class=\'url-icon\'>'
    "<img style='width:1rem' src='https://h5.sinaimg.cn/timeline_card_small_location_default.png'></span>"
    '<span class="surl-text">北京·万达影城</span></a>'
)
FACE = '<span class="url-icon"><img alt=[doge] src="https://h5.sinaimg.cn/d.png" /></span>'
MARKED = [
    (f"{POST}<br />", READ),
    (f"<p>{POST}</p><!-- x -->", READ),
    (f"{POST} {CARD}", READ),
    (f"{POST}{FACE}", f"{READ}[doge]"),
    (f"<style>a {{}}</style>{POST}<script>f('<b>x</b>');\n</script>", READ),
    (f'{POST}<a href="http://t.cn/x', READ),
    (f'<a href="http://t.cn/x>{POST}</a><img src="a.jp', READ),
    (f"{POST} #上班[话题]#", f"{READ} 上班"),
    (f'{POST}...<a href="/status/50">全文</a>', READ),
    (f"{POST}\u200b...全文", READ),
    (f"{POST}…展开c", READ),
    (f"{POST}收起全文d", READ),
    (f"{POST}O网页链接 L小王的微博视频 ", READ),
    (f"{POST} 网页链接", READ),
    (f"[组图共9张] 原图 {POST}", READ),
    (f"{POST} https://t.co/aB3dE5fG", READ),
    (f"{POST} https…", READ),
    ("今天电影散场了&#xff0c;爆米花&nbsp;&amp;amp;&lt;3&quot;", '今天电影散场了,爆米花 &<3"'),
    ("电影散场了，\\r\\n明天上班\\n", "电影散场了, 明天上班"),
    (POST.encode().decode("latin-1"), READ),
    (POST.encode().decode("windows-1252", "ignore"), None),
    (f"{POST[:8]}".encode().decode("gb18030", "ignore"), READ[:8]),
    (f"//@小李:分享图片//@小王:{POST}", READ),
    ("今天電影散場了，圖書館裡", "今天电影散场了,图书馆里"),
    ("分享图片", ""),
    ("快转了微博", ""),
    ("……！！！？？", ""),
    (".", ""),
    (f"{FAMILY}😋1️⃣", ""),
    ("[good night][喵~][doge]", ""),
    ("L小王的微博视频", ""),
]


@pytest.mark.parametrize(("text", "expected"), MARKED)
def test_what_pages_and_wrong_encodings_add_is_undone(text, expected):
    if expected is None:
        assert "电影" in clean_text(text, LIGHT)
    else:
        assert clean_text(text, LIGHT) == expected
    assert clean_text(text, PAPER) == clean_text(clean_text(text, LIGHT), PAPER)
    assert clean_text(text, NONE), "as it is"


@pytest.mark.parametrize(
    "text",
    [
        "请展开讨论这个问题",
        "今天上班,准备展开",
        "收起雨伞回家",
        "看了全文才懂",
        "点击网页链接查看",
        "分享图片给大家",
        "a<b and c>d,I <3 u",
        "R&D; AT&T",
        "C:\\new\\name",
        "我的微博视频教程很长",
        "été à Paris, naïve café",
        "茕茕孑立,洌洌清泉,淙淙流水",
        "2333333",
        "[2020] 年",
    ],
)
def test_ordinary_words_are_not_cut(text):
    assert clean_text(text, LIGHT) == text


def test_a_repaired_text_is_told():
    said = describe_repair(POST.encode().decode("latin-1"), LIGHT)
    assert said == "the text was UTF-8 read as Latin-1; repaired"
    assert "GB18030" in describe_repair(POST.encode().decode("gb18030", "replace"), LIGHT)
    for was in ("GB18030", "Big5"):
        wrong = "在電影院看電影，真好看".encode(was).decode("latin-1")
        assert describe_repair(wrong, LIGHT) == f"the text was {was} read as Latin-1; repaired"
        assert clean_text(wrong, LIGHT) == "在电影院看电影,真好看"
    assert describe_repair(POST, LIGHT) is None
    for wrong, what in ((json.dumps(POST)[1:-1], "JSON's escapes"), (repr(POST.encode()), "bytes")):
        assert clean_text(wrong, LIGHT) == clean_text(POST, LIGHT)
        assert what in describe_repair(wrong, LIGHT)
    lost = POST.encode("gb18030").decode("utf-8", "replace")
    for text in (lost, lost.encode().decode("gb18030", "replace")):  # 锟斤拷
        assert "much of the text was lost" in describe_repair(text, LIGHT)
    twice = POST.encode().decode("latin-1").encode().decode("latin-1")
    assert clean_text(twice, LIGHT) == clean_text(POST, LIGHT)
    assert describe_repair(POST.encode().decode("latin-1"), NONE) is None


@pytest.mark.parametrize(
    ("text", "cut"),
    [
        ('今晚在家...<a href="/status/1">全文</a>', True),
        ("今晚在家 ...展开c", True),
        ("今晚在家… 全文 ", True),
        (f"{'a movie night ' * 5}… https://t.co/a", True),
        ("Movie… https://t.co/a", False),
        ("请看全文", False),
        ("好想展开…", False),
    ],
)
def test_a_text_that_is_cut_off_is_told(text, cut):
    said = describe_repair(text, LIGHT)
    assert (said is not None and "cut off" in said) == cut


def test_long_markup_leaves_room_for_the_text():
    text = f"{CARD * 30}{POST * 200}"
    assert len(text) > MAX_CHARACTERS and clean_text(text, LIGHT).count("电影散场") == 200


MANGLED = (POST.encode().decode("latin-1"), POST.encode().decode("gb18030", "replace"))
FURNITURE = """看书 <br> &amp; &lt; b> < > ... … 全文 展开 收起d O 网页链接 分享图片 [doge] https…
#话题# 😂 1️⃣ \\n 電影 薴 Ã © ： ＜br＞ //@小王: 转发微博 [喵~] http://t.cn/A6 \u200b Café"""
PIECES = st.sampled_from([POST, CARD, FACE, FAMILY, " ", *MANGLED, *FURNITURE.split()])


@given(
    pieces=st.lists(PIECES, max_size=8), steps=st.sampled_from([LIGHT, replace(LIGHT, emoji=True)])
)
def test_cleaning_twice_is_cleaning_once(pieces, steps):
    once = clean_text("".join(pieces), steps)
    assert clean_text(once, steps) == once


@given(
    text=st.text(
        st.sampled_from("今天在家看书吃饭上学电影院的了个全展开微博abc，。！ 12"), max_size=40
    )
)
def test_plain_text_loses_nothing(text):
    text = re.sub("全文|展开|收起|微博", "", text)
    kept = unicodedata.normalize("NFKC", " ".join(text.split()))
    assert clean_text(text, LIGHT) == (kept if any(map(str.isalnum, text)) else "")


@given(
    pieces=st.lists(st.sampled_from(["看书", "回家 ", "，吃饭", "cafe "]), min_size=1, max_size=5)
)
def test_what_is_added_does_not_depend_on_the_text(pieces):
    text = "".join(pieces)
    for added in ("<br/>", f" {CARD}", "\u200b...全文", "…展开c", " 网页链接", "O网页链接"):
        assert clean_text(text + added, LIGHT) == clean_text(text, LIGHT)
        assert clean_text(f"{text}//@小王:好{added}", LIGHT) == clean_text(f"{text} 好", LIGHT)
