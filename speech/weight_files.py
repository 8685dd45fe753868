"""Reads tensors from files that others wrote, without running anything in them and without believing their sizes."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import IO, Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from loquent.speech.json_files import read_json_object


def read_weights(file: Path) -> dict[str, Any]:
    """The content of a safetensors or PyTorch file, told apart by how they begin, or of all shards of an index.

    Args:
        file: of any name; one that ends with `.index.json` names the shards beside it.

    Returns:
        Name -> tensor on the CPU. PyTorch files may also hold plain values, such as numbers and dictionaries.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or unsafe, or of another kind; the message names it.
    """
    if file.name.endswith(".index.json"):
        content: dict[str, Any] = {}
        for shard in shards_of(file):
            content |= read_weights(shard)
        return content
    with file.open("rb") as stream:
        head = stream.read(16)
    if head[8:9] == b"{":
        try:
            return load_file(file)
        except Exception as error:  # SafetensorError, and whatever an unknown type of numbers leads to
            raise ValueError(f"{file} is truncated or not safetensors: {error}") from error
    if head[:4] != b"PK\x03\x04" and head[:2] != b"\x80\x02":
        raise ValueError(f"{file} begins with {head[:8]!r}; expected a PyTorch or safetensors file")
    return read_pytorch(file, str(file))


def shards_of(index: Path) -> list[Path]:
    """The files of weights that an index names; they lie beside it.

    Raises:
        ValueError: it names none, or one that is elsewhere, is not there, or is an index itself.
    """
    weight_map = read_json_object(index).get("weight_map")
    named = weight_map.values() if isinstance(weight_map, dict) else ()
    if not named or not all(isinstance(name, str) for name in named):
        raise ValueError(f"{index} has no weight_map from the names of weights to those of files")
    beside = {entry.name for entry in index.parent.iterdir()}
    for name in sorted(set(named)):
        if name not in beside or name.endswith(".json") or not (index.parent / name).is_file():
            raise ValueError(f"{index} names the shard {name!r}, which is not in its folder or no file of weights")
    return [index.parent / name for name in sorted(set(named))]


def read_pytorch(file: Path | IO[bytes], name: str) -> dict[str, Any]:
    """The dictionary in a PyTorch file; nothing in it is executed.

    Args:
        file: its path, from which it is mapped into memory, or an open file.
        name: what error messages call it.

    Raises:
        ValueError: it is damaged, holds something else than tensors and plain values, or no dictionary.
    """
    mapped = isinstance(file, Path) and zipfile.is_zipfile(file)
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=mapped)
    except pickle.UnpicklingError as error:  # whose text advises to load it all the same
        raise ValueError(f"{name} is refused: it is damaged or holds objects other than tensors") from error
    except Exception as error:  # of any kind, as what is damaged is a program for building objects
        raise ValueError(f"{name} is truncated or not a PyTorch file: {error}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{name} holds a {type(content).__name__}, expected a dictionary of weights by name")
    return content


def check_weight(name: str, weight: Any, shape: Sequence[int] | None = None) -> None:
    """Make sure that a value is a tensor of finite floating-point numbers, of some shape, that the file really stores.

    It takes one pass over the numbers.

    Raises:
        ValueError: it is not.
    """
    if not isinstance(weight, Tensor) or not weight.is_floating_point():
        found = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
        raise ValueError(f"{name} is {found}, expected a tensor of floating-point numbers")
    if shape is not None and weight.shape != tuple(shape):
        raise ValueError(f"{name} has shape {list(weight.shape)}, expected {list(shape)}")
    check_stored(name, weight)
    check_finite(name, weight)


def check_finite(name: str, weight: Tensor) -> None:
    """Make sure that a tensor has no number that is infinite or none.

    Raises:
        ValueError: it has.
    """
    # The extremes take a tenth of the time that asking every number does; one that is none is both of them.
    if weight.is_floating_point() and weight.numel() and not torch.stack(weight.aminmax()).isfinite().all():
        raise ValueError(f"{name} has numbers that are not finite; the file is damaged, or the training diverged")


def check_stored(name: str, weight: Tensor) -> None:
    """Make sure that a tensor is a plain one, with no more numbers than its memory holds.

    Raises:
        ValueError: it is sparse, quantised, without memory, or repeats a few numbers to look large.
    """
    if weight.layout != torch.strided or weight.is_quantized or weight.is_nested or weight.is_meta:
        raise ValueError(f"{name} is no plain tensor; save it dense and not quantised")
    if weight.numel() * weight.element_size() > weight.untyped_storage().nbytes():
        raise ValueError(f"{name} of shape {list(weight.shape)} is larger than what the file stores of it")
