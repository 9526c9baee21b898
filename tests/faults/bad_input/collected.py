"""Output of tools that collect posts: any bytes in one of its files are posts, or one sentence."""

import atexit
import json
import lzma
import shutil
import tempfile
import zlib
from collections import Counter
from functools import cache
from itertools import islice
from pathlib import Path

from bad_input.tables import MOST, WORDS, check_post
from bad_input.target import Outcome, Target, one_line, promise, watched

from sgmft.data.tables import iter_posts
from sgmft.errors import SgmftError

_NODE = {
    "shortcode": "A",
    "edge_media_to_caption": {"edges": [{"node": {"text": "在家"}}]},
    "edge_sidecar_to_children": {"edges": [{}, {}]},
    "taken_at_timestamp": 1756700000,
    "owner": {"id": "7", "username": "anna"},
}
_GALLERY = {
    "category": "twitter",
    "subcategory": "timeline",
    "tweet_id": 1,
    "content": "在家",
    "author": {"name": "anna"},
    "num": 1,
    "extension": "png",
    "filename": "a",
}
_VARIANTS = [{"bitrate": 1, "url": "https://v/a.mp4?x"}, {"bitrate": None, "url": "b"}]
_MESSAGE = {
    "id": 1,
    "type": "message",
    "date_unixtime": "1756700000",
    "from_id": "user1",
    "text": ["在家", {"type": "link", "text": "x"}],
    "photo": "a.png",
    "file": "a.mp4",
    "mime_type": "video/mp4",
}
_TWEET = {
    "id_str": "12",
    "full_text": "在家",
    "created_at": "Mon Sep 01 12:00:00 +0000 2025",
    "extended_entities": {"media": [{"video_info": {"variants": _VARIANTS}}]},
}
_MEDIUM = {"uri": "a.png", "creation_timestamp": 1756700000, "title": "\u00e5\u009c\u00a8"}
_SNSCRAPE = {
    "rawContent": "在家",
    "date": "2025",
    "user": {"username": "anna"},
    "media": {"photos": [{"url": "https://p/1.jpg"}], "videos": [{"variants": _VARIANTS}]},
}
_REDDIT = {
    "id": "a",
    "subreddit": "p",
    "title": "在家",
    "author": "[deleted]",
    "created_utc": 1756700000,
    "gallery_data": {"items": [{"media_id": "m"}]},
    "media_metadata": {"m": {"m": "image/png"}},
}
_XHS = {
    "作品ID": "6" * 24,
    "作品标题": "在家",
    "作品描述": "x",
    "发布时间": "2025-09-01_12:00:00",
    "下载地址": "https://p/1 https://p/2",
}
EXAMPLES = {
    "2025-09-01_12-00-00_UTC.json": {"node": _NODE, "instaloader": {"node_type": "Post"}},
    "2025-09-01_12-00-00_UTC.json.xz": {"node": _NODE, "instaloader": {"node_type": "Post"}},
    "a.png.json": _GALLERY,
    "dump.json": [[2, _GALLERY], [3, "https://p/1.png", _GALLERY]],
    "result.json": {"id": 1, "name": "g", "messages": [_MESSAGE, _MESSAGE | {"type": "service"}]},
    "chats.json": {
        "about": "Here is the data you requested",
        "chats": {"list": [{"id": 2, "messages": [_MESSAGE]}, {}]},
    },
    "posts_1.json": [{"media": [_MEDIUM, _MEDIUM], "title": "x"}],
    "tweets.js": [{"tweet": _TWEET}],
    "snscrape.jsonl": _SNSCRAPE,
    "reddit.jsonl": _REDDIT,
    "xhs.jsonl": _XHS,
}
_BEFORE = {"tweets.js": "window.YTD.tweets.part0 = "}


@cache
def _folder(name):
    """Return the folder of a file, which is removed at the end of this process."""
    folder = Path(tempfile.mkdtemp(prefix="sgmft-bad-input-")).resolve() / "posts"
    folder.mkdir()
    atexit.register(shutil.rmtree, folder.parent, ignore_errors=True)
    (folder.parent / "secret.png").write_bytes(b"secret")
    (folder / "a.png").write_bytes(b"a picture")
    (folder / "out").symlink_to(folder.parent)
    return folder


def check_collected(data):
    """Read a folder with one file: its name, a line break, and its bytes."""
    first, _, content = data.partition(b"\n")
    name = first.decode("latin-1")
    name = name if name in EXAMPLES else sorted(EXAMPLES)[zlib.crc32(data) % len(EXAMPLES)]
    folder = _folder(name)
    (folder / name).write_bytes(content)
    with watched(folder):
        try:
            posts = list(islice(iter_posts(folder), MOST))
        except SgmftError as error:
            message = str(error)
            promise(name in message or str(folder) in message, f"names no file: {message!r}")
            return Outcome(refused=Counter([one_line(message)]))
    for post in posts:
        check_post(post, folder)
    refused = Counter(one_line(post.error) for post in posts if post.error is not None)
    return Outcome(len(posts) - refused.total(), refused)


def seeds():
    """Return good files, and some that have values of other kinds."""
    files = []
    for name, example in EXAMPLES.items():
        good = json.dumps(example, ensure_ascii=False)
        odd = [good.replace(a, b) for a, b in (("在家", '", "x": "'), ('"anna"', "[1]"))]
        odd += [good.replace('"a.png"', x) for x in ('"../secret.png"', '"out/secret.png"', "7")]
        for text in dict.fromkeys((good, *odd)):
            content = (_BEFORE.get(name, "") + text).encode()
            content = lzma.compress(content) if name.endswith(".xz") else content
            files.append(name.encode() + b"\n" + content)
    return files


COLLECTED = [Target("collected", check_collected, seeds, WORDS)]
