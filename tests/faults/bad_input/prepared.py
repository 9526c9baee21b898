"""Whole posts: a text and up to three files, to what an encoder is given, and encoded."""

from collections import Counter
from functools import cache

import numpy as np
from bad_input.pictures import moving_seeds, still_seeds
from bad_input.target import Outcome, Target, one_line, promise
from bad_input.texts import text_of
from bad_input.watch import watched

from sgmft.data.posts import Attachment, Post
from sgmft.data.preprocessing.videos import MAX_SECONDS
from sgmft.features.encode import MAX_IMAGES, encode_prepared, prepare_post
from tiny_encoder import TinyEncoder

BETWEEN = b"\n--next--\n"


def check_post(data: bytes) -> Outcome:
    """Prepare and encode the post whose text and files stand `BETWEEN` each other in `data`."""
    written, *files = data.split(BETWEEN)[:4]
    post = Post(text_of(written), [Attachment(file, "a.jpg") for file in files])
    encoder = _encoder()
    with watched(None):
        content = prepare_post(post, encoder.info)
        if isinstance(content, str):
            return Outcome(refused=Counter([one_line(content)]))
        again = prepare_post(post, encoder.info)
        rows = encode_prepared([content], encoder, True, {})
    promise(not isinstance(again, str) and again.key == content.key, "another key, the second time")
    promise(len(content.images) == len(content.files) <= MAX_IMAGES, "pictures without a file")
    promise(bool(content.text or content.images), "nothing to encode")
    row = rows[content.key]
    for values in (row.text, row.images):
        promise(values is None or bool(np.isfinite(values).all()), "features that are no numbers")
    return Outcome(1)


@cache
def _encoder() -> TinyEncoder:
    return TinyEncoder()


def _seeds() -> list[bytes]:
    stills, moving = still_seeds(), moving_seeds()
    texts = ["在电影院看电影 [二哈] http://t.cn/a", "Good food 😂", ""]
    posts = [[text.encode()] for text in texts[:2]]
    posts += [[texts[i % 3].encode(), still] for i, still in enumerate(stills[:8])]
    posts += [[texts[0].encode(), stills[0], stills[1], moving[0]], [b"", moving[-1]]]
    return [BETWEEN.join(post) for post in posts]


PREPARED = [
    Target(
        "whole posts",
        check_post,
        _seeds,
        [BETWEEN, b"\xff\xd8\xff\xe0", b"[doge]", b"//@a:", b"\xed\xa0\x80", b"ftypisom", b"\0"],
        4 * MAX_SECONDS,
    )
]
