"""Low-rank adapters of Whisper in the format of PEFT: read, check, merge, write.

A folder holds `adapter_config.json` and `adapter_model.safetensors`, whose names are those of our modules
(`base_model.model.encoder.blocks.0.attn.query.lora_A.weight`) or of `transformers`' Whisper
(`base_model.model.model.encoder.layers.0.self_attn.q_proj.lora_A.weight`). An entry "loquent" in the configuration says
what PEFT has no words for: the model the adapter was trained on, its language, the chunk sizes it was trained to stream
with. Source: Hu et al. 2021 (arXiv 2106.09685); the scale of rank-stabilised adapters as in arXiv 2312.03732.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from loquent.asr.whisper.conversion import rename_hugging_face
from loquent.asr.whisper.model import Whisper
from loquent.speech.hub import resolve_adapter

CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"


@dataclass(frozen=True)
class AdapterInfo:
    """What an adapter is for.

    base:        name of the model that it was trained on.
    base_digest: of that model, see `base_digest`; a model that has another one is refused.
    language:    code; streams that name no language take it.
    chunk_ms:    chunk sizes that it was trained to stream with, by the policy "incremental"; empty for an adapter of
                 the model as it is, whose encoder sees whole windows.
    """

    base: str | None = None
    base_digest: str | None = None
    language: str | None = None
    chunk_ms: tuple[int, ...] = ()


@dataclass(frozen=True)
class LoraFactors:
    """What is added to one layer's weight (M, K): ``scale`` · ``b`` (M, R) · ``a`` (R, K)."""

    a: Tensor
    b: Tensor
    scale: float

    @property
    def delta(self) -> Tensor:
        """The product, (M, K)."""
        return self.scale * (self.b @ self.a)


@dataclass(frozen=True)
class LoraAdapter:
    """Factors by the name of the layer in our `Whisper` ("encoder.blocks.0.attn.query"), float32 on the CPU."""

    factors: Mapping[str, LoraFactors]
    info: AdapterInfo = field(default_factory=AdapterInfo)

    @property
    def rank(self) -> int:
        """The largest of any layer."""
        return max(len(one.a) for one in self.factors.values())

    @cached_property
    def digest(self) -> str:
        """Differs between adapters that do something else."""
        digest = hashlib.sha256()
        for name, one in sorted(self.factors.items()):
            digest.update(name.encode() + np.float32(one.scale).tobytes())
            for factor in (one.a, one.b):
                digest.update(factor.contiguous().numpy().tobytes())
        return digest.hexdigest()


def adapter_info(name_or_path: str | os.PathLike[str]) -> AdapterInfo:
    """What an adapter is for, without reading its weights; errors are those of `load_adapter`."""
    folder = resolve_adapter(name_or_path)
    try:
        return _info(_read_settings(folder / CONFIG))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def load_adapter(name_or_path: str | os.PathLike[str]) -> LoraAdapter:
    """Read an adapter from a folder or the Hugging Face hub.

    Raises:
        CheckpointError: there is none of that name.
        ValueError: a file is damaged, or the adapter is of a kind that is not supported; the message names it.
    """
    folder = resolve_adapter(name_or_path)
    settings = _read_settings(folder / CONFIG)
    if not (folder / WEIGHTS).is_file():
        raise ValueError(f"{folder} has no {WEIGHTS}; save the adapter with PEFT's safe_serialization=True")
    try:
        tensors = load_file(folder / WEIGHTS)
    except SafetensorError as error:
        raise ValueError(f"{folder / WEIGHTS} is truncated or not safetensors: {error}") from error
    try:
        return LoraAdapter(_factors(tensors, settings), _info(settings))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def save_adapter(folder: str | Path, adapter: LoraAdapter) -> None:
    """Write an adapter as PEFT does, so that PEFT puts it on our `Whisper`, and we on any model that it fits."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    ranks = {name: len(one.a) for name, one in adapter.factors.items()}
    alphas = {name: _whole(one.scale * ranks[name]) for name, one in adapter.factors.items()}
    rank, alpha = (Counter(values.values()).most_common(1)[0][0] for values in (ranks, alphas))
    settings = {
        "peft_type": "LORA",
        "base_model_name_or_path": adapter.info.base,
        "r": rank,
        "lora_alpha": alpha,
        "rank_pattern": {name: value for name, value in ranks.items() if value != rank},
        "alpha_pattern": {name: value for name, value in alphas.items() if value != alpha},
        "target_modules": sorted(adapter.factors),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "lora_dropout": 0.0,
        "modules_to_save": None,
        "task_type": None,
        "use_dora": False,
        "use_rslora": False,
        "loquent": asdict(adapter.info),
    }
    tensors = {}
    for name, one in adapter.factors.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = one.a.contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = one.b.contiguous()
    partial = folder / f"{WEIGHTS}.partial"  # renamed, so that no reader sees half a file
    save_file(tensors, partial, {"format": "pt"})
    os.replace(partial, folder / WEIGHTS)
    (folder / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def check_adapter(adapter: LoraAdapter, model: Whisper) -> None:
    """Make sure that an adapter fits a model.

    Raises:
        ValueError: it changes layers that the model lacks or that have another size, or was trained on another model.
    """
    made_for = f"; it was made for {adapter.info.base}" if adapter.info.base else ""
    for name in adapter.factors:
        adapted_layer(adapter, name, model, made_for)
    if adapter.info.base_digest not in (None, base_digest(model)):
        raise ValueError(f"the adapter was trained on another model of the same size than this one{made_for}")


def adapted_layer(adapter: LoraAdapter, name: str, model: Whisper, made_for: str = "") -> nn.Linear:
    """The layer of a model that an adapter changes under this name; errors are those of `check_adapter`."""
    try:
        layer = model.get_submodule(name)
    except AttributeError:
        raise ValueError(f"the adapter changes {name!r}, which this model does not have{made_for}") from None
    if not isinstance(layer, nn.Linear):
        raise ValueError(f"the adapter changes {name!r}, a {type(layer).__name__}; expected a linear layer{made_for}")
    factors = adapter.factors[name]
    found, expected = (len(factors.b), factors.a.shape[1]), tuple(layer.weight.shape)
    if found != expected:
        raise ValueError(f"the adapter changes {name!r} of shape {list(found)}; here it is {list(expected)}{made_for}")
    return layer


def base_digest(model: Whisper) -> str:
    """Tells models apart, and not copies of one that are stored in single, half or (Whisper's own) mixed precision."""
    digest = hashlib.sha256()
    for weight in (model.encoder.ln_post.weight, model.decoder.ln.weight):
        digest.update(weight.detach().half().cpu().numpy().tobytes())
    return digest.hexdigest()


def merge(model: Whisper, adapter: LoraAdapter) -> None:
    """Add an adapter to the weights: every user of the model then has it, at no cost.

    Raises:
        ValueError: it does not fit the model.
    """
    _add(model, adapter, 1.0)
    model.merged = (*model.merged, adapter.digest)


def unmerge(model: Whisper, adapter: LoraAdapter) -> None:
    """Take a merged adapter out of the weights, which are then what they were but for rounding.

    Raises:
        ValueError: it is not merged.
    """
    if adapter.digest not in model.merged:
        raise ValueError("the adapter is not merged into this model")
    _add(model, adapter, -1.0)
    merged = list(model.merged)
    merged.remove(adapter.digest)
    model.merged = tuple(merged)


def _add(model: Whisper, adapter: LoraAdapter, sign: float) -> None:
    check_adapter(adapter, model)
    for name, factors in adapter.factors.items():
        layer = adapted_layer(adapter, name, model)
        weight = layer.weight.detach() + sign * factors.delta.to(layer.weight)
        layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)  # the tensor may be shared


def _whole(value: float) -> float | int:
    return round(value) if math.isclose(value, round(value), rel_tol=1e-6) else value


def _read_settings(file: Path) -> dict[str, Any]:
    try:
        settings = json.loads(file.read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file} is not JSON: {error}") from error
    if not isinstance(settings, dict):
        raise ValueError(f"{file} holds a {type(settings).__name__}, expected an object")
    if settings.get("peft_type") != "LORA":
        raise ValueError(f"{file} says peft_type {settings.get('peft_type')!r}; only 'LORA' is supported")
    for name in ("use_dora", "lora_bias", "fan_in_fan_out", "use_qalora", *_CHANGES_MORE):
        if settings.get(name):
            raise ValueError(f"{file} says {name} = {json.dumps(settings[name])[:80]}, which is not supported")
    if settings.get("bias") not in (None, "none"):
        raise ValueError(f"{file} says bias = {settings['bias']!r}; only 'none' is supported")
    start = settings.get("init_lora_weights")
    if isinstance(start, str) and start.lower().startswith(("pissa", "olora", "corda", "loftq")):
        raise ValueError(
            f"{file} says init_lora_weights = {start!r}, which changes the model's own weights; convert the adapter "
            "with PEFT's path_initial_model_for_weight_conversion"
        )
    return settings


_CHANGES_MORE = (
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
)


def _info(settings: Mapping[str, Any]) -> AdapterInfo:
    told = settings.get("loquent", {})
    try:
        info = AdapterInfo(**{"base": settings.get("base_model_name_or_path"), **told})
        chunks = tuple(info.chunk_ms)
    except TypeError as error:
        raise ValueError(f"the entry 'loquent' of {CONFIG} is not one of an adapter: {error}") from error
    texts = (info.base, info.base_digest, info.language)
    if not all(isinstance(chunk, int) and chunk > 0 for chunk in chunks) or not all(
        text is None or isinstance(text, str) for text in texts
    ):
        raise ValueError(f"the entry 'loquent' of {CONFIG} is not one of an adapter: {told!r}")
    return AdapterInfo(*texts, chunks)


def _factors(tensors: Mapping[str, Tensor], settings: Mapping[str, Any]) -> dict[str, LoraFactors]:
    pairs: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        parts = re.fullmatch(r"base_model\.model\.(.+)\.lora_([AB])\.weight", key)
        if parts is None or tensor.ndim != 2:
            raise ValueError(
                f"{key} of shape {list(tensor.shape)} is not supported; expected base_model.model.….lora_A.weight and "
                "….lora_B.weight of linear layers"
            )
        pairs.setdefault(parts[1], {})[parts[2]] = tensor.float()
    if not pairs:
        raise ValueError(f"{WEIGHTS} is empty")
    factors = {}
    for name, pair in pairs.items():
        if pair.keys() != {"A", "B"} or pair["A"].shape[0] != pair["B"].shape[1]:
            shapes = {f"lora_{letter}": list(tensor.shape) for letter, tensor in pair.items()}
            raise ValueError(f"{name} has {shapes}; expected lora_A (r, in) and lora_B (out, r)")
        if not all(bool(torch.isfinite(tensor).all()) for tensor in pair.values()):
            raise ValueError(f"{name} has numbers that are not finite")
        rank = len(pair["A"])
        ours = rename_hugging_face(f"{name}.").removesuffix(".")
        factors[ours] = LoraFactors(pair["A"], pair["B"], _scale(name, rank, settings))
    return factors


def _scale(name: str, rank: int, settings: Mapping[str, Any]) -> float:
    """What PEFT multiplies a layer's product by; patterns are matched as PEFT does."""
    patterns: Mapping[str, float] = settings.get("alpha_pattern") or {}
    alpha = next((patterns[key] for key in patterns if re.match(rf"(.*\.)?({key})$", name)), None)
    alpha = settings.get("lora_alpha") if alpha is None else alpha
    if not isinstance(alpha, int | float):
        raise ValueError(f"lora_alpha is {alpha!r}, expected a number")
    return alpha / (math.sqrt(rank) if settings.get("use_rslora") else rank)
