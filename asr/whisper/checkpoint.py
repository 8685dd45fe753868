"""Loads Whisper checkpoints of every kind in use, and saves our own.

Four kinds hold the same weights: OpenAI's `.pt`, Hugging Face folders, CTranslate2 folders (faster-whisper) and ours,
`model.safetensors` with OpenAI's names beside a `config.json`. The kind is told from the content, never from a name.
Nothing in a file is executed: `.pt` and `.bin` files are read with `weights_only=True`.
"""

from __future__ import annotations

import json
import os
import pickle
import shutil
import zipfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from loquent.asr.whisper.config import WhisperConfig
from loquent.asr.whisper.conversion import (
    from_ctranslate2,
    from_hugging_face,
    hugging_face_config,
    weight_shapes,
)
from loquent.asr.whisper.ctranslate2 import is_ctranslate2, read_ctranslate2

SourceFormat = Literal["loquent", "openai", "huggingface", "ctranslate2"]

FORMAT = "loquent.whisper"  # what `format` says in a config.json of ours
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer_config.json",
    "vocab.json",
    "merges.txt",
    "added_tokens.json",
    "vocabulary.json",
    "vocabulary.txt",
)


@dataclass(frozen=True)
class WhisperCheckpoint:
    """A model read from disk.

    Attributes:
        config: dimensions, with alignment heads.
        weights: name -> weight on the CPU, named as in openai/whisper, complete and of the shapes `config` asks for.
            The type is the file's (float32, float16 or bfloat16); quantised weights are dequantised to float32.
        tokenizer_files: those beside the weights; empty for a `.pt`, which has none. `WhisperTokenizer.load` takes
            their folder.
        source_format: what the files were.
    """

    config: WhisperConfig
    weights: dict[str, Tensor]
    tokenizer_files: tuple[Path, ...]
    source_format: SourceFormat


def load_whisper(folder_or_file: str | Path) -> WhisperCheckpoint:
    """Read a Whisper model.

    Args:
        folder_or_file: a model folder, or its weights file; a Hugging Face or own one needs `config.json` beside it.

    Raises:
        FileNotFoundError: there is no such file, the folder has no weights, or a file they need is absent.
        ValueError: a file is truncated, of another model, or unsafe; the message names it, what was found and expected.
    """
    path = Path(folder_or_file).absolute()
    file = _weights_file(path) if path.is_dir() else path
    if not file.is_file():
        raise FileNotFoundError(f"no such file or folder: {file}")
    with file.open("rb") as stream:
        head = stream.read(64)
    try:
        source_format, config, weights = _read(file, head)
        _check_weights(weights, config)
        if not config.alignment_heads:
            config = config.with_known_alignment_heads(file.stem)
    except ValueError as error:
        # Readers of single files name theirs already.
        message = str(error)
        raise ValueError(message if message.startswith(str(file.parent)) else f"{file}: {message}") from error
    tokenizer_files = tuple(file.parent / name for name in TOKENIZER_FILES if (file.parent / name).is_file())
    return WhisperCheckpoint(config, weights, tokenizer_files, source_format)


def save_whisper(
    folder: str | Path, config: WhisperConfig, weights: Mapping[str, Tensor], tokenizer_files: Iterable[Path] = ()
) -> None:
    """Write a model as `model.safetensors` and `config.json`, and copy its tokenizer files next to them.

    Args:
        folder: created if need be; files of the same name are replaced.
        config: dimensions and alignment heads.
        weights: name -> weight in OpenAI's naming, of any floating type and on any device; kept in that type.
        tokenizer_files: what the folder needs to be loaded by itself; those of a `WhisperCheckpoint`, for instance.

    Raises:
        ValueError: the weights are not those of such a model.
    """
    folder = Path(folder)
    _check_weights(weights, config)
    folder.mkdir(parents=True, exist_ok=True)
    # Cloned, because safetensors refuses weights that share memory; renamed, so that no reader sees half a file.
    partial = folder / "model.safetensors.partial"
    save_file({name: weight.detach().cpu().clone().contiguous() for name, weight in weights.items()}, partial)
    os.replace(partial, folder / "model.safetensors")
    description = {"format": FORMAT, "dimensions": config.to_dict()}
    (folder / "config.json").write_text(json.dumps(description, indent=2) + "\n", encoding="utf-8")
    for file in tokenizer_files:
        if file.parent.resolve() != folder.resolve():
            shutil.copyfile(file, folder / file.name)


def _weights_file(folder: Path) -> Path:
    names = (
        "model.safetensors",
        "model.safetensors.index.json",
        "model.bin",
        "pytorch_model.bin",
        "pytorch_model.bin.index.json",
    )
    for name in names:
        if (folder / name).is_file():
            return folder / name
    checkpoints = sorted(folder.glob("*.pt"))
    if len(checkpoints) == 1:
        return checkpoints[0]
    if checkpoints:
        raise ValueError(f"{folder} has {len(checkpoints)} .pt files; name the one to load")
    raise FileNotFoundError(f"{folder} has no weights: expected {', '.join(names)} or a .pt file")


def _read(file: Path, head: bytes) -> tuple[SourceFormat, WhisperConfig, dict[str, Tensor]]:
    """The kind of checkpoint that `file`, beginning with `head`, is; its dimensions and weights."""
    if is_ctranslate2(head):
        return "ctranslate2", *_read_ctranslate2(file)
    content = _read_tensors(file, head)
    if "model_state_dict" in content or "dims" in content:
        return "openai", *_read_openai(content)

    settings = _read_json(file.parent / "config.json")
    if settings.get("format") == FORMAT:
        try:
            return "loquent", WhisperConfig.from_dict(settings["dimensions"]), content
        except (KeyError, TypeError) as error:
            raise ValueError(f"{file.parent / 'config.json'} lacks or misspells a dimension: {error}") from error
    if settings.get("model_type") != "whisper":
        raise ValueError(
            f"{file.parent / 'config.json'} says model_type {settings.get('model_type')!r}, expected 'whisper'"
        )
    try:
        config = hugging_face_config(settings)
    except KeyError as error:
        raise ValueError(f"{file.parent / 'config.json'} lacks {error}") from error
    generation = file.parent / "generation_config.json"
    heads = _read_json(generation).get("alignment_heads") if generation.is_file() else None
    return "huggingface", _with_heads(config, heads), from_hugging_face(content)


def _read_ctranslate2(file: Path) -> tuple[WhisperConfig, dict[str, Tensor]]:
    model = read_ctranslate2(file)
    if model.specification != "WhisperSpec":
        raise ValueError(f"a CTranslate2 model of {model.specification}, expected WhisperSpec")
    config, weights = from_ctranslate2(model.variables)
    settings = file.parent / "config.json"
    heads = _read_json(settings).get("alignment_heads") if settings.is_file() else None
    return _with_heads(config, heads), weights


def _read_openai(content: Mapping[str, Any]) -> tuple[WhisperConfig, dict[str, Tensor]]:
    if not isinstance(content.get("dims"), dict) or not isinstance(content.get("model_state_dict"), dict):
        raise ValueError(
            f"holds {', '.join(map(str, content))}; expected dims and model_state_dict, as OpenAI's files do"
        )
    try:
        return WhisperConfig.from_dict(content["dims"]), dict(content["model_state_dict"])
    except TypeError as error:
        raise ValueError(f"dims lack or misspell a dimension: {error}") from error


def _with_heads(config: WhisperConfig, heads: Iterable[Iterable[int]] | None) -> WhisperConfig:
    return replace(config, alignment_heads=tuple((layer, head) for layer, head in heads or ()))


def _read_tensors(file: Path, head: bytes) -> dict[str, Any]:
    """The content of a safetensors or PyTorch file, or of all the shards that an index names."""
    if file.name.endswith(".index.json"):
        content: dict[str, Any] = {}
        for name in sorted(set(_read_json(file).get("weight_map", {}).values())):
            shard = file.parent / name
            if Path(name).name != name or not shard.is_file():
                raise ValueError(f"{file} names the shard {name!r}, which is not in its folder")
            with shard.open("rb") as stream:
                content |= _read_tensors(shard, stream.read(64))
        return content
    if head[8:9] == b"{":
        try:
            return load_file(file)
        except SafetensorError as error:
            raise ValueError(f"{file} is truncated or not safetensors: {error}") from error
    if head[:4] != b"PK\x03\x04" and head[:2] != b"\x80\x02":
        raise ValueError(f"{file} begins with {head[:8]!r}; expected a PyTorch, safetensors or CTranslate2 model")
    try:
        content = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
    except pickle.UnpicklingError as error:
        raise ValueError(f"{file} is refused: it is damaged or holds objects other than tensors ({error})") from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{file} is truncated or not a PyTorch file: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{file} holds a {type(content).__name__}, expected a dictionary of weights")
    return content


def _check_weights(weights: Mapping[str, Any], config: WhisperConfig) -> None:
    expected = weight_shapes(config)
    missing, unknown = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    if missing:
        raise ValueError(f"{len(missing)} weights are missing, such as {min(missing)}")
    if unknown:
        raise ValueError(f"{len(unknown)} weights are not Whisper's, such as {min(unknown)}")
    for name, shape in expected.items():
        weight = weights[name]
        if not isinstance(weight, Tensor) or not weight.is_floating_point():
            found = weight.dtype if isinstance(weight, Tensor) else type(weight).__name__
            raise ValueError(f"{name} is {found}, expected a tensor of floating-point numbers")
        if weight.shape != shape:
            raise ValueError(f"{name} has shape {list(weight.shape)}, expected {list(shape)}")


def _read_json(file: Path) -> dict[str, Any]:
    try:
        values = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(values, dict):
        raise ValueError(f"{file} holds a {type(values).__name__}, expected an object")
    return values
