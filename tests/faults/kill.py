"""Commands killed with SIGKILL at random moments, run again, and compared with a calm run.

    python tests/faults/kill.py [--kills 50] [--seed 0] [--posts 300] [--forked] [COMMAND ...]

Each command is started as a user starts it, on generated posts with the real compact encoder. Its
process group is killed at a moment drawn evenly from the time that the calm run took; the same
command then runs to its end in the same folder. Prints a line for each command, and each kill on
standard error. With --forked, commands are forks of a process that has imported everything, so that
the moments fall into the work and none into the start of Python and torch.
"""

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from faults import COMPARE, comparison_of, model_of, shards_of
from sgmft.cli.main import main

SGMFT = str(Path(sys.executable).with_name("sgmft"))
SAMPLE = Path(__file__).parents[2] / "examples" / "sample.py"
PICTURED = 30  # one post in so many keeps its picture, for speed
EPOCHS = ("--preset", "tokens", "--set", "epochs=8", "--set", "width=32", "--set", "patience=0")
WORDS = {  # of the commands; FEW and MANY are tables, OUT is what each of them writes
    "encode": ("encode", "MANY", "-o", "FEATURES"),
    "train": ("train", "FEW", "-o", "OUT", "--features", "FEATURES", *EPOCHS),
    "train-default": ("train", "FEW", "-o", "OUT", "--features", "FEATURES"),
    "predict": ("predict", "MODEL", "MANY", "-o", "OUT.csv", "--features", "FEATURES"),
    "compare": (
        *("compare", "FEW", "-o", "OUT", "--features", "FEATURES", *COMPARE),
        *("--workers", "2"),
    ),
}


def result_of(name, own):
    """What a command has left in its folder."""
    out = own / "out"
    if name == "encode":
        return shards_of(own / "features")
    if name == "predict":
        return out.with_suffix(".csv").read_bytes(), shards_of(own / "features")
    return (comparison_of if name == "compare" else model_of)(out), shards_of(own / "features")


class Ended(NamedTuple):
    """One kill, and the run after it."""

    begun: bool  # something was written by then
    exit_code: int  # of the run after it
    equal: bool  # its result and the calm run's
    left: int  # temporary files that are there in the end


class Trial:
    """One command in a folder: a calm run, then as many killed ones as asked for."""

    def __init__(self, name, given, folder, start):
        self.name, self.folder, self._begin = name, folder, start
        self._places = {
            "FEW": given / "few.jsonl",
            "MANY": given / "many.jsonl",
            "MODEL": given / "model",
        }
        calm = folder / "calm"
        begun = time.monotonic()
        ended = wait(self._start(calm))
        self.seconds = time.monotonic() - begun
        assert ended == 0, (calm / "log").read_text()
        self.wanted = result_of(name, calm)

    def kill(self, number, share):
        """Kill at this share of the calm run's time; None where it had ended by then."""
        own = self.folder / str(number)
        process = self._start(own)
        if wait(process, share * self.seconds) is not None:
            shutil.rmtree(own)
            return None
        os.killpg(process, signal.SIGKILL)
        wait(process)
        begun = len(list(own.rglob("*"))) > 1  # the log
        code = wait(self._start(own))
        equal = code == 0 and result_of(self.name, own) == self.wanted
        left = sum(1 for x in own.rglob(".*") if x.suffix in (".tmp", ".part"))
        if equal:
            shutil.rmtree(own)
        return Ended(begun, code, equal, left)

    def _start(self, own):
        own.mkdir(parents=True, exist_ok=True)
        places = self._places | {"FEATURES": own / "features", "OUT": own / "out"}
        places["OUT.csv"] = own / "out.csv"
        words = [str(places.get(word, word)) for word in WORDS[self.name]]
        return self._begin(words, own / "log")


def spawn(words, log):
    """Start a command as a user does; the number of its process and group."""
    with log.open("ab") as file:
        process = subprocess.Popen([SGMFT, *words], stdout=file, stderr=file, process_group=0)
    process.returncode = 0  # it is waited for here, by its number
    return process.pid


def fork(words, log):
    """Start a command in a copy of this process; the number of its process and group."""
    number = os.fork()
    if number:
        with suppress(OSError):  # whichever of the two comes first
            os.setpgid(number, number)
        return number
    os.setpgid(0, 0)
    with log.open("ab") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = ["sgmft", *words]
    code = 1
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def load_all():
    """Import and warm up what takes long, before there are forks; no threads may be left."""
    import accelerate
    import torch

    import sgmft.jobs.compare
    import sgmft.jobs.predict
    import sgmft.locator.locator
    from sgmft.features.encoders.registry import load_encoder

    torch.set_num_threads(1)
    assert accelerate and sgmft.jobs.compare and sgmft.jobs.predict and sgmft.locator.locator
    load_encoder().encode_texts(["家"], True)


def wait(number, seconds=None):
    """The exit code of a process; None where it goes on after these seconds."""
    end = None if seconds is None else time.monotonic() + seconds
    while end is None or time.monotonic() < end:
        done, status = os.waitpid(number, 0 if end is None else os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def make_inputs(folder, posts, model):
    """Generated posts, many and few, and a model trained on the few."""

    def run(*words):
        subprocess.run([*map(str, words)], check=True, capture_output=True)

    run(sys.executable, SAMPLE, folder, "--posts", posts, "--seed", 1)
    rows = [json.loads(x) for x in (folder / "posts.jsonl").read_text("utf-8").splitlines()]
    for i, row in enumerate(rows):
        if i % PICTURED and row["text"]:
            row["images"] = []
    for name, some in (("many.jsonl", rows), ("few.jsonl", rows[:50])):
        lines = (json.dumps(row, ensure_ascii=False) for row in some)
        (folder / name).write_text("\n".join(lines) + "\n", "utf-8")
    if model:
        run(SGMFT, "train", folder / "few.jsonl", "-o", folder / "model", "--features", "none")


HEADER = ("command", "kills", "had begun to write", "ended well after", "results equal")
HEADER += ("temporary files left", "seconds of a calm run")


def kill_often(name, given, folder, kills, seed, start):
    """The line of a command: see `HEADER`."""
    rng = random.Random(f"{seed} {name}")
    trial, found, number = Trial(name, given, folder, start), [], 0
    while len(found) < kills:
        number += 1
        if (ended := trial.kill(number, rng.random())) is not None:
            found.append(ended)
            print(f"{name} {len(found)}/{kills}: {ended}", file=sys.stderr, flush=True)
    begun, codes, equal, left = zip(*found, strict=True)
    counts = sum(begun), codes.count(0), sum(equal), sum(left)
    return [name, kills, *counts, f"{trial.seconds:.1f}"]


def kill_all():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", default=list(WORDS), metavar="COMMAND")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--posts", type=int, default=300, help="256 are a shard of features")
    parser.add_argument("--forked", action="store_true", help="without the start of Python")
    parser.add_argument("--folder", help="keep runs that differ there; default a temporary one")
    options = parser.parse_args()
    if options.forked:
        load_all()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        make_inputs(folder / "given", options.posts, "predict" in options.commands)
        print("|", " | ".join(HEADER), "|")
        print("|", " | ".join("---" for _ in HEADER), "|", flush=True)
        for name in options.commands:
            start = fork if options.forked else spawn
            places = folder / "given", folder / name
            line = kill_often(name, *places, options.kills, options.seed, start)
            print("|", " | ".join(map(str, line)), "|", flush=True)


if __name__ == "__main__":
    kill_all()
