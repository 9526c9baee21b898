import io
import sys
import time

import pytest

from sgmft.utils.runtime import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.mark.parametrize(
    ("stream", "hidden", "seconds", "drawn"),
    [
        (Terminal(), False, 1.1, True),
        (Terminal(), False, 0, False),  # short work
        (Terminal(), True, 1.1, False),
        (io.StringIO(), False, 1.1, False),  # a file or a pipe
    ],
)
def test_a_bar_is_for_long_work_in_a_terminal(monkeypatch, stream, hidden, seconds, drawn):
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("Encoding", 20, hidden) as bar:
        time.sleep(seconds)
        bar.update(10)
    assert ("10/20" in stream.getvalue()) == drawn


def test_it_is_filled_by_posts(small_model, small_posts, monkeypatch):
    shown = []
    monkeypatch.setattr("tqdm.auto.tqdm.update", lambda self, n=1: shown.append((self.total, n)))
    frame = small_model.predict_frame([{"text": post.text} for post in small_posts])
    assert len(frame["label"]) == len(small_posts)
    assert shown == [(len(small_posts), 1)] * len(small_posts)
    shown.clear()
    small_model.predict("one text"), small_model.encode(small_posts, on_encoded=print)
    assert {total for total, _ in shown} == {None, len(small_posts)}  # the second is hidden
