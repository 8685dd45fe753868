"""How GGUF stores numbers in blocks, each with a scale of its own. Source: ggml's `ggml-quants.c`, described anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

Array = np.ndarray[Any, np.dtype[Any]]


class Block(NamedTuple):
    """A type of numbers.

    numbers: of a block.
    size:    of a block in bytes.
    decode:  blocks (N, size) uint8 to float32 (N, numbers).
    """

    name: str
    numbers: int
    size: int
    decode: Callable[[Array], Array]


def _float32(blocks: Array) -> Array:
    return np.array(blocks.view("<f4"), dtype=np.float32)


def _float16(blocks: Array) -> Array:
    return np.ascontiguousarray(blocks).view("<f2").astype(np.float32)


def _bfloat16(blocks: Array) -> Array:
    return (np.ascontiguousarray(blocks).view("<u2").astype("<u4") << 16).view("<f4")


def _nibbles(blocks: Array) -> Array:
    """All low halves of the bytes, then all high ones."""
    return np.concatenate([blocks & 15, blocks >> 4], axis=1).astype(np.float32)


def _q4_0(blocks: Array) -> Array:
    """d (q - 8), 4 bits each."""
    return _float16(blocks[:, :2]) * (_nibbles(blocks[:, 2:]) - 8)


def _q4_1(blocks: Array) -> Array:
    """d q + m, 4 bits each."""
    return _float16(blocks[:, :2]) * _nibbles(blocks[:, 4:]) + _float16(blocks[:, 2:4])


def _q8_0(blocks: Array) -> Array:
    """d q, 8 bits each."""
    return _float16(blocks[:, :2]) * blocks[:, 2:].view(np.int8).astype(np.float32)


def _q6_k(blocks: Array) -> Array:
    """d s (q - 32): 6 bits each, and a scale s of 8 bits for every 16.

    Halves of 128 numbers are stored apart: 64 bytes of low four bits, the low halves of the bytes first, and 32 bytes
    of high two bits, the lowest pair of each byte first.
    """
    low, high = blocks[:, :128].reshape(-1, 2, 2, 32), blocks[:, 128:192].reshape(-1, 2, 1, 32)
    low = np.concatenate([low & 15, low >> 4], axis=2)  # (N, 2, 4, 32)
    high = (high >> np.array([0, 2, 4, 6], np.uint8)[:, None]) & 3
    numbers = (low | high << 4).astype(np.float32) - 32
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32) * _float16(blocks[:, 208:])
    return (numbers.reshape(-1, 16, 16) * scales[:, :, None]).reshape(-1, 256)


BLOCKS = {
    0: Block("F32", 1, 4, _float32),
    1: Block("F16", 1, 2, _float16),
    2: Block("Q4_0", 32, 18, _q4_0),
    3: Block("Q4_1", 32, 20, _q4_1),
    8: Block("Q8_0", 32, 34, _q8_0),
    14: Block("Q6_K", 256, 210, _q6_k),
    30: Block("BF16", 1, 2, _bfloat16),
}
