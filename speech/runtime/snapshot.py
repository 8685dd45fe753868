"""Snapshots of streams: bytes that another process continues from. They are read as any foreign input is."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NoReturn, TypeAlias

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

MAGIC = b"loquent2"
MOST = 2**44  # a position or a count beyond it is none: samples of years, far from the end of 64 bits
_OF_PARSERS = (json.JSONDecodeError, UnicodeError)  # ValueErrors that do not say what was read
LONGEST_NAME = 1024  # characters of a stream's name, or of a marker's


class Header(dict[str, Any]):
    """The values of a snapshot, each to be taken out as what it has to be. All methods raise ValueError."""

    def mapping(self, name: str) -> dict[str, Any]:
        """Names with values."""
        value = self.get(name)
        if not isinstance(value, dict):
            _refuse(name, "names with values", value)
        return value

    def text(self, name: str) -> str:
        """A name."""
        value = self.get(name)
        if not isinstance(value, str) or not 1 <= len(value) <= LONGEST_NAME:
            _refuse(name, f"a name of up to {LONGEST_NAME} characters", value)
        return value

    def count(self, name: str) -> int:
        """A count, or a position in the stream."""
        return counted(self, name)

    def seconds(self, name: str) -> float:
        """A time from the start of the stream."""
        return timed(self.get(name), name)

    def markers(self, received: int) -> list[tuple[int, str]]:
        """Markers at positions up to ``received``, in order."""
        values = self.get("markers")
        markers: list[tuple[int, str]] = []
        for value in values if isinstance(values, list) else _refuse("markers", "a list", values):
            position, id = value if isinstance(value, list) and len(value) == 2 else (None, None)
            least = markers[-1][0] if markers else 0
            if type(position) is not int or not least <= position <= received:
                _refuse("markers", f"positions from {least} to {received} with names", value)
            if not isinstance(id, str) or len(id) > LONGEST_NAME:
                _refuse("markers", "positions with names", value)
            markers.append((position, id))
        return markers


def counted(values: dict[str, Any], name: str, most: int = MOST) -> int:
    """A saved count or position."""
    count = values.get(name)
    if type(count) is not int or not 0 <= count <= most:
        _refuse(name, f"a whole number from 0 to {most}", count)
    return count


def flagged(values: dict[str, Any], name: str) -> bool:
    """A saved truth value."""
    value = values.get(name)
    if not isinstance(value, bool):
        _refuse(name, "true or false", value)
    return value


def timed(value: Any, name: str) -> float:
    """A saved time, in seconds from the start of the stream."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= MOST:
        _refuse(name, "seconds from 0 on", value)
    return float(value)


def pack(body: bytes) -> bytes:
    """Put the magic number and a checksum before a body in safetensors' format."""
    return MAGIC + hashlib.sha256(body).digest() + body


def pack_parts(header: Mapping[str, Any], parts: Mapping[str, Callable[[], bytes]]) -> Callable[[], bytes]:
    """What makes one snapshot of several, in any thread; each becomes a tensor of bytes under its name."""

    def packed() -> bytes:
        whole = {name: torch.from_numpy(np.frombuffer(part(), np.uint8).copy()) for name, part in parts.items()}
        return pack(safetensors.torch.save(whole, {"session": json.dumps(header)}))

    return packed


def parts_of(tensors: Mapping[str, Tensor], names: Iterable[str], what: str) -> dict[str, bytes]:
    """Inverse of `pack_parts`: the snapshots of these names.

    Raises:
        ValueError: one is missing or damaged; ``what`` says of what.
    """
    parts: dict[str, bytes] = {}
    for name in names:
        part = tensors.get(name)
        if part is None or part.dtype != torch.uint8 or part.ndim != 1:
            raise ValueError(f"not {what}: its part {name!r} is missing or damaged")
        parts[name] = part.numpy().tobytes()
    return parts


Unpacked: TypeAlias = tuple[Header, dict[str, Tensor]]


def unpack(data: bytes | Unpacked) -> Unpacked:
    """The header and the tensors of a snapshot; what is unpacked already, as in another thread, is left as it is.

    Raises:
        ValueError: it is no snapshot, one of another version of loquent, or damaged.
    """
    if isinstance(data, tuple):
        return data
    start = len(MAGIC) + hashlib.sha256().digest_size
    if data[: len(MAGIC)] != MAGIC or len(data) < start + 8:
        raise ValueError("not a snapshot of a stream, or one of another version of loquent")
    body = data[start:]
    if hashlib.sha256(body).digest() != data[len(MAGIC) : start]:
        raise ValueError("the snapshot of a stream is damaged: its checksum is wrong")
    with foreign("a snapshot of a stream"):
        size = int.from_bytes(body[:8], "little")
        session = json.loads(body[8 : 8 + size])["__metadata__"]["session"]
        header = json.loads(session, parse_constant=_reject_constant)
        tensors = safetensors.torch.load(body)
    if not isinstance(header, dict):
        raise ValueError("not a snapshot of a stream: its header is no object")
    return Header(header), tensors


def under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """The tensors whose names begin with a prefix, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


@contextlib.contextmanager
def foreign(what: str, *passed: type[Exception]) -> Iterator[None]:
    """Make whatever goes wrong with values from elsewhere a ValueError, but for the exceptions to be ``passed``."""
    try:
        yield
    except Exception as error:
        if isinstance(error, passed) or (isinstance(error, ValueError) and not isinstance(error, _OF_PARSERS)):
            raise
        raise ValueError(f"not {what}: {type(error).__name__}: {error}") from error


def _refuse(name: str, expected: str, got: Any) -> NoReturn:
    shown = repr(got) if isinstance(got, int | float | None) else f"a {type(got).__name__}"
    raise ValueError(f"saved '{name}' has to be {expected}, got {shown}")


def _reject_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
