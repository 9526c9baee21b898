"""What parses Python does so alone: the interpreter fails if two threads do at once."""

import ast

import torch

from sgmft.features.encoders.sentence_encoder import SentenceEncoder
from sgmft.utils.onnx_writer import write_graph
from sgmft.utils.runtime import PARSING


def test_reading_weights_and_writing_a_graph_exclude_each_other(tmp_path, monkeypatch):
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
    inputs = {"x": (torch.rand(3, 5), 1)}
    write_graph(torch.nn.Linear(5, 2), inputs, ["y"], tmp_path / "linear.onnx")
    assert (export, True) in alone and not PARSING.locked()
