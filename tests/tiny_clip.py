"""A Chinese-CLIP checkpoint of a few kilobytes, in the published format, with random weights."""

import json
import string
from pathlib import Path

import torch
from transformers import BertTokenizer, ChineseCLIPConfig, ChineseCLIPModel
from transformers.utils import logging

logging.disable_progress_bar()

SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")
CHARACTERS = (
    "的一是了我不在人有他这中大来上个国到说们为子和你地出道也时年得就那要下以生会自着去之过家学对可她里后"
    "小么心多天而能好都然没日于起还发成事只作当想看文无开手用主行方又如前所本见经头面公同三已老从动两长"
    "知民样现分将外但身些与高意进把法此实回二理美点月明其种声全工己话儿者向情部正名定女问力机给等几很业"
    "最间新什打便位因重被走电四第门相次东政海口使教西再平真听世气信北少关并内加化由却代军产入先山五太水"
    "万市眼体别处总才场师书比住员九笑性通目华报立马命张活难神数件安表原车白应路期叫死常提感金何更反合放"
    "做系计或司利受光王果亲界及今京务制解各任至清物台象记边共风战干接它许八特觉望直服毛林题建南度统色字"
    "请交爱让认算论百吃义科怎元社术结六功指思非流每青管夫连远资队跟带花快条院变联言权往展该领传近留红治"
    "决周保达办运武半候七必城父强步完革深区影饭馆店校园商场旅游餐厅班室"
)
PUNCTUATION = "，。！？、：；“”（）…《》#@[]!?.,:;()-_/&%+'\""
MEAN = [0.48145466, 0.4578275, 0.40821073]
STD = [0.26862954, 0.26130258, 0.27577711]


def vocabulary() -> list[str]:
    """Special tokens, characters, and pieces of English words, one a line of vocab.txt."""
    ascii_ = string.ascii_lowercase + string.digits
    pieces = [f"##{c}" for c in ascii_] + ["home", "room", "work", "##ing", "cinema", "school"]
    return list(dict.fromkeys([*SPECIAL, *CHARACTERS, *PUNCTUATION, *ascii_, *pieces]))


def save_tiny_clip(
    folder: Path,
    *,
    seed: int = 0,
    image_size: int = 84,
    patch_size: int = 14,
    projection_dim: int = 24,
    weights: str = "safetensors",
    dropout: float = 0.1,
) -> Path:
    """Write a checkpoint with the files of the published repositories; return its folder.

    Args:
        folder: created if need be.
        seed: of the random weights.
        image_size, patch_size: pixels; the picture tower sees (image_size / patch_size)² patches.
        projection_dim: width of the shared space.
        dropout: of the text tower in training; 0.1 in the published ones.
        weights: "safetensors", or "bin" for the pytorch_model.bin of the published repositories.
    """
    words = vocabulary()
    layers = {"num_hidden_layers": 2, "num_attention_heads": 4}
    text = {"vocab_size": len(words), "hidden_size": 32, "intermediate_size": 64, **layers}
    text |= {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    image = {"image_size": image_size, "patch_size": patch_size, "hidden_size": 48, **layers}
    config = ChineseCLIPConfig(
        text_config={**text, "max_position_embeddings": 128},
        vision_config={**image, "intermediate_size": 96, "projection_dim": projection_dim},
        projection_dim=projection_dim,
    )
    generator = torch.Generator().manual_seed(seed)
    model = ChineseCLIPModel(config)
    with torch.no_grad():
        for name, weight in sorted(model.named_parameters()):
            if name == "logit_scale":
                continue
            noise = torch.randn(weight.shape, generator=generator)
            # Norms near one, the rest large enough that every layer shows in the features.
            weight.copy_(1 + noise * 0.2 if "norm" in name.lower() and weight.ndim == 1 else noise)
            if weight.ndim > 1:
                weight.mul_(weight[0].numel() ** -0.5)
    folder.mkdir(parents=True, exist_ok=True)
    if weights == "bin":
        config.save_pretrained(folder)
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
    else:
        model.save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(words) + "\n", "utf-8")
    (folder / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "do_center_crop": False,
                "do_normalize": True,
                "do_resize": True,
                "feature_extractor_type": "ChineseCLIPFeatureExtractor",
                "image_mean": MEAN,
                "image_std": STD,
                "resample": 3,
                "size": {"height": image_size, "width": image_size},
            }
        ),
        "utf-8",
    )
    return folder


def add_tokenizer_files(folder: Path) -> None:
    """Write tokenizer.json and tokenizer_config.json beside vocab.txt."""
    BertTokenizer.from_pretrained(folder).save_pretrained(folder)
