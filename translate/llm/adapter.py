"""Low-rank adapters of language models in the format of PEFT, added to the weights when a model is loaded.

Source: Hu et al. 2021 (arXiv 2106.09685); rank-stabilised scales: arXiv 2312.03732.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loquent.speech.json_files import read_json_object
from loquent.speech.weight_files import check_weight, read_weights

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_NAME = re.compile(r"base_model\.model\.([\w.]{1,128})\.lora_([AB])\.weight")
_CHANGES_MORE = ("use_dora", "lora_bias", "fan_in_fan_out", "modules_to_save", "rank_pattern", "alpha_pattern")


def base_of(folder: Path) -> Path:
    """The model that an adapter was trained on: a folder or file, relative to the adapter or not.

    Raises:
        FileNotFoundError: it is not there.
        ValueError: the adapter does not name it.
    """
    named = _settings(folder).get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise ValueError(f"{folder / CONFIG} does not name the model that the adapter is for")
    base = folder / named
    if not base.exists():
        raise FileNotFoundError(f"{folder / CONFIG} names the model {named!r}, which is not there")
    return base


def merge_adapter(weights: dict[str, Any], folder: Path) -> None:
    """Add an adapter to weights under Hugging Face's names: W + alpha / r · B A.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: the adapter is damaged, changes more than linear layers, or does not fit the weights.
    """
    settings = _settings(folder)
    for name in _CHANGES_MORE:
        if settings.get(name):
            raise ValueError(f"{folder / CONFIG} says {name}, which is not supported here; merge the adapter with PEFT")
    rank, alpha = settings.get("r"), settings.get("lora_alpha")
    if type(rank) is not int or rank < 1 or isinstance(alpha, bool) or not isinstance(alpha, int | float):
        raise ValueError(f"{folder / CONFIG} has r {rank!r} and lora_alpha {alpha!r}, expected numbers")
    scale = alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
    factors: dict[str, dict[str, Tensor]] = {}
    for key, tensor in read_weights(folder / WEIGHTS).items():
        parts = _NAME.fullmatch(key)
        if parts is None:
            raise ValueError(f"{folder / WEIGHTS}: {key[:160]!r} is no factor of a linear layer")
        check_weight(key, tensor)
        factors.setdefault(parts[1], {})[parts[2]] = tensor.float()
    for layer, found in factors.items():
        weight = weights.get(f"{layer}.weight")
        a, b = found.get("A"), found.get("B")
        fits = isinstance(weight, Tensor) and a is not None and b is not None and a.shape[0] == rank == b.shape[-1]
        if weight is None or a is None or b is None or not fits or weight.shape != (b.shape[0], a.shape[-1]):
            raise ValueError(f"{folder / WEIGHTS} does not fit the model at {layer!r}")
        weights[f"{layer}.weight"] = torch.addmm(weight.float(), b, a, alpha=scale).to(weight.dtype)


def _settings(folder: Path) -> dict[str, Any]:
    settings = read_json_object(folder / CONFIG)
    if settings.get("peft_type") != "LORA":
        raise ValueError(f"{folder / CONFIG} says peft_type {settings.get('peft_type')!r}; only 'LORA' is supported")
    return settings
