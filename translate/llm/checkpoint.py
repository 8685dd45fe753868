"""Loads language models: folders in Hugging Face's format, GGUF files, and adapters on either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer
from torch import Tensor

from loquent.speech.json_files import read_json_object
from loquent.speech.lm.decoder_config import DecoderConfig
from loquent.speech.lm.language_model import LanguageModel
from loquent.speech.weight_files import read_weights
from loquent.translate.llm.adapter import CONFIG as ADAPTER_CONFIG
from loquent.translate.llm.adapter import base_of, merge_adapter
from loquent.translate.llm.gguf_model import read_gguf
from loquent.translate.llm.settings import ENTRY, LanguageModelSettings, chat_settings

WEIGHTS = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")


def read_llm(
    path: Path, settings: LanguageModelSettings | None, source: str | None, target: str | None, dtype: torch.dtype
) -> tuple[LanguageModel, Tokenizer, LanguageModelSettings]:
    """A language model on the CPU, its tokenizer, and how it is asked; see `loquent.translate.llm.model.load_llm`."""
    folder, adapter = path, None
    if (folder / ADAPTER_CONFIG).is_file():
        folder, adapter = base_of(folder), folder
    config, weights, tokenizer = _read(folder)
    if adapter is not None:
        merge_adapter(weights, adapter)
    found = _entry(path)
    if settings is None and found is not None:
        settings = LanguageModelSettings.parse(found)
    if settings is None:
        if source is None or target is None:
            raise ValueError(f"{folder} does not say how to translate with it; give source and target, or settings")
        settings = chat_settings(tokenizer.get_vocab(with_added_tokens=True), source, target)
    return LanguageModel.from_weights(config, weights, dtype), tokenizer, settings


def owns(path: Path) -> bool:
    """Whether a folder says how to translate with its language model."""
    try:
        return _entry(path) is not None
    except (OSError, ValueError):
        return False


def _entry(path: Path) -> dict[str, Any] | None:
    if not (path / "config.json").is_file():
        return None
    found = read_json_object(path / "config.json").get(ENTRY)
    if found is not None and not isinstance(found, dict):
        raise ValueError(f"{path / 'config.json'}: {ENTRY} is a {type(found).__name__}, expected an object")
    return found


def _read(path: Path) -> tuple[DecoderConfig, dict[str, Tensor], Tokenizer]:
    """Shape, weights and tokenizer of a folder or a GGUF file."""
    if path.is_file():
        return _read_gguf(path)
    weights = (_entry(path) or {}).get("weights")
    if weights is not None:
        if not isinstance(weights, str) or Path(weights).name != weights:
            raise ValueError(f"{ENTRY}.weights is {str(weights)[:80]!r}, expected the name of a file in the folder")
        return _read_gguf(path / weights)
    config = DecoderConfig.from_hugging_face(read_json_object(path / "config.json"))
    file = next((path / name for name in WEIGHTS if (path / name).is_file()), None)
    if file is None:
        raise FileNotFoundError(f"{path} has none of {', '.join(WEIGHTS)}")
    return config, read_weights(file), _read_tokenizer(path / "tokenizer.json")


def _read_gguf(file: Path) -> tuple[DecoderConfig, dict[str, Tensor], Tokenizer]:
    beside = file.with_name("tokenizer.json")
    return read_gguf(file, _read_tokenizer(beside) if beside.is_file() else None)


def _read_tokenizer(file: Path) -> Tokenizer:
    content = file.read_text(encoding="utf-8")
    try:
        return Tokenizer.from_str(content)
    except Exception as error:  # of no class of its own
        raise ValueError(f"{file} is not a tokenizer: {error}") from error
