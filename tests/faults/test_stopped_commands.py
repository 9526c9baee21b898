"""SIGINT and SIGTERM: a clean stop with the command that continues, and nothing left behind."""

import shlex
import signal
import time

import psutil
import pytest

from faults import COMPARE
from sgmft.utils.runtime import Stopped, stoppable
from small_tables import file_names
from tiny_encoder import TinyEncoder

CODES = {signal.SIGINT: 130, signal.SIGTERM: 143}


@pytest.mark.parametrize("number", CODES)
@pytest.mark.parametrize("job", ["encode", "train", "predict"])
@pytest.mark.usefixtures("tiny")
def test_a_signal_within_the_work(job, number, run, table, small_model, tmp_path, monkeypatch):
    small_model.save_pretrained(tmp_path / "given")
    out, none = tmp_path / "out put", ("--features", "none")
    words = {
        "encode": ("encode", table, "-o", out / "f", "--encoder", "tiny"),
        "train": ("train", table, "-o", out / "m", "--encoder", "tiny", *none),
        "predict": ("predict", tmp_path / "given", table, "-o", out / "p.csv", *none),
    }[job]
    encode = TinyEncoder.encode_images

    def stop(*given):
        signal.raise_signal(number)
        return encode(*given)

    handlers = [signal.getsignal(x) for x in CODES]
    with monkeypatch.context() as patch:
        patch.setattr(TinyEncoder, "encode_images", stop)
        stopped = run(*words)
    assert stopped.returncode == CODES[number]
    assert [signal.getsignal(x) for x in CODES] == handlers
    *_, last = stopped.stderr.splitlines()
    again = shlex.join(["sgmft", *map(str, words)])
    assert last.startswith("sgmft: stopped") and last.endswith(again)
    assert not [x for x in out.rglob("*") if x.suffix in (".tmp", ".part")]
    assert not (out / "p.csv").exists() and not (out / "m" / "config.json").exists()
    assert run(*words).returncode == 0


def test_a_second_signal_ends_at_once_and_an_ignored_one_stays_ignored():
    with pytest.raises(Stopped) as stopped, stoppable():
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    assert stopped.value.code == 143
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with stoppable():
            signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
@pytest.mark.usefixtures("trained")  # whose features are in the store
def test_compare_ends_with_its_processes(start, sample, store, tmp_path):
    words = ["compare", str(sample), "-o", str(tmp_path / "c"), "--features", str(store)]
    words += [*COMPARE[:-1], "100000", "--workers", "2"]
    process = start(*words)
    children = wait_for_workers(process, tmp_path / "c")
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=600)
    assert process.returncode == 143, errors
    assert errors.splitlines()[-1].endswith(shlex.join(["sgmft", *words]))
    assert "Traceback" not in errors
    psutil.wait_procs(children, 30)
    assert not [child for child in children if child.is_running()]
    assert not [name for name in file_names(tmp_path / "c") if name.startswith(".")]


def wait_for_workers(process, folder):
    """Until both have begun to work: each has loaded what it needs."""
    while process.poll() is None:
        found = psutil.Process(process.pid).children(recursive=True)
        at_work = [x for x in found if x.is_running() and x.memory_info().rss > 200 << 20]
        if len(at_work) >= 2:
            return found
        time.sleep(0.05)
    raise AssertionError(process.communicate()[1])
