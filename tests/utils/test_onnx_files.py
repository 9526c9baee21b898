"""ONNX files are written and run so that nothing beside them is disturbed, or kept to be sent."""

import ast
import os
import subprocess
import sys

import torch

from sgmft.features.encoders.text_encoders import SentenceEncoder
from sgmft.locator.onnx.writer import write_graph
from sgmft.utils.runtime import PARSING

RUN = """
import sys
from pathlib import Path
import numpy as np
from sgmft.utils.onnx_session import Session
Session(Path(sys.argv[1])).run(["y"], {"x": np.zeros((2, 3), np.float32)})
"""


def write_linear(path):
    write_graph(torch.nn.Linear(3, 2), {"x": (torch.zeros(5, 3), 1)}, ["y"], path)


def test_reading_weights_and_writing_a_graph_exclude_each_other(tmp_path, monkeypatch):
    """What parses Python does so alone: the interpreter fails if two threads do at once."""
    alone, parse, export = [], ast.parse, torch.onnx.export

    def watched(real):
        def call(*args, **options):
            alone.append((real, PARSING.locked()))
            return real(*args, **options)

        return call

    monkeypatch.setattr(ast, "parse", watched(parse))
    SentenceEncoder().encode(["家"], False)
    assert alone and all(locked for _, locked in alone)
    monkeypatch.setattr(torch.onnx, "export", watched(export))
    write_linear(tmp_path / "linear.onnx")
    assert (export, True) in alone and not PARSING.locked()


def test_the_runtime_keeps_nothing_to_tell_its_makers(tmp_path):
    """Since 1.29 it else has a store of events in the home folder, and its state in TMPDIR."""
    graph, home = tmp_path / "graph.onnx", tmp_path / "home"
    home.mkdir()
    write_linear(graph)
    hidden = ("CI", "XDG_CACHE_HOME", "ORT_DISABLE_TELEMETRY")
    environment = {k: v for k, v in os.environ.items() if k not in hidden}
    environment |= {"HOME": str(home), "TMPDIR": str(home)}
    subprocess.run([sys.executable, "-c", RUN, graph], env=environment, check=True)
    assert not list(home.iterdir())
