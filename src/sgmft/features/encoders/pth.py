"""Read the tensors of a `.pth` file as torch wrote it before version 1.6, without torch.

Such a file holds pickles, and behind them the tensors' numbers. Nothing of it is executed: the
pickles are taken apart by their opcodes, and of all that they could name only tensors, their
storages and dictionaries are known (torch's own `load` with `weights_only` does the same).
"""

import pickletools
from collections.abc import Mapping
from math import prod
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from sgmft.utils.checksums import MALFORMED

TYPES = {"Float": "<f4", "Double": "<f8", "Half": "<f2", "Long": "<i8"}
STORAGES = {f"torch {name}Storage": dtype for name, dtype in TYPES.items()}
DICTIONARY, TENSOR = "collections OrderedDict", "torch._utils _rebuild_tensor_v2"
MAGIC = 0x1950A86A20F9469CFC6C  # of torch's files
# How many values an opcode takes from the top of the stack; others take those behind the last mark.
COUNTS = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3, "APPEND": 1, "SETITEM": 2}
UNREADABLE = (*MALFORMED, ArithmeticError, MemoryError)  # what a damaged file may raise


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
            case "GLOBAL":
                if value not in (DICTIONARY, TENSOR, *STORAGES):
                    raise ValueError(f"it names {value}")
                stack.append(value)
            case "BINUNICODE" | "BININT" | "BININT1" | "BININT2" | "LONG1":
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
