"""Snapshots of streams: bytes that another process continues from. They are read as any foreign input is."""

from __future__ import annotations

import hashlib
import json
from typing import Any

import safetensors.torch
from torch import Tensor

MAGIC = b"loquent2"


def pack(body: bytes) -> bytes:
    """Put the magic number and a checksum before a body in safetensors' format."""
    return MAGIC + hashlib.sha256(body).digest() + body


def unpack(data: bytes) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The header and the tensors of a snapshot.

    Raises:
        ValueError: it is no snapshot, one of another version of loquent, or damaged.
    """
    start = len(MAGIC) + hashlib.sha256().digest_size
    if data[: len(MAGIC)] != MAGIC or len(data) < start + 8:
        raise ValueError("not a snapshot of a stream, or one of another version of loquent")
    body = data[start:]
    if hashlib.sha256(body).digest() != data[len(MAGIC) : start]:
        raise ValueError("the snapshot of a stream is damaged: its checksum is wrong")
    try:
        size = int.from_bytes(body[:8], "little")
        header = json.loads(json.loads(body[8 : 8 + size])["__metadata__"]["session"])
        tensors = safetensors.torch.load(body)
    except Exception as error:
        raise ValueError(f"not a snapshot of a stream: {error}") from error
    if not isinstance(header, dict):
        raise ValueError("not a snapshot of a stream: its header is no object")
    return header, tensors
