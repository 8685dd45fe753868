"""The layers of a causal language model (Qwen2, Qwen3, Llama), with keys and values of streams in a pool of slots."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.kernels.cached_attention import remember
from loquent.speech.lm.decoder_config import DecoderConfig
from loquent.speech.nn.linear import Linear
from loquent.speech.nn.positions import Rotary
from loquent.speech.nn.state import State, check_range
from loquent.speech.nn.streaming import Chunk, StreamingModule, as_chunk, as_rows


@dataclass
class KeyValueState(State):
    """Keys and values of one layer."""

    k: Tensor  # (S, kv_heads, capacity, head_dim)
    v: Tensor  # (S, kv_heads, capacity, head_dim)


@dataclass
class DecoderState(State):
    """Keys and values of all layers, and how many steps have come."""

    layers: tuple[KeyValueState, ...]
    position: Tensor  # (S,) int64
    capacity: int

    def check(self) -> None:
        """See `State.check`."""
        super().check()
        check_range("position", self.position, 0, self.capacity)


class Decoder(StreamingModule):
    """Embedded steps (B, T, dim) to hidden ones; a step sees itself and all before it, so each is final at once.

    Parameters have the names that Hugging Face gives those of `model`. Results equal transformers' to rounding.

    Args:
        capacity: steps of a stream, at most; its keys and values take
            capacity · layers · 2 · kv_heads · head_dim numbers.
    """

    def __init__(self, config: DecoderConfig, capacity: int = 4096) -> None:
        super().__init__()
        self.config, self.capacity = config, capacity
        self.embed_tokens = nn.Embedding(config.vocabulary, config.dim)
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.dim, config.norm_eps)

    def forward(self, x: Tensor) -> Tensor:
        """Whole sequences; what follows a step changes nothing, so padding belongs behind them."""
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)

    def initial_state(self, batch: int) -> DecoderState:
        """Empty caches."""
        weight = self.norm.weight
        shape = batch, self.config.kv_heads, self.capacity, self.config.head_dim
        layers = tuple(KeyValueState(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in self.layers)
        return DecoderState(layers, torch.zeros(batch, dtype=torch.long, device=weight.device), self.capacity)

    def step(self, x: Chunk | Tensor, state: DecoderState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """New steps of some streams, all at once: prompts beside single steps.

        Raises:
            ValueError: a stream outgrows the capacity (not checked in static mode: the caller bounds the stream).
        """
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        position = state.position[rows]
        after = position + chunk.length
        if not chunk.static and len(after) and int(after.max()) > self.capacity:
            raise ValueError(f"a stream has {int(after.max())} steps, more than the capacity of {self.capacity}")
        y = chunk.data
        steps = position[:, None] + torch.arange(y.shape[1], device=y.device)
        room = chunk.room(after, self.capacity) if len(rows) else 0
        place = InOrder(steps, rows, position, chunk.length, room)
        if y.shape[1]:
            for layer, cache in zip(self.decoder_layers, state.layers, strict=True):
                y = layer.step(y, cache, place)
            y = self.norm(y)
        state.position[rows] = after
        return chunk.with_data(y)

    def inputs_for(self, outputs: int) -> int:
        """Every step at once."""
        return outputs

    @property
    def decoder_layers(self) -> list[DecoderLayer]:
        """The layers, in order."""
        return cast("list[DecoderLayer]", list(self.layers))


class Place(Protocol):
    """Where the new steps of a batch stand, and what they see.

    steps: (B, T) int64, the position of each.
    """

    @property
    def steps(self) -> Tensor: ...

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cache: KeyValueState) -> Tensor:
        """Remember the keys and values of a layer (B, T, kv_heads, D), and attend from q (B, T, H, D): (B, H, T, D)."""


@dataclass(frozen=True)
class InOrder:
    """Steps that go on behind those that came before, all of which they see.

    steps: (B, T) int64, the position of each.
    rows, position, length: (B,) int64 slots, steps that came before, new steps.
    room: of the caches, how many steps have to be looked at.
    """

    steps: Tensor
    rows: Tensor
    position: Tensor
    length: Tensor
    room: int

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cache: KeyValueState) -> Tensor:
        """See `Place.attend`."""
        for pool, new in ((cache.k, k), (cache.v, v)):
            remember(pool, new, self.rows, self.position, self.length)
        keys, values = (pool[:, :, : self.room][self.rows] for pool in (cache.k, cache.v))
        seen = torch.arange(self.room, device=q.device) <= self.steps[:, None, :, None]
        return F.scaled_dot_product_attention(q.transpose(1, 2), keys, values, seen, enable_gqa=True)


class DecoderLayer(nn.Module):
    """Attention and a gated feed-forward layer, each normalised before and added to its input."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.dim, config.norm_eps)
        self.self_attn = GroupedAttention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.dim, config.norm_eps)
        self.mlp = GatedFeedForward(config)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, dim) to (B, T, dim)."""
        x = x + self.self_attn(self.input_layernorm(x))
        return x + self.mlp(self.post_attention_layernorm(x))

    def step(self, x: Tensor, cache: KeyValueState, place: Place) -> Tensor:
        """The same for steps that go on."""
        x = x + self.self_attn.step(self.input_layernorm(x), cache, place)
        return x + self.mlp(self.post_attention_layernorm(x))


class GroupedAttention(nn.Module):
    """Causal self-attention whose queries share keys and values in groups (arXiv 2305.13245)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        dim, inner = config.dim, config.heads * config.head_dim
        self.heads, self.kv_heads = config.heads, config.kv_heads
        self.q_proj = Linear(dim, inner, config.qkv_bias)
        self.k_proj = Linear(dim, config.kv_heads * config.head_dim, config.qkv_bias)
        self.v_proj = Linear(dim, config.kv_heads * config.head_dim, config.qkv_bias)
        self.o_proj = Linear(inner, dim, config.out_bias)
        self.q_norm = nn.RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()
        self.k_norm = nn.RMSNorm(config.head_dim, config.norm_eps) if config.qk_norm else nn.Identity()
        self.rotary = Rotary(config.head_dim, config.rope_base)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, dim) to (B, T, dim)."""
        q, k, v = self._project(x, torch.arange(x.shape[1], device=x.device))
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
        return self._merge(F.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True))

    def step(self, x: Tensor, cache: KeyValueState, place: Place) -> Tensor:
        """The same for steps that go on."""
        return self._merge(place.attend(*self._project(x, place.steps), cache))

    def _project(self, x: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q = self.q_norm(self.q_proj(x).unflatten(-1, (self.heads, -1)))
        k = self.k_norm(self.k_proj(x).unflatten(-1, (self.kv_heads, -1)))
        v = self.v_proj(x).unflatten(-1, (self.kv_heads, -1))
        return self.rotary(q, position), self.rotary(k, position), v

    def _merge(self, y: Tensor) -> Tensor:
        return self.o_proj(y.transpose(1, 2).flatten(2))


class GatedFeedForward(nn.Module):
    """SwiGLU (arXiv 2002.05202)."""

    def __init__(self, config: DecoderConfig) -> None:
        super().__init__()
        self.gate_proj = Linear(config.dim, config.feed_forward, config.mlp_bias)
        self.up_proj = Linear(config.dim, config.feed_forward, config.mlp_bias)
        self.down_proj = Linear(config.feed_forward, config.dim, config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        """(..., dim) to (..., dim)."""
        return self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))
