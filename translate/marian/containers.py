"""Marian's files of weights, ``.npz`` and ``.bin``: names with matrices, and the options of the training.

What the files say about sizes is checked against what they hold before anything is made of it.
"""

from __future__ import annotations

import gzip
import io
import math
import struct
import zipfile
import zlib
from pathlib import Path
from typing import NamedTuple

import numpy as np
import yaml
from numpy.typing import NDArray

OPTIONS = "special:model.yml"
MOST_BYTES = 4 << 30  # of a file, unpacked
MOST_ITEMS = 20_000
MOST_OPTIONS = 1 << 20  # bytes
ZIP = b"PK\x03\x04"
BIN_VERSION = 1
# marian-dev, src/common/types.h: a class of types and the bytes of a number.
TYPES: dict[int, str] = {0x402: "<f2", 0x404: "<f4", 0x408: "<f8", 0x101: "<i1", 0x102: "<i2", 0x104: "<i4"}
QUANTISED = {0x4101: "<i1", 0x4102: "<i2"}  # intgemm8, intgemm16
PACKED = 0x0800


class Container(NamedTuple):
    """What a file holds.

    weights: name -> float32 matrix, as Marian shapes it.
    options: of the training, as nested dictionaries and lists of strings.
    """

    weights: dict[str, NDArray[np.float32]]
    options: dict[str, object]


def is_container(file: Path) -> bool:
    """Whether a file begins like one of Marian's models, packed with gzip or not."""
    packed = file.suffix == ".gz"
    try:
        with gzip.open(file) if packed else file.open("rb") as stream:
            head = stream.read(24)
        if head[:4] == ZIP and not packed:
            with zipfile.ZipFile(file) as archive:
                return f"{OPTIONS}.npy" in archive.namelist()
    except (OSError, EOFError, zlib.error, zipfile.BadZipFile):
        return False
    if head[:4] == ZIP:
        return file.stem.endswith(".npz")
    version, items, name = struct.unpack("<3Q", head.ljust(24, b"\0"))
    return version == BIN_VERSION and 0 < items <= MOST_ITEMS and 0 < name < 1024


def read_container(file: Path) -> Container:
    """Read a model's file; nothing in it is executed.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or has numbers of a kind that is not read; the message names it.
    """
    content = read_packed(file)
    try:
        items = _npz(content) if content[:4] == ZIP else _bin(content)
        options = items.pop(OPTIONS, None)
        if options is None:
            raise ValueError(f"it has no {OPTIONS}, the options that Marian writes into its models")
        return Container(
            {name: value.astype(np.float32, copy=False) for name, value in items.items()}, _options(options)
        )
    except ValueError as error:
        raise ValueError(f"{file} is no model of Marian, or damaged: {error}") from error


def read_packed(file: Path, most: int = MOST_BYTES) -> bytes:
    """The content of a file, unpacked if its name ends with ``.gz``.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or larger than ``most`` bytes.
    """
    try:
        with gzip.open(file) if file.suffix == ".gz" else file.open("rb") as stream:
            content = stream.read(most + 1)
    except (gzip.BadGzipFile, EOFError, zlib.error) as error:
        raise ValueError(f"{file} is truncated or not packed with gzip: {error}") from error
    if len(content) > most:
        raise ValueError(f"{file} holds more than {most} bytes, more than any such file")
    return content


def _npz(content: bytes) -> dict[str, NDArray[np.generic]]:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = archive.infolist()
            if len(members) > MOST_ITEMS or sum(member.file_size for member in members) > MOST_BYTES:
                raise ValueError(f"more than {MOST_ITEMS} matrices or {MOST_BYTES} bytes")
            return {member.filename.removesuffix(".npy"): _npy(archive.read(member)) for member in members}
    except (zipfile.BadZipFile, EOFError, NotImplementedError, RuntimeError, zlib.error) as error:
        raise ValueError(f"not a whole .npz file: {error}") from error


def _npy(content: bytes) -> NDArray[np.generic]:
    # Without pickles, numpy makes an array of what there is, or says that there is less than the header claims; the
    # header is checked first, as memory would be asked for before that.
    stream = io.BytesIO(content)
    version = np.lib.format.read_magic(stream)
    if version != (1, 0):
        raise ValueError(f"a matrix of the .npy version {version}, expected (1, 0)")
    shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    if dtype.kind not in "fiu" or any(size < 0 for size in shape):
        raise ValueError(f"a matrix of {dtype}, expected numbers")
    if math.prod(shape) * dtype.itemsize > len(content):
        raise ValueError(f"a matrix of {list(shape)} {dtype}, but {len(content)} bytes of it")
    stream.seek(0)
    value: NDArray[np.generic] = np.load(stream, allow_pickle=False)
    return value


def _bin(content: bytes) -> dict[str, NDArray[np.generic]]:
    """Source: marian-dev, ``src/common/binary.cpp``, version 1."""
    at = 0

    def take(size: int) -> memoryview:
        nonlocal at
        if not 0 <= size <= len(content) - at:
            raise ValueError(f"{size} bytes are to come at byte {at}, but there are {len(content) - at}")
        at += size
        return memoryview(content)[at - size : at]

    def numbers(kind: str, count: int) -> tuple[int, ...]:
        return struct.unpack(f"<{count}{kind}", take(count * struct.calcsize(kind)))

    version, count = numbers("Q", 2)
    if version != BIN_VERSION:
        raise ValueError(f"it begins with version {version}, expected {BIN_VERSION}")
    if count > MOST_ITEMS:
        raise ValueError(f"{count} matrices, expected at most {MOST_ITEMS}")
    headers = [numbers("Q", 4) for _ in range(count)]  # length of the name, type, dimensions, bytes
    names = [bytes(take(header[0])).rstrip(b"\0").decode() for header in headers]
    if len(set(names)) < count:
        raise ValueError("two matrices have the same name")
    if any(header[2] > 8 for header in headers):
        raise ValueError("a matrix of more than 8 dimensions")
    shapes = [numbers("i", header[2]) for header in headers]
    take(numbers("Q", 1)[0])  # so that matrices begin at multiples of 256
    return {
        name: _matrix(name, kind, shape, take(size))
        for name, shape, (_, kind, _, size) in zip(names, shapes, headers, strict=True)
    }


def _matrix(name: str, kind: int, shape: tuple[int, ...], content: memoryview) -> NDArray[np.generic]:
    dtype = TYPES.get(kind) or QUANTISED.get(kind)
    if dtype is None:
        packed = "packed for one kind of processor" if kind & PACKED else f"of the unknown type {kind:#x}"
        raise ValueError(
            f"{name!r} is {packed}; convert the .npz file with marian-conv --gemm-type intgemm8 or float32"
        )
    count = math.prod(shape)
    if any(size < 1 for size in shape) or not shape:
        raise ValueError(f"{name!r} has shape {list(shape)}")
    stored = count * np.dtype(dtype).itemsize
    if stored + 4 * (kind in QUANTISED) > len(content):
        raise ValueError(f"{name!r} has shape {list(shape)}, but {len(content)} bytes")
    values = np.frombuffer(content, dtype, count)
    if kind not in QUANTISED:
        return values.reshape(shape)
    # marian-dev, src/tensors/cpu/integer_common.h: the multiplier comes last, and all but embeddings are transposed.
    (multiplier,) = struct.unpack_from("<f", content, stored)
    if not (math.isfinite(multiplier) and multiplier > 0):
        raise ValueError(f"{name!r} has the multiplier {multiplier}, expected a number above 0")
    real = values.astype(np.float32) * np.float32(1 / multiplier)
    return real.reshape(shape) if "Wemb" in name else real.reshape(shape[-1], -1).T.reshape(shape)


def _options(value: NDArray[np.generic]) -> dict[str, object]:
    content = value.tobytes()
    if value.dtype.itemsize != 1 or len(content) > MOST_OPTIONS:
        raise ValueError(f"{OPTIONS} is {len(content)} bytes of {value.dtype}, expected at most {MOST_OPTIONS} of text")
    try:
        # Without a constructor of types: all values are strings, and what refers to itself is not multiplied.
        options = yaml.load(content.rstrip(b"\0").decode(), yaml.BaseLoader)
    except (yaml.YAMLError, RecursionError) as error:
        raise ValueError(f"{OPTIONS} is not YAML: {error}") from error
    if not isinstance(options, dict):
        raise ValueError(f"{OPTIONS} is a {type(options).__name__}, expected names with values")
    return options
