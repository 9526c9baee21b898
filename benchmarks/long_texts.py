"""Accuracy when what decides stands in a long text, which is read in windows or as one.

    python benchmarks/long_texts.py runs/ masked=place/index_masked.jsonl ... --features features/ \
        [--posts 150]

The default learns the rows with split=train and is judged on those with split=test as they are, and
on some of them with 100, 500 and 1,500 characters of everyday sentences around their texts: before,
after, or half and half, in turns. Prints accuracy in percent with the text encoded as one and in
windows, the difference with its 95 % interval (paired bootstrap), and how many posts have more than
one window. Models are kept in runs/.
"""

from __future__ import annotations

import argparse
import random
import sys
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np
from trained import halves, trained

from sgmft import Post, SemanticLocator
from sgmft.data.preprocessing.text import get_cleaning, split_windows
from sgmft.evaluation.compare.statistics import difference

SIZES = (0, 100, 500, 1500)
CHINESE = """昨天晚上没睡好，今天一整天都有点没精神。
和老朋友聊了很多以前的事情，说着说着就笑了。
时间过得真快，一转眼又是一年。
天气忽冷忽热，大家记得多穿一件衣服。
有些话说出口容易，真正做到却很难。
最近总是想起小时候的夏天，蝉声很长，日子很慢。
我妈打电话来问我最近怎么样，我说一切都好。
人生大概就是不断地告别，又不断地相遇。
想了很久，还是决定把那件事放下。
朋友说我太容易心软，我觉得也没什么不好。
下了一整天的雨，伞都没怎么干过。
今年的计划又只完成了一半，明年继续努力吧。
听了一首很老的歌，忽然有点难过。
手机电量总是不够用，充电器都快成随身物品了。
早上被闹钟叫醒的那一刻，真的很想再睡十分钟。
他说话总是慢慢的，但每一句都很有道理。
头发又长了，一直拖着没去剪。
生活不会一直顺利，但也不会一直糟糕。
表妹问我借了两本小说，到现在也没有还。
终于把拖了很久的事情做完了，心里轻松了不少。
月亮很圆，我拍了几张照片，可惜不太清楚。
爷爷以前常说，做人要踏实，不要着急。
刚刚和弟弟吵了一架，过一会儿又和好了。
其实我也不知道该怎么回答这个问题。
偶尔也要对自己好一点，不要总是那么严格。
算了，不想了，明天又是新的一天。
我一直相信，善良的人运气不会太差。
闲下来的时候，我喜欢写几句日记。
关于选择，关于远方，关于我们各自的生活，说也说不完。
不知道大家有没有同样的感觉。""".splitlines()
ENGLISH = """I did not sleep very well and felt a bit slow for the whole day.
An old friend called me and we talked about the years gone by.
Time goes so fast, it is almost the end of the year again.
The weather keeps changing, so take a jacket with you.
Some things are easy to say and hard to do.
Lately I keep thinking of the long summers when we were kids.
My mother asked how I was and I told her that all is fine.
After thinking about it for a long time I decided to let it go.
My sister says that I worry too much, and she may be right.
It rained from the morning until late in the evening.
Half of my plans for this year are done, the rest will have to wait.
The battery of my phone never lasts until the evening.
When the alarm rang I really wanted ten more minutes.
He always speaks slowly, but every word makes sense.
My hair is getting too long, I should have it cut.
Things are not always easy, but they are not always hard either.
My cousin borrowed two novels from me and never gave them back.
At last I finished what I had put off for weeks.
Some people like company and others like to be alone.
The moon was very bright and I tried to take a picture of it.
My grandfather used to say that there is no need to hurry.
I had an argument with my brother, and an hour later all was well.
To be honest I do not know how to answer that question.
Be kind to yourself once in a while.
Never mind, tomorrow is another day.
I still have a cold and my voice sounds strange.
When I have a quiet hour I like to write a few lines.
After all this time I still remember what she said.
I wonder whether anybody else feels the same.""".splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path)
    parser.add_argument("tables", nargs="+", metavar="NAME=TABLE")
    parser.add_argument("--features", type=Path, required=True)
    parser.add_argument("--posts", type=int, default=150, help="of each set, that are lengthened")
    options = parser.parse_args()
    head = "set|characters added|words of a window|posts|in several windows|as one|in windows|gain"
    print(f"| {head.replace('|', ' | ')} |\n|{8 * '---|'}", flush=True)
    for item in options.tables:
        name, table = item.split("=", 1)
        train, test = halves(table)
        model = trained("gated-experts", train, options.runs / name, options.features)
        some = random.Random(0).sample(test, min(options.posts, len(test)))
        for size in SIZES:
            posts = [lengthen(post, size, i) for i, post in enumerate(some)] if size else test
            print(f"| {name} | {size} | {compared(model, posts)} |", flush=True)


def compared(model: SemanticLocator, posts: list[Post]) -> str:
    """The cells of one row."""
    truth = np.array([model.labels.index(str(post.label)) for post in posts])
    windows = model.predict_proba(posts)
    with patch.object(model.training.data, "window", sys.maxsize):
        one = model.predict_proba(posts)
    rules = get_cleaning(model.encoder.info.cleaning)
    window = model.training.data.window
    several = sum(len(split_windows(post.text, rules, window)) > 1 for post in posts)
    found = difference(windows[None], one[None], truth)
    a, b = (f"{100 * (x.argmax(1) == truth).mean():.1f}" for x in (one, windows))
    gain = f"{100 * found.value:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    return f"{window} | {len(posts)} | {several} | {a} | {b} | {gain}"


def lengthen(post: Post, size: int, number: int) -> Post:
    """A post with so many characters of other sentences before its text, after it, or both."""
    chinese = any("\u4e00" <= character <= "\u9fff" for character in post.text)
    space, end = ("", "。") if chinese else (" ", ".")
    draw = random.Random(f"{size} {number}")

    def others(most: int) -> str:
        found = ""
        while len(found) < most:
            found += draw.choice(CHINESE if chinese else ENGLISH) + space
        return found

    place = number % 3
    before = "" if place == 1 else others(size // (1 + place // 2))
    after = "" if place == 0 else others(size // (1 + place // 2))
    own = post.text if not post.text[-1:].isalnum() else post.text + end
    return replace(post, text=f"{before}{own}{space}{after}".strip())


if __name__ == "__main__":
    main()
