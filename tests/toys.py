"""The toy posts' labels, posts of which nothing can be said, and the config of a saved model."""

from __future__ import annotations

import json

from sgmft import Post

PLACES = ["Home", "School", "Work"]
BAD = [
    Post("kitchen", error="already broken", place="row 2"),
    Post("kitchen", images="nowhere.jpg"),
    Post("@bob http://t.cn/x"),
    Post(),
]


def without_nan(text):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads(text, parse_constant=refuse)


def config_of(folder):
    return without_nan((folder / "config.json").read_text("utf-8"))["sgmft"]
