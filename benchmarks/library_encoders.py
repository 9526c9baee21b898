"""Encoders of other libraries, by `encode_posts`, against the libraries' plain loops.

    python benchmarks/library_encoders.py

Random weights of the real sizes (but for the vocabulary), in a temporary folder: 5 GB of memory.
Posts as people have them: texts of 4 to 200 characters, most of them short, pictures of 640 x 480;
a fifth of each comes again. The plain loop takes batches of 8 in their order, padded to the
longest, one picture prepared after the other, in float32.
"""

from __future__ import annotations

import io
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
import transformers as hf
from measuring import in_turns, least_cosine, print_row
from PIL import Image
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from sgmft.data.posts import Attachment, Post
from sgmft.features.encode import encode_posts
from sgmft.features.encoders.base import Encoder
from sgmft.features.encoders.registry import load_encoder

POSTS, BATCH, ROUNDS = 24, 8, 2
LETTERS = [chr(code) for code in range(0x4E00, 0x4E00 + 3000)]
BASE = {"hidden_size": 768, "intermediate_size": 3072, "num_hidden_layers": 12}
BASE |= {"num_attention_heads": 12}
LARGE = {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24}
LARGE |= {"num_attention_heads": 16}
MARKS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}


def tokenizer(most: int, masked: bool) -> hf.PreTrainedTokenizerFast:
    """One token a character; SigLIP's gives no mask, since it was trained without one."""
    numbers = {x: i for i, x in enumerate(["<pad>", "<s>", "</s>", "<unk>", *LETTERS])}
    made = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    ends = [("<s>", 1), ("</s>", 2)]
    made.post_processor = processors.TemplateProcessing(single="<s> $A </s>", special_tokens=ends)
    return hf.PreTrainedTokenizerFast(
        tokenizer_object=made,
        model_max_length=most,
        pad_token="<pad>",
        unk_token="<unk>",
        model_input_names=["input_ids", "attention_mask"][: 1 + masked],
    )


def siglip2() -> tuple[hf.PreTrainedModel, int]:
    text = {**BASE, **MARKS, "vocab_size": len(LETTERS) + 4}
    text |= {"max_position_embeddings": 64, "projection_size": 768}
    config = hf.SiglipConfig(text_config=text, vision_config={**BASE, "patch_size": 16})
    return hf.SiglipModel(config), 64


def chinese_clip() -> tuple[hf.PreTrainedModel, int]:
    text = {**BASE, **MARKS, "vocab_size": len(LETTERS) + 4}
    config = hf.ChineseCLIPConfig(text_config=text, vision_config={**BASE, "patch_size": 16})
    return hf.ChineseCLIPModel(config), 52


def bge_m3() -> tuple[hf.PreTrainedModel, int]:
    known = {**LARGE, **MARKS, "vocab_size": len(LETTERS) + 4, "max_position_embeddings": 514}
    return hf.XLMRobertaModel(hf.XLMRobertaConfig(**known)), 512


PROCESSORS = {siglip2: hf.SiglipImageProcessorPil, chinese_clip: hf.ChineseCLIPImageProcessorPil}


def save(make: Callable[[], tuple[hf.PreTrainedModel, int]], folder: Path) -> None:
    torch.manual_seed(0)
    model, most = make()
    model.save_pretrained(folder)
    tokenizer(most, make is not siglip2).save_pretrained(folder)
    if processor := PROCESSORS.get(make):
        processor().save_pretrained(folder)


def posts() -> tuple[list[str], list[bytes]]:
    rng = np.random.default_rng(0)
    lengths = rng.lognormal(3, 1, POSTS).astype(int).clip(4, 200)
    texts = ["".join(rng.choice(LETTERS, length)) for length in lengths]
    pictures = []
    for _ in range(POSTS):
        file = io.BytesIO()
        Image.fromarray(rng.integers(0, 256, (480, 640, 3), np.uint8)).save(file, "JPEG")
        pictures.append(file.getvalue())
    again = rng.permutation(POSTS)[: POSTS // 5]
    return [*texts, *(texts[i] for i in again)], [*pictures, *(pictures[i] for i in again)]


def encode(encoder: Encoder, some: list[Post]) -> np.ndarray:
    rows = [row for chunk in encode_posts(some, encoder) for row in chunk.rows]
    return np.stack([row.text if row.images is None else row.images[0] for row in rows])


@torch.inference_mode()
def plain_texts(folder: Path, texts: list[str]) -> Callable[[], np.ndarray]:
    model, made = (
        hf.AutoModel.from_pretrained(folder).eval(),
        hf.AutoTokenizer.from_pretrained(folder),
    )
    dual = hasattr(model, "get_text_features")

    @torch.inference_mode()
    def run() -> np.ndarray:
        found = []
        for start in range(0, len(texts), BATCH):
            padding = "longest" if "attention_mask" in made.model_input_names else "max_length"
            given = made(
                texts[start : start + BATCH], padding=padding, truncation=True, return_tensors="pt"
            )
            if dual:
                found.append(model.get_text_features(**given).pooler_output)
                continue
            mask = given["attention_mask"][..., None]
            states = model(given["input_ids"], given["attention_mask"]).last_hidden_state
            found.append((states * mask).sum(1) / mask.sum(1))
        return torch.cat(found).numpy()

    return run


def plain_pictures(folder: Path, pictures: list[bytes]) -> Callable[[], np.ndarray]:
    model = hf.AutoModel.from_pretrained(folder).eval()
    processor = hf.AutoImageProcessor.from_pretrained(folder, backend="pil")

    @torch.inference_mode()
    def run() -> np.ndarray:
        found = []
        for start in range(0, len(pictures), BATCH):
            some = [
                Image.open(io.BytesIO(x)).convert("RGB") for x in pictures[start : start + BATCH]
            ]
            found.append(
                model.get_image_features(**processor(some, return_tensors="pt")).pooler_output
            )
        return torch.cat(found).numpy()

    return run


def main() -> None:
    texts, pictures = posts()
    with tempfile.TemporaryDirectory() as place:
        models = {"SigLIP 2 base": siglip2, "Chinese-CLIP base": chinese_clip, "BGE-M3": bge_m3}
        for name, make in models.items():
            folder = Path(place) / name.split()[0]
            save(make, folder)
            dual = make in PROCESSORS
            encoder = load_encoder(
                f"hf:{folder}" if dual else f"hf:{folder}+compact", cleaning="none"
            )
            kinds = [("texts", [Post(x) for x in texts], plain_texts(folder, texts), "2")]
            if dual:
                given = [Post("", [Attachment(x, f"{i}.jpg")]) for i, x in enumerate(pictures)]
                kinds.append(("pictures", given, plain_pictures(folder, pictures), "1.5"))
            for kind, some, plain, wanted in kinds:
                found = in_turns(plain, partial(encode, encoder, some), ROUNDS)
                cosine = f"least cosine {least_cosine(*found.answers):.5f}"
                print_row(
                    f"{name}, {kind}", "the library's loop", found.ratio, f"{wanted} x", cosine
                )


if __name__ == "__main__":
    main()
