import io
import sys
import time
from contextlib import ExitStack

import pytest

from sgmft.utils.runtime import progress_bar


class Terminal(io.StringIO):
    def isatty(self):
        return True


STREAMS = {  # of each bar, whether it is hidden, and whether it is drawn where work is long
    "terminal": (Terminal(), False, True),
    "hidden": (Terminal(), True, False),
    "file": (io.StringIO(), False, False),  # or a pipe
}


@pytest.fixture(scope="module")
def waited():
    """What the bars of work of 1.1 seconds have left on their streams."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        bars = []
        for stream, hidden, _ in STREAMS.values():
            patch.setattr(sys, "stderr", stream)
            bars.append(stack.enter_context(progress_bar("Encoding", 20, hidden)))
        time.sleep(1.1)
        for bar in bars:
            bar.update(10)
    return {name: stream.getvalue() for name, (stream, *_) in STREAMS.items()}


@pytest.mark.parametrize("name", STREAMS)
def test_a_bar_is_for_long_work_in_a_terminal(waited, name):
    assert ("10/20" in waited[name]) == STREAMS[name][-1]


def test_a_bar_is_not_for_short_work(monkeypatch):
    stream = Terminal()
    monkeypatch.setattr(sys, "stderr", stream)
    with progress_bar("Encoding", 20, False) as bar:
        bar.update(10)
    assert "10/20" not in stream.getvalue()


def test_it_is_filled_by_posts(small_model, small_posts, monkeypatch):
    shown = []
    monkeypatch.setattr("tqdm.auto.tqdm.update", lambda self, n=1: shown.append((self.total, n)))
    frame = small_model.predict_frame([{"text": post.text} for post in small_posts])
    assert len(frame["label"]) == len(small_posts)
    assert shown == [(len(small_posts), 1)] * len(small_posts)
    shown.clear()
    small_model.predict("one text"), small_model.encode(small_posts, on_encoded=print)
    assert {total for total, _ in shown} == {None, len(small_posts)}  # the second is hidden
