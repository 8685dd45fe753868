"""Loads Whisper checkpoints of every kind in use, and saves our own.

Four kinds hold the same weights: OpenAI's `.pt`, Hugging Face folders, CTranslate2 folders (faster-whisper) and ours,
`model.safetensors` with OpenAI's names beside a `config.json`. The kind is told from the content, never from a name.
Nothing in a file is executed: `.pt` and `.bin` files are read with `weights_only=True`.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from safetensors.torch import save_file
from torch import Tensor

from loquent.asr.whisper.config import WhisperConfig, head_pairs
from loquent.asr.whisper.conversion import (
    from_ctranslate2,
    from_hugging_face,
    hugging_face_config,
    weight_shapes,
)
from loquent.asr.whisper.ctranslate2 import is_ctranslate2, read_ctranslate2
from loquent.speech.json_files import read_json_object
from loquent.speech.weight_files import check_weight, read_weights, shards_of

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
    # A PyTorch file may bring its own dimensions; for others those of config.json are checked before anything is read.
    indexed = file.name.endswith(".index.json") and bool(shards_of(file))
    content = None if head[8:9] == b"{" or indexed else read_weights(file)
    if content is not None and ("model_state_dict" in content or "dims" in content):
        return "openai", *_read_openai(content)
    source_format, config = _read_config(file.parent)
    weights = read_weights(file) if content is None else content
    return source_format, config, weights if source_format == "loquent" else from_hugging_face(weights)


def _read_config(folder: Path) -> tuple[SourceFormat, WhisperConfig]:
    file = folder / "config.json"
    settings = read_json_object(file)
    try:
        if settings.get("format") == FORMAT:
            return "loquent", WhisperConfig.from_dict(settings["dimensions"])
        if settings.get("model_type") != "whisper":
            raise ValueError(f"says model_type {settings.get('model_type')!r}, expected 'whisper'")
        config = hugging_face_config(settings)
    except KeyError as error:
        raise ValueError(f"{file} lacks {error}") from error
    except TypeError as error:
        raise ValueError(f"{file} lacks or misspells a dimension: {error}") from error
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    generation = folder / "generation_config.json"
    heads = read_json_object(generation).get("alignment_heads") if generation.is_file() else None
    return "huggingface", _with_heads(config, heads)


def _read_ctranslate2(file: Path) -> tuple[WhisperConfig, dict[str, Tensor]]:
    model = read_ctranslate2(file)
    if model.specification != "WhisperSpec":
        raise ValueError(f"a CTranslate2 model of {model.specification}, expected WhisperSpec")
    config, weights = from_ctranslate2(model.variables)
    settings = file.parent / "config.json"
    heads = read_json_object(settings).get("alignment_heads") if settings.is_file() else None
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


def _with_heads(config: WhisperConfig, heads: Any) -> WhisperConfig:
    """The configuration with those of the heads that its decoder has: a distilled one comes with its teacher's."""
    pairs = dict.fromkeys(head_pairs(heads))
    return replace(config, alignment_heads=tuple(pair for pair in pairs if config.has_head(*pair)))


def _check_weights(weights: Mapping[str, Any], config: WhisperConfig) -> None:
    expected = weight_shapes(config)
    missing, unknown = expected.keys() - weights.keys(), weights.keys() - expected.keys()
    if missing:
        raise ValueError(f"{len(missing)} weights are missing, such as {min(missing)}")
    if unknown:
        raise ValueError(f"{len(unknown)} weights are not Whisper's, such as {min(unknown)}")
    for name, shape in expected.items():
        check_weight(name, weights[name], shape)
