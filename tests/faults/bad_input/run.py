"""One target and one engine in a process of its own: its crash is seen, and its memory bounded.

    python tests/faults/bad_input/run.py TARGET ENGINE CASES SEED FIRST FOLDER

Written to FOLDER: `outcome.json`; `current`, the case under way, for whoever sees this process
die; and the first case of each finding.
"""

import atexit
import contextlib
import faulthandler
import hashlib
import json
import os
import resource
import sys
import time
import traceback
from collections import Counter
from pathlib import Path

_HERE = Path(__file__).resolve()
sys.path[:0] = [str(_HERE.parents[3] / "src"), str(_HERE.parents[2]), str(_HERE.parents[1])]
MEMORY = 2 << 30  # bytes of data: a picture of 89 million pixels, opaque and transparent, and more
SILENT = 150  # seconds without an end of a case
ENOUGH = 5  # findings, after which there is nothing new


class Run:
    """Counts the outcomes of the cases of one target."""

    def __init__(self, target, engine, folder):
        self.target, self.engine, self.folder = target, engine, folder
        self.cases = self.accepted = 0
        self.refused, self.findings, self.slowest = Counter(), {}, 0.0
        self._current = os.open(folder / "current", os.O_RDWR | os.O_CREAT)
        self._stderr = os.fstat(2).st_size

    def __call__(self, data):
        """Run one case."""
        os.pwrite(self._current, data, 0)
        os.ftruncate(self._current, len(data))
        faulthandler.dump_traceback_later(SILENT, exit=True)
        self.cases += 1
        start = time.process_time()
        try:
            outcome = self.target.check(data)
            self._check_side_effects(time.process_time() - start)
        except Exception as error:
            self._found(data, error)
            return
        self.accepted += outcome.accepted
        self.refused += outcome.refused

    def _check_side_effects(self, seconds):
        from bad_input.target import promise

        self.slowest = max(self.slowest, seconds)
        promise(seconds < self.target.seconds, f"took {seconds:.1f} seconds")
        if self.engine != "atheris" and not self.target.writes_stderr:  # atheris itself does
            before, self._stderr = self._stderr, os.fstat(2).st_size
            promise(before == self._stderr, "wrote to standard error")

    def _found(self, data, error):
        frames = traceback.extract_tb(error.__traceback__)
        where = [frame for frame in frames if frame.name not in ("promise", "one_line")][-1]
        key = f"{type(error).__name__} in {Path(where.filename).name}, line {where.lineno}"
        if key not in self.findings or self.engine == "hypothesis":
            name = hashlib.sha256(key.encode()).hexdigest()[:12]
            (self.folder / name).write_bytes(data)
            (self.folder / f"{name}.txt").write_text(traceback.format_exc(), "utf-8", "replace")
            text = f"{key}: {str(error)[:300]}"
            self.findings[key] = f"{self.folder / name}: {text}".encode(errors="replace").decode()
        if self.engine == "hypothesis":
            raise error
        if len(self.findings) >= ENOUGH:
            self.end()
            os._exit(0)

    def end(self):
        """Write the outcome."""
        faulthandler.cancel_dump_traceback_later()
        outcome = {
            "cases": self.cases,
            "accepted": self.accepted,
            "refused": dict(self.refused.most_common()),
            "findings": list(self.findings.values()),
            "slowest": self.slowest,
            "mebibytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
        }
        (self.folder / "outcome.json").write_text(json.dumps(outcome, ensure_ascii=False), "utf-8")


def main():
    """Run it."""
    name, engine, cases, seed, first, folder = sys.argv[1:]
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if engine == "atheris":
        import atheris

        with atheris.instrument_imports(include=["sgmft"]):
            pass
    from bad_input.contents import TARGETS
    from bad_input.engines import ENGINES

    target = TARGETS[name]
    for data in target.seeds():  # what is imported at first use is now there
        with contextlib.suppress(Exception):
            target.check(data)
    run = Run(target, engine, Path(folder))
    atexit.register(run.end)
    try:
        ENGINES[engine](target, run, int(cases), int(seed), int(first))
    except Exception:
        if not run.findings:  # hypothesis raises again what they hold
            raise


if __name__ == "__main__":
    main()
