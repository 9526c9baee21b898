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
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NamedTuple

from faults import COMPARE, comparison_of, model_of, shards_of
from sgmft.cli.main import main

SGMFT = str(Path(sys.executable).with_name("sgmft"))
PICTURED = 30  # one post in so many keeps its picture, for speed
EPOCHS = ("--preset", "tokens", "--set", "epochs=8", "--set", "width=32", "--set", "patience=0")


class Job(NamedTuple):
    """A command, and what it leaves in its folder."""

    words: Callable[[Path, Path], Sequence[Any]]  # of the inputs' folder and its own
    result: Callable[[Path], Any]


JOBS = {
    "encode": Job(
        lambda given, own: ("encode", given / "many.jsonl", "-o", own / "f"),
        lambda own: shards_of(own / "f"),
    ),
    "train": Job(
        lambda given, own: ("train", given / "few.jsonl", "-o", own / "m", *at(own), *EPOCHS),
        lambda own: (model_of(own / "m"), shards_of(own / "f")),
    ),
    "train-default": Job(
        lambda given, own: ("train", given / "few.jsonl", "-o", own / "m", *at(own)),
        lambda own: (model_of(own / "m"), shards_of(own / "f")),
    ),
    "predict": Job(
        lambda given, own: (
            *("predict", given / "model", given / "many.jsonl"),
            *("-o", own / "p.csv", *at(own)),
        ),
        lambda own: ((own / "p.csv").read_bytes(), shards_of(own / "f")),
    ),
    "compare": Job(
        lambda given, own: (
            *("compare", given / "few.jsonl", "-o", own / "c", *at(own), *COMPARE),
            *("--workers", 2),
        ),
        lambda own: (comparison_of(own / "c"), shards_of(own / "f")),
    ),
}


def at(own: Path) -> tuple[Any, ...]:
    """The store, in the command's folder."""
    return ("--features", own / "f")


class Ended(NamedTuple):
    """One kill, and the run after it."""

    begun: bool  # something was written by then
    exit_code: int  # of the run after it
    equal: bool  # its result and the calm run's
    left: int  # temporary files that are there in the end


class Trial:
    """One command in a folder: a calm run, then as many killed ones as asked for."""

    def __init__(self, name: str, given: Path, folder: Path, start: Callable[..., int]) -> None:
        self.job, self.given, self.folder, self._begin = JOBS[name], given, folder, start
        calm = folder / "calm"
        begun = time.monotonic()
        ended = wait(self._start(calm))
        self.seconds = time.monotonic() - begun
        assert ended == 0, (calm / "log").read_text()
        self.wanted = self.job.result(calm)

    def kill(self, number: int, share: float) -> Ended | None:
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
        equal = code == 0 and self.job.result(own) == self.wanted
        left = sum(1 for x in own.rglob(".*") if x.suffix in (".tmp", ".part"))
        if equal:
            shutil.rmtree(own)
        return Ended(begun, code, equal, left)

    def _start(self, own: Path) -> int:
        own.mkdir(parents=True, exist_ok=True)
        return self._begin(list(map(str, self.job.words(self.given, own))), own / "log")


def spawn(words: list[str], log: Path) -> int:
    """Start a command as a user does; the number of its process and group."""
    with log.open("ab") as file:
        process = subprocess.Popen([SGMFT, *words], stdout=file, stderr=file, process_group=0)
    process.returncode = 0  # it is waited for here, by its number
    return process.pid


def fork(words: list[str], log: Path) -> int:
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
    code: Any = 1
    try:
        main()
        code = 0
    except SystemExit as ended:
        code = ended.code or 0
    finally:
        sys.stderr.flush()
        os._exit(code)


def load_all() -> None:
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


def wait(number: int, seconds: float | None = None) -> int | None:
    """The exit code of a process; None where it goes on after these seconds."""
    end = None if seconds is None else time.monotonic() + seconds
    while end is None or time.monotonic() < end:
        done, status = os.waitpid(number, 0 if end is None else os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    return None


def make_inputs(folder: Path, posts: int, model: bool) -> None:
    """Generated posts, many and few, and a model trained on the few."""
    run = [SGMFT, "sample", str(folder), "--posts", str(posts), "--seed", "1"]
    subprocess.run(run, check=True, capture_output=True)
    rows = [json.loads(x) for x in (folder / "posts.jsonl").read_text("utf-8").splitlines()]
    for i, row in enumerate(rows):
        if i % PICTURED and row["text"]:
            row["images"] = []
    for name, some in (("many.jsonl", rows), ("few.jsonl", rows[:50])):
        lines = (json.dumps(row, ensure_ascii=False) for row in some)
        (folder / name).write_text("\n".join(lines) + "\n", "utf-8")
    if model:
        words = ["train", folder / "few.jsonl", "-o", folder / "model", "--features", "none"]
        subprocess.run([SGMFT, *words], check=True, capture_output=True)


def kill_often(
    name: str, given: Path, folder: Path, kills: int, seed: int, start: Callable[..., int]
) -> list[Any]:
    """The line of a command: see `HEADER`."""
    rng = random.Random(f"{seed} {name}")
    trial = Trial(name, given, folder, start)
    found: list[Ended] = []
    number = 0
    while len(found) < kills:
        number += 1
        if (ended := trial.kill(number, rng.random())) is not None:
            found.append(ended)
            print(f"{name} {len(found)}/{kills}: {ended}", file=sys.stderr, flush=True)
    return [
        *(name, kills, sum(one.begun for one in found)),
        *(sum(one.exit_code == 0 for one in found), sum(one.equal for one in found)),
        *(sum(one.left for one in found), f"{trial.seconds:.1f}"),
    ]


HEADER = ("command", "kills", "had begun to write", "ended well after", "results equal")
HEADER += ("temporary files left", "seconds of a calm run")


def kill_all() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("commands", nargs="*", default=list(JOBS), metavar="COMMAND")
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--posts", type=int, default=300, help="256 are a shard of features")
    parser.add_argument("--forked", action="store_true", help="without the start of Python")
    parser.add_argument("--folder", help="keep runs that differ there; default a temporary one")
    asked = parser.parse_args()
    if asked.forked:
        load_all()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(asked.folder or temporary)
        make_inputs(folder / "given", asked.posts, "predict" in asked.commands)
        print("|", " | ".join(HEADER), "|")
        print("|", " | ".join("---" for _ in HEADER), "|", flush=True)
        for name in asked.commands:
            start = fork if asked.forked else spawn
            given, own = folder / "given", folder / name
            line = kill_often(name, given, own, asked.kills, asked.seed, start)
            print("|", " | ".join(map(str, line)), "|", flush=True)


if __name__ == "__main__":
    kill_all()
