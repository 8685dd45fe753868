"""Reads the variables of a CTranslate2 model file (`model.bin`, version 6)."""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

VERSION = 6
# By type id. NumPy has no bfloat16: its bits are read as int16.
_DTYPES: list[tuple[str, torch.dtype]] = [
    ("<f4", torch.float32),
    ("i1", torch.int8),
    ("<i2", torch.int16),
    ("<i4", torch.int32),
    ("<f2", torch.float16),
    ("<i2", torch.bfloat16),
]


@dataclass(frozen=True)
class Ctranslate2Model:
    """The content of a model file.

    Attributes:
        specification: the kind of model, such as "WhisperSpec".
        revision: of that specification.
        variables: name -> value. Names that the file stores as aliases share their tensor. Quantised weights are
            dequantised to float32; everything else has the type of the file.
    """

    specification: str
    revision: int
    variables: dict[str, Tensor]


def is_ctranslate2(head: bytes) -> bool:
    """Whether a file that begins with these bytes (at least 64) is a CTranslate2 model, of whatever version."""
    if len(head) < 8:
        return False
    version, length = struct.unpack_from("<IH", head)
    name = head[6 : 6 + length]
    return 1 <= version < 256 and 1 < length <= 58 and name[-1:] == b"\0" and name[:-1].isalnum()


def read_ctranslate2(path: Path) -> Ctranslate2Model:
    """Read a model file, each variable straight into its tensor.

    Raises:
        ValueError: not a version 6 model, truncated, or inconsistent; the message says where.
    """
    with path.open("rb") as stream:
        cursor = _Cursor(path, stream)
        version = cursor.integer("<I", "version")
        if version != VERSION:
            raise ValueError(f"{path} has CTranslate2 version {version}, expected {VERSION}; convert the model again")
        specification = cursor.string("specification")
        revision = cursor.integer("<I", "revision")
        stored: dict[str, Tensor] = {}
        for _ in range(cursor.integer("<I", "number of variables")):
            name = cursor.string("variable name")
            stored[name] = cursor.variable(name)
        # Resolved after dequantising: an alias of a weight stands for its scale too.
        variables = _dequantized(stored, path)
        for _ in range(cursor.integer("<I", "number of aliases")):
            alias, name = cursor.string("alias"), cursor.string("name of alias")
            if name not in variables:
                raise ValueError(f"{path}: alias {alias} is of {name}, which the file does not hold")
            variables[alias] = variables[name]
        if cursor.offset != cursor.size:
            raise ValueError(f"{path} has {cursor.size - cursor.offset} bytes after its end, expected none")
    return Ctranslate2Model(specification, revision, variables)


class _Cursor:
    """Reads little-endian fields from a file, one after the other."""

    def __init__(self, path: Path, stream: BinaryIO) -> None:
        self.path, self.stream = path, stream
        self.offset, self.size = 0, path.stat().st_size
        if not self.size:
            raise ValueError(f"{path} is empty")

    def advance(self, count: int, what: str) -> None:
        if count > self.size - self.offset:
            raise ValueError(
                f"{self.path} is truncated: {what} needs {count} bytes at {self.offset}, the file has {self.size}"
            )
        self.offset += count

    def take(self, count: int, what: str) -> bytes:
        self.advance(count, what)
        return self.stream.read(count)

    def integer(self, layout: str, what: str) -> int:
        return struct.unpack(layout, self.take(struct.calcsize(layout), what))[0]

    def string(self, what: str) -> str:
        raw = self.take(self.integer("<H", what), what)
        if raw[-1:] != b"\0":
            raise ValueError(f"{self.path}: {what} at {self.offset} does not end with a zero byte")
        return raw[:-1].decode("utf-8")

    def variable(self, name: str) -> Tensor:
        shape = [self.integer("<I", name) for _ in range(self.integer("B", name))]
        type_id = self.integer("B", name)
        if type_id >= len(_DTYPES):
            raise ValueError(f"{self.path}: {name} has type {type_id}, expected 0 to {len(_DTYPES) - 1}")
        numpy_type, dtype = _DTYPES[type_id]
        size, expected = self.integer("<I", name), math.prod(shape) * np.dtype(numpy_type).itemsize
        if size != expected:
            raise ValueError(f"{self.path}: {name} of shape {shape} has {size} bytes, expected {expected}")
        self.advance(size, name)
        values = np.empty(shape, numpy_type)
        self.stream.readinto(values)  # type: ignore[attr-defined]
        tensor = torch.from_numpy(values)
        return tensor.view(torch.bfloat16) if dtype == torch.bfloat16 else tensor


def _dequantized(stored: dict[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Divide each integer `weight` by its `weight_scale`, leaving out the scales."""
    variables = {}
    for name, value in stored.items():
        if name.endswith("_scale") and name.removesuffix("_scale") in stored:
            continue
        scale = stored.get(f"{name}_scale")
        if scale is not None:
            value = value.float() / _spread(scale.float(), value.shape, f"{path}: {name}_scale")
        variables[name] = value
    return variables


def _spread(scale: Tensor, shape: torch.Size, name: str) -> Tensor:
    """A scale made to broadcast: one in all (int16), one per row, or for convolutions one per row and tap."""
    if scale.ndim == 0:
        return scale
    if scale.shape == shape[:1]:
        return scale.reshape(-1, *[1] * (len(shape) - 1))
    if scale.shape == shape[:1] + shape[2:]:
        return scale.unsqueeze(1)
    raise ValueError(f"{name} has shape {list(scale.shape)}, expected one value, or one per row of {list(shape)}")
