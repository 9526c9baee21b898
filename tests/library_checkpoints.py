"""Tiny random checkpoints of other libraries' classes, saved as they are published."""

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers as hf
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers.utils import logging

from tiny_clip import save_tiny_clip

logging.set_verbosity_error()
MARKS = ["<pad>", "<s>", "</s>", "<unk>", "<mask>"]
LETTERS = "abcdefghijklmnopqrstuvwxyz的一是在家里看书学校上课去公司开会我们你好"
SEEN = "<image>"  # the token that a picture's features take the place of
VOCABULARY = [*MARKS, *LETTERS, SEEN]
CHAT = (
    "{% for m in messages %}{% for x in m.content %}{{ x.text if x.type == 'text' else '<image>' }}"
)
CHAT += "{% endfor %}</s>{% endfor %}"
LAYERS = {
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "hidden_size": 16,
}
TEXT = {"vocab_size": len(VOCABULARY), "max_position_embeddings": 16, **LAYERS}
TEXT |= {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
IMAGE = {"image_size": 32, "patch_size": 8, **LAYERS}
SQUARE = {"height": 32, "width": 32}
CLASS_TOKEN = {"vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
CROP = {"size": {"shortest_edge": 36}, "crop_size": SQUARE}


def save_tokenizer(folder: Path, most: int) -> None:
    """One token a letter; `most` of them, the marks at both ends counted."""
    numbers = {token: i for i, token in enumerate(VOCABULARY)}
    tokenizer = Tokenizer(models.WordLevel(numbers, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)]
    )
    names = ("pad", "bos", "eos", "unk", "mask")
    marks = {f"{name}_token": mark for name, mark in zip(names, MARKS, strict=True)}
    whole = hf.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        model_max_length=most,
        cls_token="<s>",
        sep_token="</s>",
        additional_special_tokens=[SEEN],
        **marks,
    )
    whole.save_pretrained(folder)


def _clip() -> tuple[Any, Any]:
    config = hf.CLIPConfig(text_config=TEXT, vision_config=IMAGE, projection_dim=12)
    return hf.CLIPModel(config), hf.CLIPImageProcessorPil(**CROP)


def _siglip() -> tuple[Any, Any]:
    config = hf.SiglipConfig(text_config=TEXT, vision_config=IMAGE)
    return hf.SiglipModel(config), hf.SiglipImageProcessorPil(size=SQUARE)


def _naflex() -> tuple[Any, Any]:
    image = {**LAYERS, "patch_size": 8, "num_patches": 16}
    processor = hf.Siglip2ImageProcessorPil(patch_size=8, max_num_patches=20)
    return hf.Siglip2Model(hf.Siglip2Config(text_config=TEXT, vision_config=image)), processor


def _altclip() -> tuple[Any, Any]:
    text = {**TEXT, "project_dim": 20, "max_position_embeddings": 18, "hidden_dropout_prob": 0.0}
    text["attention_probs_dropout_prob"] = 0.0  # so that a forward pass in training is as any other
    config = hf.AltCLIPConfig(text_config=text, vision_config=IMAGE, projection_dim=12)
    return hf.AltCLIPModel(config), hf.CLIPImageProcessorPil(**CROP)


def _dinov2() -> tuple[Any, Any]:
    return hf.Dinov2Model(hf.Dinov2Config(**IMAGE)), hf.BitImageProcessorPil(**CROP)


def _xlmr() -> tuple[Any, Any]:
    return hf.XLMRobertaModel(hf.XLMRobertaConfig(**{**TEXT, "max_position_embeddings": 18})), None


def _blip() -> tuple[Any, Any]:
    text = {**TEXT, "encoder_hidden_size": 16, "sep_token_id": 2}
    config = hf.BlipConfig(text_config=text, vision_config=IMAGE, projection_dim=12)
    return hf.BlipModel(config), hf.BlipImageProcessorPil(size=SQUARE)


def _llava() -> tuple[Any, Any]:
    text = hf.LlamaConfig(**{**TEXT, "max_position_embeddings": 64}, num_key_value_heads=2)
    parts = {"vision_config": hf.CLIPVisionConfig(**IMAGE), "text_config": text}
    config = hf.LlavaConfig(**parts, image_token_index=VOCABULARY.index(SEEN))
    return hf.LlavaModel(config), hf.CLIPImageProcessorPil(**CROP)


def _lit() -> tuple[Any, Any]:
    parts = hf.CLIPVisionConfig(**IMAGE | {"hidden_size": 24}), hf.BertConfig(**TEXT)
    config = hf.VisionTextDualEncoderConfig.from_vision_text_configs(*parts, projection_dim=12)
    return hf.VisionTextDualEncoderModel(config), hf.CLIPImageProcessorPil(**CROP)


def _aimv2() -> tuple[Any, Any]:  # without padding its texts are read in both directions
    config = hf.Aimv2Config(text_config=TEXT, vision_config=IMAGE, projection_dim=12)
    return hf.Aimv2Model(config), hf.CLIPImageProcessorPil(**CROP)


def _flava() -> tuple[Any, Any]:
    parts = {"text_config": TEXT, "image_config": IMAGE, "multimodal_config": LAYERS}
    config = hf.FlavaConfig(**parts, projection_dim=12, hidden_size=16)
    return hf.FlavaModel(config), hf.CLIPImageProcessorPil(**CROP)


def _segformer() -> tuple[Any, Any]:
    sizes = {"hidden_sizes": [8, 8, 8, 16], "num_attention_heads": [1] * 4, "depths": [1] * 4}
    return hf.SegformerModel(hf.SegformerConfig(**sizes)), hf.SegformerImageProcessorPil(
        size=SQUARE
    )


def _gpt2() -> tuple[Any, Any]:
    sizes = {"n_positions": 16, "n_embd": 16, "n_layer": 2, "n_head": 2}
    return hf.GPT2Model(hf.GPT2Config(vocab_size=len(VOCABULARY), **sizes)), None


def _mpnet() -> tuple[Any, Any]:
    config = hf.MPNetConfig(**TEXT | {"max_position_embeddings": 18, "pad_token_id": 1})
    return hf.MPNetModel(config), None


FAMILIES: dict[str, Callable[[], tuple[Any, Any]]] = {
    "lit": _lit,
    "aimv2": _aimv2,
    "flava": _flava,
    "segformer": _segformer,
    "ijepa": lambda: (hf.IJepaModel(hf.IJepaConfig(**IMAGE)), hf.ViTImageProcessorPil(size=SQUARE)),
    "vitmae": lambda: (
        hf.ViTMAEModel(hf.ViTMAEConfig(**IMAGE)),
        hf.ViTImageProcessorPil(size=SQUARE),
    ),
    "gpt2": _gpt2,
    "mpnet": _mpnet,
    "clip": _clip,
    "siglip": _siglip,
    "naflex": _naflex,
    "altclip": _altclip,
    "dinov2": _dinov2,
    "xlmr": _xlmr,
    "blip": _blip,
    "llava": _llava,
}


PROCESSORS: dict[str, Callable[..., Any]] = {
    "clip": hf.CLIPProcessor,
    "blip": hf.BlipProcessor,
    "llava": partial(hf.LlavaProcessor, patch_size=8, chat_template=CHAT, **CLASS_TOKEN),
}


def save_checkpoint(family: str, folder: Path) -> Path:
    """Write one of `FAMILIES`, "chinese-clip", or one of sentence-transformers, as "st-xlmr"."""
    if family == "chinese-clip":
        return save_tiny_clip(folder, dropout=0.0)
    if family.startswith("st-"):
        return _save_sentence_transformer(family[3:], folder)
    torch.manual_seed(0)
    model, processor = FAMILIES[family]()
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1:  # that every layer shows in the features
                weight.normal_(std=weight[0].numel() ** -0.5)
            elif name.endswith("bias"):
                weight.normal_(std=0.1)
    model.save_pretrained(folder)
    if processor is not None:
        processor.save_pretrained(folder)
    if family not in ("dinov2", "segformer", "ijepa", "vitmae"):
        save_tokenizer(folder, 64 if family == "llava" else 16)
    return folder


def _save_sentence_transformer(family: str, folder: Path) -> Path:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Normalize, Pooling, Transformer

    source = save_checkpoint(family, folder.with_name(f"{folder.name}-source"))
    if family in PROCESSORS:
        prepare = hf.AutoImageProcessor.from_pretrained(source, backend="pil")
        tokenizer = hf.AutoTokenizer.from_pretrained(source)
        PROCESSORS[family](prepare, tokenizer).save_pretrained(source)
    modules: list[Any] = [Transformer(str(source))]
    if family not in ("clip", "blip"):
        modules += [Pooling(16, "lasttoken" if family == "llava" else "mean"), Normalize()]
    model = SentenceTransformer(modules=modules, device="cpu")
    if family == "xlmr":
        model.prompts, model.default_prompt_name = {"document": "aa"}, "document"
    model.save_pretrained(str(folder), create_model_card=False)
    return folder


def pictures() -> list[np.ndarray]:
    """Pictures of several shapes, one of them so small that its channels look like its height."""
    rng = np.random.default_rng(0)
    shapes = [(3, 3), (20, 50), (64, 10), (32, 32), (41, 33)]
    return [rng.integers(0, 256, (h, w, 3), dtype=np.uint8) for h, w in shapes]


def change_json(path: Path, **values: Any) -> None:
    """Set values of a file of settings."""
    path.write_text(json.dumps(json.loads(path.read_text("utf-8")) | values), "utf-8")
