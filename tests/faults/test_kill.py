"""A short slice of kill.py, which is a script: `python tests/faults/kill.py --help`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
def test_killed_once_and_run_again():
    script = Path(__file__).with_name("kill.py")
    words = [sys.executable, script, "--forked", "--kills", "1", "--posts", "40", "encode"]
    ended = subprocess.run(words, capture_output=True, text=True, check=False)
    assert ended.returncode == 0, ended.stderr
    command, kills, _, well, equal, _, _ = ended.stdout.splitlines()[-1].strip("| ").split(" | ")
    assert (command, kills, well, equal) == ("encode", "1", "1", "1")
