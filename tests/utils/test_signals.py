"""A process ends with the one that started it, however that one ends."""

import os
import signal
import subprocess
import sys

import pytest

WATCH = "from sgmft.utils.runtime import end_with_parent; end_with_parent('over')"
CHILD = f"{WATCH}; import time; print('watching', flush=True); time.sleep(60)"

BY_SUBPROCESS = f"""
import subprocess, sys, time
print(subprocess.Popen([sys.executable, "-c", {CHILD!r}]).pid, flush=True)
time.sleep(60)
"""

BY_MULTIPROCESSING = f"""
import multiprocessing, time
child = multiprocessing.get_context("spawn").Process(target=exec, args=({CHILD!r},))
child.start()
print(child.pid, flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("program", [BY_SUBPROCESS, BY_MULTIPROCESSING])
def test_a_child_ends_with_its_parent(program):
    parent = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert parent.stdout is not None and parent.stderr is not None
    lines = {parent.stdout.readline() for _ in range(2)}
    assert "watching\n" in lines
    (child,) = (int(line) for line in lines if line.strip().isdigit())
    os.kill(child, 0)  # there
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    assert parent.stderr.read() == "over\n"  # which the child holds open until it ends
