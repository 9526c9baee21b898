import random
import re
import subprocess
import sys
from dataclasses import fields, replace

import jieba
import pytest

from sgmft.data.preprocessing.text import (
    CLEANINGS,
    MAX_CHARACTERS,
    Cleaning,
    clean_text,
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
    with pytest.raises(SgmftError, match=r"no cleaning 'heavy'.*'paper', 'light', 'none'"):
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
        ("在電影院看電影", "在電影院看電影"),
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
    text = "我们//去#话题# @王五 t.cn/x [doge] 😂 。"
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
