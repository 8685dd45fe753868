"""Shape of a causal language model, as its `config.json` in Hugging Face's format tells it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loquent.speech.sizes import check_sizes

_LARGEST = {
    "vocabulary": 2**24,
    "dim": 2**15,
    "feed_forward": 2**18,
    "layers": 2**10,
    "heads": 2**10,
    "kv_heads": 2**10,
    "head_dim": 2**10,
}
_KINDS = ("qwen2", "qwen3", "llama", "mistral")


@dataclass(frozen=True)
class DecoderConfig:
    """Shape of a decoder with rotary positions, RMS norms and gated feed-forward layers.

    heads, kv_heads: queries share keys and values in groups of heads / kv_heads.
    qkv_bias, out_bias, mlp_bias: which projections have one.
    qk_norm: whether queries and keys are normalised head by head.

    Raises:
        ValueError: sizes that do not fit each other.
    """

    vocabulary: int
    dim: int
    feed_forward: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    rope_base: float = 1e6
    norm_eps: float = 1e-6
    qkv_bias: bool = True
    out_bias: bool = False
    mlp_bias: bool = False
    qk_norm: bool = False

    def __post_init__(self) -> None:
        check_sizes(self, _LARGEST)
        if self.heads % self.kv_heads or self.head_dim % 2:
            raise ValueError(
                f"heads={self.heads} must be a multiple of kv_heads={self.kv_heads}, head_dim={self.head_dim} even"
            )
        for name in ("rope_base", "norm_eps"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value < 1e9:
                raise ValueError(f"{name} is {str(value)[:40]!r}, expected a positive number")

    @classmethod
    def from_hugging_face(cls, config: Mapping[str, Any]) -> DecoderConfig:
        """Of the values of a `config.json`, old or new spelling: Qwen2, Qwen3, Llama, Mistral.

        Raises:
            ValueError: a kind of model, of positions or of attention that there is no decoder for, or values missing.
        """
        kind = config.get("model_type")
        if kind not in _KINDS:
            raise ValueError(f"model_type is {str(kind)[:40]!r}, expected one of {', '.join(_KINDS)}")
        rope = config.get("rope_parameters") or config.get("rope_scaling") or {}
        rope_kind = rope.get("rope_type", rope.get("type", "default"))
        if rope_kind != "default":
            raise ValueError(f"positions of type {rope_kind!r} are not supported, only rotary ones without scaling")
        sliding = config.get("use_sliding_window", kind == "mistral") and config.get("sliding_window") is not None
        if sliding or "sliding_attention" in (config.get("layer_types") or ()):
            raise ValueError("attention with a sliding window is not supported; set sliding_window to null")
        if config.get("hidden_act", "silu") != "silu":
            raise ValueError(f"hidden_act is {config['hidden_act']!r}, expected 'silu'")
        try:
            dim, heads = config["hidden_size"], config["num_attention_heads"]
            bias = config.get("attention_bias", False)
            return cls(
                vocabulary=config["vocab_size"],
                dim=dim,
                feed_forward=config["intermediate_size"],
                layers=config["num_hidden_layers"],
                heads=heads,
                kv_heads=config.get("num_key_value_heads") or heads,
                head_dim=config.get("head_dim") or dim // heads,
                rope_base=rope.get("rope_theta", config.get("rope_theta", 10_000.0)),
                norm_eps=config.get("rms_norm_eps", 1e-6),
                qkv_bias=kind == "qwen2" or bias,
                out_bias=bias,
                mlp_bias=config.get("mlp_bias", False),
                qk_norm=kind == "qwen3",
            )
        except (KeyError, TypeError, ZeroDivisionError) as error:
            raise ValueError(f"not a config.json of a language model: {error!r}") from error
