"""Reads GGUF files: values by name, and tensors of numbers that may be quantised in blocks.

Nothing in a file is believed before it is checked against the size of the file. Source: the specification of GGUF,
versions 2 and 3, in the repository ggml-org/ggml (docs/gguf.md).
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from loquent.translate.llm.gguf_blocks import BLOCKS

MAGIC = b"GGUF"
VERSIONS = (2, 3)
MOST_ENTRIES = 2**16  # values, and tensors
MOST_DIMENSIONS = 4
DEEPEST = 4  # lists within lists
_NUMBERS = {
    0: "<u1",
    1: "<i1",
    2: "<u2",
    3: "<i2",
    4: "<u4",
    5: "<i4",
    6: "<f4",
    7: "?",
    10: "<u8",
    11: "<i8",
    12: "<f8",
}
_TEXT, _LIST = 8, 9


@dataclass(frozen=True)
class _Info:
    shape: tuple[int, ...]  # the last dimension varies fastest
    kind: int
    offset: int


class GGUF:
    """An open file.

    Attributes:
        values: by name; texts, numbers, and lists of either.
    """

    def __init__(self, data: memoryview) -> None:
        self._data = data
        reader = _Reader(data)
        if reader.take(4) != MAGIC:
            raise ValueError(f"it begins with {bytes(data[:4])!r}, expected {MAGIC!r}")
        version = reader.number(4)
        if version not in VERSIONS:
            raise ValueError(f"its version is {version}, expected one of {', '.join(map(str, VERSIONS))}")
        tensors, values = reader.count(MOST_ENTRIES), reader.count(MOST_ENTRIES)
        self.values: dict[str, Any] = {}
        for _ in range(values):
            name = reader.text()
            self.values[name] = reader.value(reader.number(4))
        self._infos: dict[str, _Info] = {}
        for _ in range(tensors):
            name = reader.text()
            if name in self._infos:
                raise ValueError(f"it has two tensors {name!r}")
            shape = tuple(reader.number(10) for _ in range(reader.count(MOST_DIMENSIONS, kind=4)))
            self._infos[name] = _Info(shape[::-1], reader.number(4), reader.number(10))
        alignment = self.values.get("general.alignment", 32)
        if type(alignment) is not int or not 1 <= alignment <= 2**16:
            raise ValueError(f"general.alignment is {str(alignment)[:40]!r}, expected a number up to {2**16}")
        self._start = -(-reader.at // alignment) * alignment

    @property
    def names(self) -> list[str]:
        """Of the tensors."""
        return list(self._infos)

    def tensor(self, name: str) -> Tensor:
        """A tensor in float32, a copy.

        Raises:
            ValueError: it is not wholly in the file, or of a type that is not supported.
        """
        info = self._infos[name]
        if info.kind not in BLOCKS:
            known = ", ".join(block.name for block in BLOCKS.values())
            raise ValueError(f"{name} is of the type {info.kind}, which is not supported; expected one of {known}")
        block, count = BLOCKS[info.kind], math.prod(info.shape)
        if not info.shape or not count or info.shape[-1] % block.numbers:
            raise ValueError(f"{name} has shape {list(info.shape)}, expected rows of whole blocks of {block.numbers}")
        size, begin = count // block.numbers * block.size, self._start + info.offset
        if begin + size > len(self._data):
            raise ValueError(f"{name} ends {begin + size - len(self._data)} bytes behind the end of the file")
        rows = np.frombuffer(self._data, np.uint8, size, begin).reshape(-1, block.size)
        return torch.from_numpy(block.decode(rows).reshape(info.shape))


@contextmanager
def open_gguf(file: Path) -> Iterator[GGUF]:
    """A file, mapped into memory while the block runs.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or of another kind, also while the block runs; the message names the file.
    """
    with file.open("rb") as stream:
        if not file.stat().st_size:
            raise ValueError(f"{file} is empty")
        with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
            try:
                content = GGUF(view)
                yield content
            except ValueError as error:
                raise ValueError(f"{file}: {error}") from error


class _Reader:
    """Reads one value behind the other; a file that ends too early is a ValueError."""

    def __init__(self, data: memoryview) -> None:
        self.data, self.at = data, 0

    def take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise ValueError(f"it is truncated: {size} bytes are missing behind byte {self.at}")
        self.at += size
        return bytes(self.data[self.at - size : self.at])

    def number(self, kind: int) -> Any:
        return self.numbers(kind, 1)[0]

    def numbers(self, kind: int, count: int) -> list[Any]:
        dtype = np.dtype(_NUMBERS[kind])
        values: list[Any] = np.frombuffer(self.take(count * dtype.itemsize), dtype).tolist()
        return values

    def count(self, most: int, kind: int = 10) -> int:
        value: int = self.number(kind)
        if value > most:
            raise ValueError(f"it claims {value} entries at byte {self.at}, more than {most}")
        return value

    def text(self) -> str:
        try:
            return self.take(self.number(10)).decode()
        except UnicodeDecodeError as error:
            raise ValueError(f"a text before byte {self.at} is not UTF-8") from error

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == _TEXT:
            return self.text()
        if kind in _NUMBERS:
            return self.number(kind)
        if kind != _LIST or depth == DEEPEST:
            raise ValueError(f"a value of the type {kind} at byte {self.at} is not supported")
        inner, count = self.number(4), self.count(len(self.data))
        if inner in _NUMBERS:
            return self.numbers(inner, count)
        return [self.value(inner, depth + 1) for _ in range(count)]


def whole(values: Mapping[str, Any], name: str) -> int:
    """A whole number; raises ValueError if it is missing or none."""
    value = values.get(name)
    if type(value) is not int:
        raise ValueError(f"{name} is {str(value)[:40]!r}, expected a whole number")
    return value
