"""Adapt an encoder to pairs of text and picture, and write it to a folder."""

import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import normalize

from sgmft.data.posts import Post
from sgmft.errors import TEXTS, SgmftError
from sgmft.features.encode import encode_all
from sgmft.features.encoder_handle import EncoderHandle
from sgmft.features.features import LabelledPosts
from sgmft.training import align
from sgmft.training.finetune.network import check_tunable
from sgmft.training.finetune.settings import Tuning
from sgmft.training.history import Epoch
from sgmft.training.trainer import train
from sgmft.utils.files import check_output, write_json, writing

RECORD, UNFINISHED = "align.json", "checkpoint"
DUAL = Tuning(batch_size=64)


@dataclass(frozen=True)
class AlignmentResult:
    """The result of an alignment."""

    pairs: int  # number of pairs learned from
    held_out: int  # number of pairs that recall is measured on
    skipped: dict[str, int]  # number of posts left out, by reason
    before: dict[str, float] | None  # recall among the held-out pairs; None without a shared space
    after: dict[str, float]  # the same with the adapted one
    history: list[Epoch]


def align_encoder(
    posts: Iterable[Post],
    output: str | Path,
    source: EncoderHandle,
    tuning: Tuning | None = None,
    width: int = 256,
    seed: int = 0,
    on_encoded: Callable[[int], None] | None = None,
    on_epoch: Callable[[Epoch], None] | None = None,
) -> AlignmentResult:
    """Adapt an encoder to pairs of text and picture, which need no label.

    Of a dual encoder the towers are trained, with `tuning`, by default LoRA in batches of 64;
    behind any other a linear map for each modality to a shared space of `width`. Both by the
    contrastive loss: each text of a batch is to find its picture, and each picture its text. Pairs
    that share a text or a picture are not to be distinguished, and are all held out or none: a
    tenth, at most 1,000. Writes a folder that `load_encoder` takes; a stopped run continues.
    """
    folder = Path(output)
    check_output(folder, (folder / UNFINISHED).is_dir() or (folder / RECORD).is_file(), "encoder")
    info, dual = source.encoder.info, getattr(source.encoder, "is_dual", False)
    if tuning is not None and not dual:
        raise SgmftError(TEXTS["not tuned"], name=info.name)
    if dual:
        check_tunable(source.encoder, tuning := tuning or DUAL)
    store = source.store(tokens=False)
    encoded = encode_all(posts, source.encoder, store=store, on_encoded=on_encoded)
    pairs, skipped = align.find_pairs(encoded)
    out = pairs.held_out(seed)
    text, image = (normalize(torch.from_numpy(x[out]), dim=-1) for x in pairs.features.pooled())
    before = align.recall(text, image) if info.shared_space else None
    torch.manual_seed(seed)
    if tuning is not None:
        subject = align.align_towers(source, pairs, tuning, seed)
    else:
        subject = align.align_projections(source, pairs, ~out, width, seed)
    labelled = LabelledPosts(subject.data, pairs.number)
    train_set, validation = labelled.take(~out), labelled.take(out)
    with writing(folder):
        (folder / UNFINISHED).mkdir(parents=True, exist_ok=True)
    torch.manual_seed(subject.config.seed)
    given = subject.model, train_set, validation, subject.config
    own: Any = {"checkpoint": folder / UNFINISHED, "device": source.device, "on_epoch": on_epoch}
    history = train(*given, objective=align.Retrieval(), **own)
    after = align.recall(*align.embed(subject.model, validation.features))
    subject.save(folder)
    counts = len(train_set.labels), len(validation.labels)
    found = AlignmentResult(*counts, skipped, before, after, history)
    values = asdict(found) | {"history": [line._asdict() for line in history]}
    write_json(folder / RECORD, values, indent=2)
    shutil.rmtree(folder / UNFINISHED, ignore_errors=True)
    return found
