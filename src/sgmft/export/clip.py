"""The two towers of Chinese-CLIP as graphs, in float32, and its tokenizer."""

from __future__ import annotations

from pathlib import Path

import torch

from sgmft.encoders.base import PICTURE_OUTPUTS
from sgmft.encoders.chinese_clip import ChineseClipEncoder
from sgmft.graphs.writing import write_graph
from sgmft.runtime.manifest import PICTURES, TEXTS, TOKENIZER


def write_towers(encoder: ChineseClipEncoder, folder: Path) -> None:
    """Write texts.onnx, pictures.onnx and tokenizer.json.

    Args:
        encoder: on the CPU, in float32.
    """
    numbers = torch.ones(3, 5, dtype=torch.long)
    inputs = {"input_ids": (numbers, 2), "attention_mask": (numbers, 2)}
    write_graph(encoder.texts, inputs, ["projected"], folder / TEXTS)
    size = encoder.info.image_size
    pictures = torch.zeros(3, size, size, 3, dtype=torch.uint8)
    given = {"pictures": (pictures, 1)}
    write_graph(encoder.pictures, given, PICTURE_OUTPUTS, folder / PICTURES)
    encoder.tokenizer.backend_tokenizer.save(str(folder / TOKENIZER))
