"""Export a model to a folder for runtimes without torch, which `OnnxLocator` reads."""

import logging
import shutil
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, replace
from functools import partial
from itertools import chain, islice
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import numpy as np

from sgmft import errors
from sgmft.data.posts import Post
from sgmft.data.preprocessing.images import Pixels
from sgmft.errors import SgmftError, needs_extra
from sgmft.features.encode import prepare_post
from sgmft.features.encoders.base import IMAGE_OUTPUTS, Encoder, EncoderInfo
from sgmft.features.encoders.e5 import E5Encoder, write_text_graph
from sgmft.features.encoders.image_encoder import ImageEncoder, write_image_graph
from sgmft.features.encoders.registry import load_encoder
from sgmft.locator.abstention import FILE as HELD_OUT
from sgmft.locator.locator import SemanticLocator
from sgmft.locator.onnx import locator as exported
from sgmft.locator.onnx.locator import HEAD, PICTURES, TEXTS, TOKENIZER, WEIGHTS, is_exported
from sgmft.locator.prediction import Predictor
from sgmft.models.arrays import Array
from sgmft.models.base import ClosedFormModel
from sgmft.utils.checksums import FILES as DIGESTS, file_digests, short_digest, with_checksum
from sgmft.utils.files import nan_to_none, write_json, writing
from sgmft.utils.runtime import versions
from sgmft.utils.templates import render

GRAPHS = (HEAD, PICTURES, TEXTS)
FILES = (*GRAPHS, *(f"{x}.data" for x in GRAPHS), WEIGHTS, TOKENIZER, HELD_OUT, "README.md")
TEMPORARY = ".export-"  # a folder of that name tells an unfinished export from others' files
KEPT = ("data", "metrics", "calibration")  # of the training's record
SEEN = 128  # pictures that ranges of 8 bits are taken from, and posts compared afterwards


def export_model(
    locator: SemanticLocator, folder: str | Path, *, int8: Sequence[Post] | None = None
) -> list[Path]:
    """Write a trained locator's networks as ONNX, in float32, and all they need; return the files.

    A closed-form model needs no graph: its arrays are written as they are saved. The manifest is
    written last, so that half a folder is none. An earlier export of the same name is replaced.

    Args:
        folder: made if need be; its other files stay.
        int8: posts such as the model will see; with them the picture networks of `compact` and
            `cnn` compute in 8 bits, see `quantize_graph`.

    SgmftError where the locator is not trained or knows its labels by descriptions alone, the
    folder holds something else or cannot be written, the exporter's packages are missing, or 8 bits
    are requested with another encoder or without a picture.
    """
    network: Any = locator.network
    target = Path(folder)
    if network is None:
        raise SgmftError("This locator is not trained: there is nothing to export.")
    if locator.method.name == "described":
        raise SgmftError("A zero-shot locator is not exported: train one on its predictions.")
    if (target / "config.json").exists():
        raise SgmftError(f"{target} holds a model: write its export to another folder.")
    unfinished = list(target.glob(f"{TEMPORARY}*"))  # of a process that was killed
    if target.is_dir() and any(target.iterdir()) and not (is_exported(target) or unfinished):
        raise SgmftError(f"{target} holds other files: write the export to a new folder.")
    _find_steps(locator.encoder)
    with writing(f"The export to {target}"):
        target.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(dir=target, prefix=TEMPORARY) as name:
            temporary = Path(name)
            for folder_left in unfinished:
                shutil.rmtree(folder_left, ignore_errors=True)
            exact = {} if isinstance(locator.encoder, ImageEncoder) else {"dtype": "float32"}
            encoder = load_encoder(**locator.encoder_settings, device="cpu", **exact)
            settings = _write_encoder(encoder, temporary)
            info, tokens = encoder.info, locator.uses_tokens
            if int8 is not None:
                info = quantize_image_network(encoder, temporary / PICTURES, int8)
            if isinstance(network, ClosedFormModel):
                network.save(temporary / WEIGHTS)
            else:
                from sgmft.locator.onnx.writer import write_head

                write_head(network, locator.temperatures.tolist(), info, tokens, temporary / HEAD)
            locator.held_out.save(temporary)
            readme = render("locator/templates/exported.md", labels=locator.labels)
            (temporary / "README.md").write_text(readme, "utf-8")
            for file in (exported.MANIFEST, *FILES):
                (target / file).unlink(missing_ok=True)
            for path in temporary.iterdir():
                path.chmod(0o644)  # safetensors writes files that only their owner reads
                path.rename(target / path.name)
            manifest = {"format": exported.FORMAT, "labels": locator.labels, "tokens": tokens}
            manifest |= {
                "attributes": [asdict(attribute) for attribute in locator.attributes.columns],
                "encoder": {"info": asdict(info) | {"name": locator.encoder_name}, **settings},
                "method": locator.method.name,
                "model": asdict(network.config),
                "preset": locator.preset.name,
                **{k: x for k, x in locator.training.to_config().items() if k in KEPT},
                "versions": versions(),
                DIGESTS: file_digests(target / name for name in FILES if name != "README.md"),
            }
            values = {"sgmft": with_checksum(nan_to_none(manifest))}
            write_json(target / exported.MANIFEST, values, indent=2)
    return sorted(target / x for x in (*FILES, exported.MANIFEST) if (target / x).exists())


def _write_encoder(encoder: Any, folder: Path) -> dict[str, Any]:
    """Write an encoder's networks, on the CPU in float32; return the settings of its texts."""
    if isinstance(encoder, ImageEncoder):
        write_image_graph(encoder.patch_grid, folder / PICTURES)
        if isinstance(encoder.text_encoder, E5Encoder):
            write_text_graph(encoder.text_encoder.model, folder / TEXTS)
        return {"texts": encoder.info.name, "max_words": encoder.text_encoder.max_words}
    with needs_extra("torch", f"To export the encoder {encoder.info.name}"):
        import torch

        from sgmft.locator.onnx.writer import write_graph
    steps, tokens = _find_steps(encoder), encoder.info.has_tokens
    size = encoder.info.image_size or 64
    square = encoder.prepare_image(np.zeros((size, size, 3), np.uint8))["pictures"]
    images = {"pictures": (torch.from_numpy(square.repeat(3, 0)), 1)}
    numbers = torch.ones(3, 5, dtype=torch.long), 2
    texts = {x: numbers for x in encoder.batch_texts(["a"]) if x in exported.TOKENIZED}
    for half, inputs, outputs, name in (
        (encoder.text_features, texts, exported.TEXT_OUTPUTS, TEXTS),
        (encoder.image_features, images, IMAGE_OUTPUTS, PICTURES),
    ):
        run = partial(_run_half, half, inputs, tokens)
        write_graph(encoder.model, inputs, outputs[: 1 + tokens], folder / name, run)
    encoder.save_tokenizer(folder / TOKENIZER)
    return {"texts": "tokenized", "max_words": encoder.max_tokens, "steps": steps}


def _run_half(half: Any, names: Iterable[str], tokens: bool, *given: Any) -> list[Any]:
    return [x for x in half(dict(zip(names, given, strict=True)), tokens) if x is not None]


def _find_steps(encoder: Any) -> dict[str, Any] | None:
    """Return how `cut_square` prepares images; None for squashing, SgmftError for what cannot."""
    if isinstance(encoder, ImageEncoder):
        return None
    with suppress(Exception):  # whatever attributes another one does not have
        ready = encoder.is_dual and encoder.tokenizer.backend_tokenizer is not None
        if ready and encoder.info.image_size:
            return None
        known = encoder.processor
        size, crop = known.size, known.crop_size if known.do_center_crop else None
        steps: dict[str, Any] = {"size": size.shortest_edge or [size.height, size.width]}
        steps |= {"resample": int(known.resample), "crop": crop and [crop.height, crop.width]}
        rng = np.random.default_rng(0)
        for shape in ((48, 64, 3), (500, 90, 3), (7, 5, 3)):
            image = rng.integers(0, 256, shape, np.uint8)
            wanted = encoder.prepare_image(image)["pictures"][0]
            ready &= np.array_equal(exported.cut_square(image, **steps), wanted)
        if ready:
            return steps
    raise SgmftError(errors.TEXTS["not exportable"], name=encoder.info.name)


def quantize_image_network(encoder: Encoder, path: Path, posts: Sequence[Post]) -> EncoderInfo:
    """Write the graph of the picture networks again in 8 bits; return its `EncoderInfo`.

    Ranges are of up to 128 pictures of a half of the posts, drawn at random but always the same.
    """
    info = encoder.info
    if not isinstance(encoder, ImageEncoder):
        raise SgmftError(errors.TEXTS["not in 8 bits"], name=info.name)
    if not (pictures := list(readable_images(_halves(posts)[0], info))):
        raise SgmftError(errors.TEXTS["no pictures in 8 bits"])
    stacked = np.stack(pictures)
    starts = range(0, len(stacked), exported.BATCH)
    quantize_graph(path, ({"pictures": stacked[i : i + exported.BATCH]} for i in starts), path)
    digest = short_digest(path.read_bytes())
    fingerprint = short_digest(f"{info.fingerprint} {digest}".encode())
    return replace(info, fingerprint=fingerprint, image_key=f"{info.image_key}, int8 {digest}")


def quantize_graph(path: Path, batches: Iterable[Mapping[str, Array]], out: Path) -> None:
    """Write the graph at `path` to `out`, perhaps the same file, its convolutions in integers.

    Activations are unsigned 8-bit integers, over their range in `batches`; weights have 7 bits and
    a scale for each channel, since two products of 8 bits overflow without VNNI. Convolutions that
    read pixels, and whatever is no convolution, stay in float32.
    """
    from onnx import load
    from onnxruntime.quantization import QuantFormat, QuantType, quantize_static

    reader = SimpleNamespace(get_next=partial(next, iter(batches), None))
    graph = load(path).graph
    channels = {weight.name: weight.dims[1:2] for weight in graph.initializer}
    first = [x.name for x in graph.node if x.op_type == "Conv" and channels[x.input[1]] == [3]]
    # With ReLU6, a convolution's range is that of what it clips to.
    how: dict[str, Any] = {"op_types_to_quantize": ["Conv", "Clip", "Add"]}
    how |= {"nodes_to_exclude": first, "per_channel": True, "reduce_range": True}
    how |= {"activation_type": QuantType.QUInt8, "weight_type": QuantType.QInt8}
    how |= {"quant_format": QuantFormat.QDQ}
    with ExitStack() as stack, TemporaryDirectory(dir=out.parent, prefix=".") as folder:
        stack.callback(logging.disable, logging.root.manager.disable)
        logging.disable(logging.WARNING)  # the quantizer gives advice to the root logger
        whole = Path(folder) / out.name
        quantize_static(path, whole, reader, **how)
        whole.replace(out)


def agreement(one: Predictor, other: Predictor, posts: Sequence[Post]) -> tuple[int, int]:
    """Return the number of posts on which two models agree, and of those that were compared.

    These are up to 128 posts of the half that `quantize_image_network` did not take ranges from.
    """
    compared = [post for post in _halves(posts)[1] if post.images][:SEEN]
    labels = zip(one.predict(compared), other.predict(compared), strict=True)
    same = [a == b for a, b in labels if a is not None]
    return sum(same), len(same)


def _halves(posts: Sequence[Post]) -> tuple[list[Post], list[Post]]:
    order = np.random.default_rng(0).permutation(len(posts))
    half = (len(posts) + 1) // 2
    return [posts[i] for i in order[:half]], [posts[i] for i in order[half:]]


def readable_images(posts: Sequence[Post], info: EncoderInfo) -> Iterator[Pixels]:
    """Yield one image of each post that has one which can be read, up to SEEN."""
    prepared = (prepare_post(post, info) for post in posts if post.images)
    read = (post.images[:1] for post in prepared if not isinstance(post, str))
    return islice(chain.from_iterable(read), SEEN)
