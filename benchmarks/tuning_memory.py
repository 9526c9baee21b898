"""What fine-tuning takes: computed for Chinese-CLIP of any size, measured where it can be.

    python benchmarks/tuning_memory.py [--posts 4]

Computed, without any memory, on torch's meta device: the bytes of the weights, of gradients and of
AdamW's two moments, and of what autograd keeps of a step of so many posts, each a text of 52 tokens
and a picture; the arithmetic from torch's own counter. Measured: a step of the same on this
machine's CPU, random weights, each in a process of its own: what is kept, the most memory of its
own beyond the libraries, and the time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import threading
import time
from typing import Any

import torch
from clip_features import own_memory
from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks
from torch.utils.flop_counter import FlopCounterMode
from transformers import ChineseCLIPConfig, ChineseCLIPModel

from sgmft.features.encoders.chinese_clip import ChineseClipEncoder
from sgmft.training.finetune.network import Towers
from sgmft.training.finetune.settings import Tuning
from sgmft.utils.runtime import keep_freed_memory

SIZES = {  # text width, layers; picture width, layers, heads, patch; shared width
    "base": ((768, 12), (768, 12, 12, 16), 512),
    "large": ((768, 12), (1024, 24, 16, 14), 768),
    "huge": ((1024, 24), (1280, 32, 16, 14), 1024),
}
WAYS = {
    "lora": {"kind": "lora"},
    "lora, layers computed again": {"kind": "lora", "gradient_checkpointing": True},
    "lora, last 4 layers": {"kind": "lora", "last": 4},
    "full": {"kind": "full"},
    "full, layers computed again": {"kind": "full", "gradient_checkpointing": True},
}
MEASURED = [("base", way) for way in WAYS] + [("large", "lora"), ("large", "full")]


class RandomClip(ChineseClipEncoder):
    """An encoder around a network that was not loaded."""

    def __init__(self, model: ChineseCLIPModel) -> None:
        self.model, self._dtype = model, model.dtype
        self._both = self._has_pooler = True
        self._values = torch.zeros(3, 256, device=model.device)


def towers(size: str, way: str, device: str, dtype: torch.dtype = torch.float32) -> Towers:
    """Of the real size, with random weights, or none on the meta device."""
    (text, layers), (width, deep, heads, patch), shared = SIZES[size]
    config = ChineseCLIPConfig(
        text_config={
            **{"hidden_size": text, "num_hidden_layers": layers, "num_attention_heads": text // 64},
            **{"intermediate_size": 4 * text, "vocab_size": 21128},
        },
        vision_config={
            **{"hidden_size": width, "num_hidden_layers": deep, "num_attention_heads": heads},
            **{"intermediate_size": 4 * width, "patch_size": patch},
        },
        projection_dim=shared,
    )
    with torch.device(device):
        model = ChineseCLIPModel(config)
        found = Towers(RandomClip(model), Tuning(augment=False, **WAYS[way]), dtype)
    return found.train()


def batch(posts: int, device: str) -> tuple[Tensor, Tensor]:
    """Numbers of tokens, and pictures."""
    ids = torch.ones(posts, ChineseClipEncoder.max_tokens, dtype=torch.long, device=device)
    return ids, torch.zeros(posts, 224, 224, 3, dtype=torch.uint8, device=device)


def forward(model: Towers, posts: int, device: str) -> tuple[Tensor, int]:
    """A loss, and the bytes that autograd keeps for going back, weights and inputs apart."""
    given = {x.untyped_storage()._cdata for x in (*model.parameters(), *model.buffers())}
    kept: dict[int, Any] = {}

    def keep(x: Tensor) -> Tensor:
        kept[x.untyped_storage()._cdata] = x.untyped_storage()
        return x

    with saved_tensors_hooks(keep, lambda x: x):
        ids, pictures = batch(posts, device)
        network = model.encoder.model
        read = network.text_model(input_ids=ids).last_hidden_state[:, 0]  # meta can hold no mask
        seen = model.encode_images({"pictures": pictures}, False)[0]
        loss = network.text_projection(read).sum() + seen.sum()
    return loss, sum(x.nbytes() for key, x in kept.items() if key not in given)


def computed(size: str, way: str, posts: int) -> dict[str, float]:
    """In bytes, and the arithmetic of a step."""
    model = towers(size, way, "meta")
    with FlopCounterMode(display=False) as counter:
        loss, activations = forward(model, posts, "meta")
        loss.backward()
    weights = sum(x.nbytes for x in model.parameters())
    moving = sum(x.nbytes for x in model.parameters() if x.requires_grad)
    return {
        "parameters": sum(x.numel() for x in model.parameters()),
        "trained": moving / 4,
        "weights": weights,
        "gradients and moments": 3 * moving,
        "activations": activations,
        "flops": counter.get_total_flops(),
    }


def measured(size: str, way: str, posts: int) -> dict[str, float]:
    """The same of steps that are taken, and their time; in a process of its own."""
    keep_freed_memory()
    before, most, done = own_memory(), [0], threading.Event()

    def watch() -> None:
        while not done.wait(0.005):
            most[0] = max(most[0], own_memory())

    watching = threading.Thread(target=watch)
    watching.start()
    model = towers(size, way, "cpu")
    optimizer = torch.optim.AdamW([x for x in model.parameters() if x.requires_grad], fused=True)
    times = []
    for _ in range(3):
        start = time.perf_counter()
        loss, activations = forward(model, posts, "cpu")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        times.append(time.perf_counter() - start)
    done.set()
    watching.join()
    return {"activations": activations, "peak": most[0] - before, "seconds": min(times[1:])}


def alone(*given: Any) -> dict[str, float]:
    """`measured`, in a process of its own."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(measured, given)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--posts", type=int, default=4, help="of one step")
    posts = parser.parse_args().posts
    print("| size | way | parameters | trained | weights | gradients, moments |", end="")
    print(" activations a post | all | TFLOP a post | measured: activations | peak | s a post |")
    print("| --- " * 12 + "|")
    for size in SIZES:
        for way in WAYS:
            told = computed(size, way, posts)
            kept = told["weights"] + told["gradients and moments"] + told["activations"]
            cells = [
                f"{told['parameters'] / 1e6:.0f} M",
                f"{told['trained'] / 1e6:.1f} M",
                *(f"{told[x] / 1e9:.2f} GB" for x in ("weights", "gradients and moments")),
                f"{told['activations'] / posts / 1e6:.0f} MB",
                f"{kept / 1e9:.2f} GB",
                f"{told['flops'] / posts / 1e12:.2f}",
            ]
            if (size, way) in MEASURED:
                found = alone(size, way, posts)
                cells += [
                    f"{found['activations'] / posts / 1e6:.0f} MB a post",
                    f"{found['peak'] / 1e9:.2f} GB",
                    f"{found['seconds'] / posts:.1f}",
                ]
            else:
                cells += [""] * 3
            print(f"| {size} | {way} | " + " | ".join(cells) + " |", flush=True)


if __name__ == "__main__":
    main()
