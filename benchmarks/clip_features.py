"""Chinese-CLIP ViT-H/14 + RoBERTa-large features against the plain `transformers` loop.

    python benchmarks/clip_features.py

Random weights of the real size, written to a temporary folder in the published format (4 GB on
disk, 10 GB of memory). The plain loop: float32, batches of 8, texts padded to 52. Then the rate of
the picture tower beside that of bfloat16 products of its own shapes, and the memory that a process
takes to load the encoder and use it.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import threading
import time
from pathlib import Path
from statistics import median

import numpy as np
import torch
from measuring import in_turns, least_cosine, print_row
from torch.nn.functional import linear
from transformers import (
    BertTokenizer,
    ChineseCLIPConfig,
    ChineseCLIPImageProcessorPil,
    ChineseCLIPModel,
)
from transformers.image_utils import OPENAI_CLIP_MEAN as MEAN, OPENAI_CLIP_STD as STD

from sgmft.features.encoders.chinese_clip import ChineseClipEncoder
from sgmft.features.encoders.registry import load_encoder

POSTS, BATCH, ROUNDS = 16, 8, 2
WIDTH, HIDDEN, LAYERS, PATCHES = 1280, 5120, 32, 257
CHARACTERS = [chr(code) for code in range(0x4E00, 0x4E00 + 21_000)]


def save(folder: Path) -> None:
    """A checkpoint of `chinese-clip-huge`'s size."""
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *CHARACTERS]
    (folder / "vocab.txt").write_text("\n".join(words), "utf-8")
    BertTokenizer(str(folder / "vocab.txt")).save_pretrained(folder)
    ChineseCLIPImageProcessorPil().save_pretrained(folder)
    text = {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16}
    vision = {"hidden_size": WIDTH, "num_hidden_layers": LAYERS, "num_attention_heads": 16}
    config = ChineseCLIPConfig(
        text_config={**text, "intermediate_size": 4096, "vocab_size": len(words)},
        vision_config={**vision, "intermediate_size": HIDDEN, "patch_size": 14},
        projection_dim=1024,
    )
    torch.manual_seed(0)
    ChineseCLIPModel(config).save_pretrained(folder)


def inputs() -> tuple[list[str], np.ndarray]:
    """Texts of 8 to 40 characters, and pictures."""
    rng = np.random.default_rng(0)
    texts = ["".join(rng.choice(CHARACTERS, rng.integers(8, 41))) for _ in range(POSTS)]
    return texts, rng.integers(0, 256, (POSTS, 224, 224, 3), np.uint8)


def own_memory() -> int:
    """Bytes that belong to this process alone: not those of files, which the system can drop."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("RssAnon"))


def peak(folder: str) -> float:
    """What a process takes beyond its libraries to load and encode, per byte of the weights."""
    texts, pictures = inputs()
    before, most, done = own_memory(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            most.append(max(most.pop(), own_memory()))

    watching = threading.Thread(target=watch)
    watching.start()
    encoder = load_encoder(folder)
    encoder.encode_texts(texts, False)
    encoder.encode_images(pictures, False)
    done.set()
    watching.join()
    weights = sum(x.numel() * x.element_size() for x in encoder.model.parameters())
    return (most[0] - before) / weights


def products(batch: int) -> float:
    """Floating-point operations a second of the picture tower's linear maps, bfloat16."""
    rates = []
    sizes = [(WIDTH, WIDTH)] * 4 + [(WIDTH, HIDDEN), (HIDDEN, WIDTH)]
    weights = [torch.randn(b, a).bfloat16() for a, b in sizes]
    given = {a: torch.randn(batch * PATCHES, a).bfloat16() for a in (WIDTH, HIDDEN)}
    for _ in range(5):
        began = time.perf_counter()
        for weight in weights:
            linear(given[weight.shape[1]], weight)
        rates.append(2 * batch * PATCHES * sum(a * b for a, b in sizes))
        rates[-1] /= time.perf_counter() - began
    return median(rates)


@torch.inference_mode()
def main() -> None:
    texts, pictures = inputs()
    with tempfile.TemporaryDirectory() as folder:
        save(Path(folder))
        with multiprocessing.get_context("spawn").Pool(1) as alone:
            share = alone.apply(peak, (folder,))
        encoder = load_encoder(folder)
        model = ChineseCLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
        tokenizer = BertTokenizer.from_pretrained(folder)

    def theirs() -> np.ndarray:
        rows = []
        for start in range(0, POSTS, BATCH):
            part = slice(start, start + BATCH)
            pixels = torch.from_numpy(pictures[part]) / 255 - torch.tensor(MEAN)
            pixels = (pixels / torch.tensor(STD)).permute(0, 3, 1, 2)
            padded = {
                "padding": "max_length",
                "max_length": ChineseClipEncoder.max_tokens,
                "truncation": True,
            }
            words = tokenizer(texts[part], return_tensors="pt", **padded)
            seen = model.get_image_features(pixel_values=pixels).pooler_output
            rows.append(torch.cat([seen, model.get_text_features(**words).pooler_output], 1))
        return torch.cat(rows).numpy()

    def ours() -> np.ndarray:
        sides = encoder.encode_images(pictures, False), encoder.encode_texts(texts, False)
        return np.concatenate([side.pooled for side in sides], 1)

    found = in_turns(theirs, ours, ROUNDS)
    a, b = (x.reshape(POSTS, 2, -1) for x in found.answers)
    print_row(
        "Chinese-CLIP ViT-H/14 + RoBERTa-large features",
        f"`transformers`, float32, batch {BATCH}, padded to {ChineseClipEncoder.max_tokens}",
        found.ratio,
        "≥ 4.8",
        f"cosines ≥ {least_cosine(a, b):.4f}",
    )
    began = time.perf_counter()
    encoder.encode_images(pictures, False)
    layer = 2 * PATCHES * (4 * WIDTH**2 + 2 * WIDTH * HIDDEN) + 4 * PATCHES**2 * WIDTH
    rate = POSTS * LAYERS * layer / (time.perf_counter() - began)
    reached = products(encoder._batch_size)
    print_row(
        "its picture tower",
        f"bfloat16 products of its shapes, {reached / 1e12:.1f} TFLOP/s",
        f"{100 * rate / reached:.0f} %",
        "≥ 75 %",
        f"{rate / 1e12:.1f} TFLOP/s",
    )
    print_row("its memory at most", "its weights", f"{share:.2f}", "≤ 1.3", "–")


if __name__ == "__main__":
    main()
