"""onnxruntime keeps nothing that it would send to its makers, whoever uses it through sgmft."""

import os
import subprocess
import sys
from pathlib import Path

import torch

from sgmft.utils.onnx_writer import write_graph

RUN = """
import sys
from pathlib import Path
import numpy as np
from sgmft.utils.onnx_session import Session
Session(Path(sys.argv[1])).run(["y"], {"x": np.zeros((2, 3), np.float32)})
"""


def test_nothing_is_kept_to_be_sent(tmp_path: Path) -> None:
    """Since 1.29 it else has a store of events in the home folder, and its state in TMPDIR."""
    graph, home = tmp_path / "graph.onnx", tmp_path / "home"
    home.mkdir()
    write_graph(torch.nn.Linear(3, 2), {"x": (torch.zeros(5, 3), 1)}, ["y"], graph)
    hidden = ("CI", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    environment |= {"HOME": str(home), "TMPDIR": str(home)}
    subprocess.run([sys.executable, "-c", RUN, graph], env=environment, check=True)
    assert not list(home.iterdir())
