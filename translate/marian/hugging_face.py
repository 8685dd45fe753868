"""Models as Hugging Face's MarianMT keeps them: ``config.json`` and weights by that library's names."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loquent.speech.json_files import read_json_object
from loquent.speech.weight_files import read_weights
from loquent.translate.marian.config import Activation, MarianConfig

MODEL_TYPE = "marian"
WEIGHT_FILES = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
)
ACTIVATIONS: dict[Any, Activation] = {"relu": "relu", "swish": "swish", "silu": "swish", "gelu": "gelu"}
ATTENTION = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}


def is_hugging_face(folder: Path) -> bool:
    """Whether a folder holds a MarianMT model."""
    try:
        return read_json_object(folder / "config.json").get("model_type") == MODEL_TYPE
    except (OSError, ValueError):
        return False


def read_hugging_face(folder: Path) -> tuple[MarianConfig, dict[str, Tensor]]:
    """The configuration and the weights of a folder, by the names of `MarianNetwork`.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: one is damaged; the message names it.
    """
    try:
        config = _config(read_json_object(folder / "config.json"))
    except (TypeError, ValueError) as error:
        raise ValueError(f"{folder / 'config.json'}: {error}") from error
    file = next((folder / name for name in WEIGHT_FILES if (folder / name).is_file()), None)
    if file is None:
        raise FileNotFoundError(f"{folder} has no weights: expected one of {', '.join(WEIGHT_FILES)}")
    weights = read_weights(file)
    try:
        return config, dict(_renamed(config, weights))
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _config(values: Mapping[str, Any]) -> MarianConfig:
    activation = values.get("activation_function", "gelu")
    if not isinstance(activation, str) or activation not in ACTIVATIONS:
        raise ValueError(f"activation_function is {str(activation)[:40]!r}, expected one of {', '.join(ACTIVATIONS)}")
    start = values.get("decoder_start_token_id")
    if type(start) is not int:
        raise ValueError(f"decoder_start_token_id is {str(start)[:40]!r}, expected the number of a piece")

    def size(name: str) -> Any:
        return values.get(name)  # `MarianConfig` checks it

    return MarianConfig(
        source_vocabulary=size("vocab_size"),
        target_vocabulary=size("decoder_vocab_size") or size("vocab_size"),
        channels=size("d_model"),
        encoder_layers=size("encoder_layers"),
        decoder_layers=size("decoder_layers"),
        encoder_heads=size("encoder_attention_heads"),
        decoder_heads=size("decoder_attention_heads"),
        encoder_hidden=size("encoder_ffn_dim"),
        decoder_hidden=size("decoder_ffn_dim"),
        activation=ACTIVATIONS[activation],
        epsilon=1e-5,
        positions="transformers",
        scaled=bool(values.get("scale_embedding", False)),
        start=start,
    )


def _renamed(config: MarianConfig, weights: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    def take(*names: str) -> Any:
        found = [weights[name] for name in names if name in weights]
        if not found:
            raise ValueError(f"it has no weight {names[0]!r}, which config.json asks for")
        return found[0]

    source = take("model.shared.weight", "model.encoder.embed_tokens.weight")
    target = take("model.decoder.embed_tokens.weight", "model.shared.weight")
    yield "source_embedding", source
    yield "target_embedding", target
    yield "output", weights.get("lm_head.weight", target)
    bias = weights.get("final_logits_bias")
    yield "output_bias", bias.flatten() if isinstance(bias, Tensor) else torch.zeros(config.target_vocabulary)
    for side, layers in (("encoder", config.encoder_layers), ("decoder", config.decoder_layers)):
        own = {"attention": "self_attn"} if side == "encoder" else {"past": "self_attn", "cross": "encoder_attn"}
        for layer in range(layers):
            here, theirs = f"{side}.{layer}", f"model.{side}.layers.{layer}"
            names = {f"around_{mine}.norm_after": f"{their}_layer_norm" for mine, their in own.items()}
            names |= {f"{mine}.{a}": f"{their}.{b}" for mine, their in own.items() for a, b in ATTENTION.items()}
            names |= {"feed.first": "fc1", "feed.second": "fc2", "around_feed.norm_after": "final_layer_norm"}
            for mine, their in names.items():
                for kind in ("weight", "bias"):
                    yield f"{here}.{mine}.{kind}", take(f"{theirs}.{their}.{kind}")
