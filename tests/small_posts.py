"""The toy posts' labels, posts of which nothing can be said, and the config of a saved model."""

from __future__ import annotations

import json

from sgmft import Post

LABELS = ["Home", "School", "Work"]
UNUSABLE = [
    Post("kitchen", error="already broken", place="row 2"),
    Post("@bob", images="nowhere.jpg"),
    Post("@bob http://t.cn/x"),
    Post(),
]


def saved_config(folder):
    def refuse(word):
        raise AssertionError(f"{word} is no JSON")

    return json.loads((folder / "config.json").read_text("utf-8"), parse_constant=refuse)["sgmft"]
