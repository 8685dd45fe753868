"""Low-rank adapters of Whisper in the format of PEFT: read, check, merge, write.

A folder holds `adapter_config.json` and `adapter_model.safetensors` (or `.bin`), whose names are those of our modules
(`base_model.model.encoder.blocks.0.attn.query.lora_A.weight`) or of `transformers`' Whisper
(`base_model.model.model.encoder.layers.0.self_attn.q_proj.lora_A.weight`). An entry "loquent" of the configuration's
`auto_mapping`, which PEFT leaves alone, says what PEFT has no words for: the model the adapter was trained on, its
language, the chunk sizes it was trained to stream with. Sources: Hu et al. 2021 (arXiv 2106.09685); rank-stabilised
scales: arXiv 2312.03732; magnitudes (DoRA): Liu et al. 2024 (arXiv 2402.09353).
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
from safetensors.torch import save_file
from torch import Tensor, nn

from loquent.asr.whisper.conversion import rename_hugging_face
from loquent.asr.whisper.layer_patterns import LayerPatterns
from loquent.asr.whisper.model import Whisper
from loquent.speech.hub import resolve_adapter
from loquent.speech.json_files import read_json_object
from loquent.speech.weight_files import check_weight, read_weights

CONFIG, WEIGHTS, PICKLED = "adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"
LARGEST_RANK = 2**12  # full rank for any Whisper is 1280
MOST_LAYERS = 2**12
LARGEST_ALPHA = 2**20
LONGEST_NAME = 128  # characters of a layer's name


@dataclass(frozen=True)
class AdapterInfo:
    """What an adapter is for.

    base:        name of the model that it was trained on.
    base_digest: of that model, see `base_digest`; a model that has another one is refused.
    language:    code; streams that name no language take it.
    chunk_ms:    chunk sizes that it was trained to stream with, by the policy "incremental"; empty for an adapter of
                 the model as it is, whose encoder sees whole windows.
    block_ms:    audio whose frames the encoder of such streams sees together; None leaves it to `StreamingOptions`.
    """

    base: str | None = None
    base_digest: str | None = None
    language: str | None = None
    chunk_ms: tuple[int, ...] = ()
    block_ms: int | None = None


@dataclass(frozen=True)
class LoraFactors:
    """What is added to one layer's weight (M, K): ``scale`` · ``b`` (M, R) · ``a`` (R, K).

    magnitude: (M,), of DoRA: each row of the sum is then scaled to this length.
    """

    a: Tensor
    b: Tensor
    scale: float
    magnitude: Tensor | None = None

    @property
    def delta(self) -> Tensor:
        """The product, (M, K)."""
        return self.scale * (self.b @ self.a)

    def applied(self, weight: Tensor) -> Tensor:
        """A layer's weight (M, K) with the adapter merged into it, in the weight's precision."""
        if self.magnitude is None:
            return weight + self.delta.to(weight)
        total = weight.float() + self.delta.to(weight.device)
        length = torch.linalg.vector_norm(total, dim=1)
        return (total * (self.magnitude.to(weight.device) / length)[:, None]).to(weight)


@dataclass(frozen=True)
class LoraAdapter:
    """Factors by the name of the layer in our `Whisper` ("encoder.blocks.0.attn.query"), float32 on the CPU."""

    factors: Mapping[str, LoraFactors]
    info: AdapterInfo = field(default_factory=AdapterInfo)

    @property
    def rank(self) -> int:
        """The largest of any layer."""
        return max(len(one.a) for one in self.factors.values())

    @property
    def scales_weights(self) -> bool:
        """Whether it is a DoRA: it can be merged, but is no product to be added to the outputs of a layer."""
        return any(one.magnitude is not None for one in self.factors.values())

    @cached_property
    def digest(self) -> str:
        """Differs between adapters that do something else."""
        digest = hashlib.sha256()
        for name, one in sorted(self.factors.items()):
            digest.update(name.encode() + np.float32(one.scale).tobytes())
            for factor in (one.a, one.b, *(() if one.magnitude is None else (one.magnitude,))):
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
    file = next((folder / name for name in (WEIGHTS, PICKLED) if (folder / name).is_file()), None)
    if file is None:
        raise ValueError(f"{folder} has neither {WEIGHTS} nor {PICKLED}; save the adapter with PEFT's save_pretrained")
    tensors = read_weights(file)
    try:
        return adapter_of(tensors, settings, _info(settings))
    except ValueError as error:
        raise ValueError(f"{folder}: {error}") from error


def adapter_of(tensors: Mapping[str, Tensor], settings: Mapping[str, Any], info: AdapterInfo) -> LoraAdapter:
    """An adapter out of PEFT's parts.

    Args:
        tensors: by the names that they have in `adapter_model.safetensors`, on the CPU.
        settings: those of `adapter_config.json`.
        info: what it is for.

    Raises:
        ValueError: the tensors are not low-rank factors of linear layers.
    """
    return LoraAdapter(_factors(tensors, settings), info)


def save_adapter(folder: str | Path, adapter: LoraAdapter) -> None:
    """Write an adapter as PEFT does, so that PEFT puts it on our `Whisper`, and we on any model that it fits.

    Raises:
        ValueError: it is a DoRA of only some of its layers, for which PEFT has no words.
    """
    if adapter.scales_weights and any(one.magnitude is None for one in adapter.factors.values()):
        raise ValueError("some layers of the adapter have magnitudes (DoRA) and others none; PEFT has no such adapters")
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
        "use_dora": adapter.scales_weights,
        "use_rslora": False,
    }
    tensors = {}
    for name, one in adapter.factors.items():
        tensors[f"base_model.model.{name}.lora_A.weight"] = one.a.contiguous()
        tensors[f"base_model.model.{name}.lora_B.weight"] = one.b.contiguous()
        if one.magnitude is not None:
            tensors[f"base_model.model.{name}.lora_magnitude_vector"] = one.magnitude.contiguous()
    partial = folder / f"{WEIGHTS}.partial"  # renamed, so that no reader sees half a file
    save_file(tensors, partial, {"format": "pt"})
    os.replace(partial, folder / WEIGHTS)
    _write_settings(folder / CONFIG, _with_info(settings, adapter.info))


def write_info(folder: str | Path, info: AdapterInfo) -> None:
    """Say in the configuration of an adapter that PEFT has written what it is for.

    Raises:
        ValueError: the folder has no configuration of a low-rank adapter.
    """
    file = Path(folder) / CONFIG
    if not file.is_file():
        raise ValueError(f"no {CONFIG} in {os.fspath(folder)}; save the adapter there with PEFT first")
    _write_settings(file, _with_info(_read_settings(file), info))


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
        ValueError: it does not fit the model, or it is a DoRA and others are merged already.
    """
    check_adapter(adapter, model)
    if adapter.scales_weights and model.merged:
        raise ValueError(
            "a DoRA adapter scales the model's own weights, but others are merged into them; unmerge those"
        )
    for name, factors in adapter.factors.items():
        layer = adapted_layer(adapter, name, model)
        _set_weight(layer, factors.applied(layer.weight.detach()))
    model.merged = (*model.merged, adapter.digest)


def unmerge(model: Whisper, adapter: LoraAdapter) -> None:
    """Take a merged adapter out of the weights, which are then what they were but for rounding.

    Raises:
        ValueError: it is not merged, or it is a DoRA, which does not keep the lengths of the weights' rows.
    """
    if adapter.scales_weights:
        raise ValueError("a DoRA adapter cannot be taken out of the weights; load the model again")
    if adapter.digest not in model.merged:
        raise ValueError("the adapter is not merged into this model")
    for name, factors in adapter.factors.items():
        layer = adapted_layer(adapter, name, model)
        _set_weight(layer, layer.weight.detach() - factors.delta.to(layer.weight))
    merged = list(model.merged)
    merged.remove(adapter.digest)
    model.merged = tuple(merged)


def _set_weight(layer: nn.Linear, weight: Tensor) -> None:
    layer.weight = nn.Parameter(weight, requires_grad=layer.weight.requires_grad)  # the old tensor may be shared


def _whole(value: float) -> float | int:
    return round(value) if math.isclose(value, round(value), rel_tol=1e-6) else value


def _with_info(settings: Mapping[str, Any], info: AdapterInfo) -> dict[str, Any]:
    """Add it to `auto_mapping`, the one free-form entry of PEFT, where `AutoPeftModel` finds the model's class."""
    mapping = settings.get("auto_mapping") or {"base_model_class": "Whisper", "parent_library": Whisper.__module__}
    return {**settings, "auto_mapping": {**mapping, "loquent": asdict(info)}}


def _write_settings(file: Path, settings: Mapping[str, Any]) -> None:
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def _read_settings(file: Path) -> dict[str, Any]:
    settings = read_json_object(file)
    if settings.get("peft_type") != "LORA":
        raise ValueError(f"{file} says peft_type {settings.get('peft_type')!r}; only 'LORA' is supported")
    for name in ("lora_bias", "fan_in_fan_out", "use_qalora", *_CHANGES_MORE):
        if settings.get(name):
            raise ValueError(f"{file} says {name} = {json.dumps(settings[name])[:80]}, which is not supported")
    if settings.get("bias") not in (None, "none"):
        raise ValueError(f"{file} says bias = {settings['bias']!r}; only 'none' is supported")
    start = settings.get("init_lora_weights", True)
    if start is not None and not isinstance(start, bool) and start not in _STARTS:
        raise ValueError(
            f"{file} says init_lora_weights = {json.dumps(start)[:80]}; only true, false, {', '.join(_STARTS)} are "
            "known to leave the model's own weights as they are. Convert the adapter with PEFT's "
            "path_initial_model_for_weight_conversion"
        )
    return settings


# Not pissa, olora, corda, lora_ga, loftq: they take something from the model's weights, which the adapter gives back.
_STARTS = ("gaussian", "eva", "orthogonal", "mica")
_CHANGES_MORE = (
    "modules_to_save",
    "trainable_token_indices",
    "target_parameters",
    "layer_replication",
    "alora_invocation_tokens",
    "use_bdlora",
    "arrow_config",
    "velora_config",
    "monteclora_config",
    "kasa_config",
)


def _info(settings: Mapping[str, Any]) -> AdapterInfo:
    mapping = settings.get("auto_mapping") or {}
    if not isinstance(mapping, dict):
        raise ValueError(f"the entry 'auto_mapping' of {CONFIG} is a {type(mapping).__name__}, expected an object")
    told = mapping.get("loquent", settings.get("loquent", {}))  # first versions: outside
    try:
        info = AdapterInfo(**{"base": settings.get("base_model_name_or_path"), **told})
        chunks = tuple(info.chunk_ms)
    except TypeError as error:
        raise ValueError(f"the entry 'loquent' of {CONFIG} is not one of an adapter: {error}") from error
    texts = (info.base, info.base_digest, info.language)
    sizes = chunks if info.block_ms is None else (*chunks, info.block_ms)
    if not all(type(size) is int and size > 0 for size in sizes) or not all(
        text is None or isinstance(text, str) for text in texts
    ):
        raise ValueError(f"the entry 'loquent' of {CONFIG} is not one of an adapter: {told!r}")
    return AdapterInfo(*texts, chunks, info.block_ms)


def _factors(tensors: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, LoraFactors]:
    layers: dict[str, dict[str, Tensor]] = {}
    for key, tensor in tensors.items():
        check_weight(key, tensor)
        parts = re.fullmatch(r"base_model\.model\.([\w.]+)\.lora_(?:([AB])\.weight|magnitude_vector)", key)
        if parts is None or len(parts[1]) > LONGEST_NAME or tensor.ndim != (2 if parts[2] else 1):
            raise ValueError(
                f"{key} of shape {list(tensor.shape)} is not supported; expected base_model.model.….lora_A.weight and "
                "….lora_B.weight of linear layers"
            )
        layers.setdefault(parts[1], {})[parts[2] or "magnitude"] = tensor.float()
    if not 1 <= len(layers) <= MOST_LAYERS:
        raise ValueError(f"the adapter changes {len(layers)} layers, expected from 1 to {MOST_LAYERS}")
    dora, scales = bool(settings.get("use_dora")), _Scales(settings)
    factors: dict[str, LoraFactors] = {}
    for name, found in layers.items():
        if found.keys() != {"A", "B", *(["magnitude"] if dora else ())} or not _fit(**found):
            shapes = {letter: list(tensor.shape) for letter, tensor in found.items()}
            wanted = ", and magnitude (out,)" if dora else ""
            raise ValueError(f"{name} has {shapes}; expected A (r, in) and B (out, r){wanted}")
        ours = rename_hugging_face(f"{name}.").removesuffix(".")
        if ours in factors:
            raise ValueError(f"the adapter changes {ours!r} twice, under names of two kinds")
        factors[ours] = LoraFactors(found["A"], found["B"], scales.of(name, len(found["A"])), found.get("magnitude"))
    return factors


def _fit(A: Tensor, B: Tensor, magnitude: Tensor | None = None) -> bool:
    return A.shape[0] == B.shape[1] and (magnitude is None or len(magnitude) == len(B))


class _Scales:
    """What PEFT multiplies each layer's product by; patterns are matched as PEFT does."""

    def __init__(self, settings: Mapping[str, Any]) -> None:
        self.rank_stabilised = bool(settings.get("use_rslora"))
        self.alpha = _number("lora_alpha", settings.get("lora_alpha"))
        self.alphas = _by_pattern("alpha_pattern", settings)
        self.rank = None if settings.get("r") is None else _rank("r", settings["r"])
        ranks = _by_pattern("rank_pattern", settings)
        self.ranks = {key: _rank(f"rank_pattern[{key!r}]", one) for key, one in ranks.items()}
        self.alpha_patterns, self.rank_patterns = LayerPatterns(self.alphas), LayerPatterns(self.ranks)

    def of(self, name: str, rank: int) -> float:
        """The scale of a layer whose factors have this rank."""
        pattern = self.rank_patterns.find(name)
        expected = self.rank if pattern is None else self.ranks[pattern]
        if expected not in (None, rank):
            raise ValueError(f"{name} has rank {rank}, but {CONFIG} says {expected}; they are of different adapters")
        pattern = self.alpha_patterns.find(name)
        alpha = self.alpha if pattern is None else self.alphas[pattern]
        return alpha / (math.sqrt(rank) if self.rank_stabilised else rank)


def _by_pattern(name: str, settings: Mapping[str, Any]) -> dict[str, float]:
    values = settings.get(name) or {}
    if not isinstance(values, dict):
        raise ValueError(f"{name} is a {type(values).__name__}, expected numbers by pattern")
    return {key: _number(f"{name}[{key!r}]", value) for key, value in values.items()}


def _number(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) <= LARGEST_ALPHA:
        raise ValueError(f"{name} is {str(value)[:40]!r}, expected a number of up to {LARGEST_ALPHA}")
    return value


def _rank(name: str, value: Any) -> int:
    if type(value) is not int or not 1 <= value <= LARGEST_RANK:
        raise ValueError(f"{name} is {str(value)[:40]!r}, expected a rank from 1 to {LARGEST_RANK}")
    return value
