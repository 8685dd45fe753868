"""The encoder of the S3 tokenizer (CosyVoice 2): Whisper's stem at stride 4, and attention beside an FSMN memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.speech.nn.attention import RingAttention, RingState
from loquent.speech.nn.convolution import Conv1d
from loquent.speech.nn.linear import Linear
from loquent.speech.nn.positions import Rotary
from loquent.speech.nn.state import MOST, State
from loquent.speech.nn.streaming import Blocks, Chunk, StreamingModule, WindowState, as_chunk, as_rows, take_steps
from loquent.speech.sizes import check_sizes

LARGEST = {"n_mels": 512, "dim": 2**13, "head_dim": 2**10, "layers": 2**8, "kernel": 2**10}


@dataclass(frozen=True)
class TokenEncoderConfig:
    """Shape of the encoder, and what a token sees; the defaults are those of `speech_tokenizer_v2.onnx`.

    kernel: steps of the memory, odd.
    block:  tokens that see each other; None for the whole input, as the released weights were trained.
    left_context: tokens before its block that a token sees, with a block.

    Raises:
        ValueError: sizes that do not fit each other.
    """

    n_mels: int = 128
    dim: int = 1280
    head_dim: int = 64
    layers: int = 6
    kernel: int = 31
    block: int | None = None
    left_context: int = 250

    def __post_init__(self) -> None:
        check_sizes(self, LARGEST | {"left_context": 2**16} | ({} if self.block is None else {"block": 2**16}))
        if self.dim % self.head_dim or self.head_dim % 2 or not self.kernel % 2:
            raise ValueError(
                f"dim={self.dim} must be a multiple of an even head_dim={self.head_dim}, and kernel={self.kernel} odd"
            )


@dataclass
class MemoryState(State):
    """Caches of one layer."""

    attention: RingState
    tail: Tensor  # (S, kernel // 2, C) last values


@dataclass
class TokenEncoderState(State):
    """Caches of an encoder."""

    stem: tuple[WindowState, WindowState]
    waiting: WindowState
    layers: tuple[MemoryState, ...]


class TokenEncoder(StreamingModule):
    """Normalised log-mel frames (B, T, F) to hidden tokens (B, ⌈⌈T / 2⌉ / 2⌉, dim), one for every 40 ms.

    With a block it streams: a token sees its own block and ``left_context`` tokens before it, and so do the memories;
    `forward` and `step` agree under this mask. Without, `forward` equals upstream's, and there is no state to stream
    with. Parameters have the names of s3tokenizer's `AudioEncoderV2`.
    """

    def __init__(self, config: TokenEncoderConfig) -> None:
        super().__init__()
        self.config = config
        self.conv1 = Conv1d(config.n_mels, config.dim, 3, 2, left=1, right=1)
        self.conv2 = Conv1d(config.dim, config.dim, 3, 2, left=1, right=1)
        self.whole_blocks = Blocks(config.block or 1, config.dim)
        self.blocks = nn.ModuleList(MemoryLayer(config) for _ in range(config.layers))

    def forward(self, x: Tensor) -> Tensor:
        """Encode whole inputs."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(x))))
        for layer in self.blocks:
            x = layer(x)
        return x

    def initial_state(self, batch: int) -> TokenEncoderState:
        """Streams at their beginning.

        Raises:
            ValueError: the configuration has no block.
        """
        if self.config.block is None:
            raise ValueError("a token that sees the whole input cannot be streamed: give the configuration a block")
        stem = self.conv1.initial_state(batch), self.conv2.initial_state(batch)
        layers = tuple(layer.initial_state(batch) for layer in self._layers)
        return TokenEncoderState(stem, self.whole_blocks.initial_state(batch), layers)

    def step(
        self, x: Chunk | Tensor, state: TokenEncoderState, rows: Tensor | None = None, last: bool = False
    ) -> Chunk:
        """Encode every block of tokens that is complete; the last one of a stream may be short."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        for conv, window in zip((self.conv1, self.conv2), state.stem, strict=True):
            chunk = conv.step(chunk, window, rows)
            chunk = chunk.with_data(F.gelu(chunk.data))
        chunk = self.whole_blocks.step(chunk, state.waiting, rows)
        if chunk.data.shape[1]:
            for layer, cache in zip(self._layers, state.layers, strict=True):
                chunk = layer.step(chunk, cache, rows)
        return chunk

    def inputs_for(self, outputs: int) -> int:
        """Whole blocks, through the stem."""
        return self.conv1.inputs_for(self.conv2.inputs_for(self.whole_blocks.inputs_for(outputs)))

    @property
    def _layers(self) -> list[MemoryLayer]:
        return cast("list[MemoryLayer]", list(self.blocks))


class MemoryLayer(nn.Module):
    """One pre-norm transformer layer."""

    def __init__(self, config: TokenEncoderConfig) -> None:
        super().__init__()
        dim = config.dim
        self.attn_ln, self.attn = nn.LayerNorm(dim), MemoryAttention(config)
        self.mlp_ln, self.mlp = nn.LayerNorm(dim), nn.Sequential(Linear(dim, 4 * dim), nn.GELU(), Linear(4 * dim, dim))

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        x = x + self.attn(self.attn_ln(x))
        return x + self.mlp(self.mlp_ln(x))

    def initial_state(self, batch: int) -> MemoryState:
        """Empty caches."""
        return self.attn.initial_state(batch)

    def step(self, chunk: Chunk, state: MemoryState, rows: Tensor) -> Chunk:
        """Whole blocks, but for the end of a stream."""
        x = chunk.data
        x = x + self.attn.step(chunk.with_data(self.attn_ln(x)), state, rows).data
        return chunk.with_data(x + self.mlp(self.mlp_ln(x)))


class MemoryAttention(RingAttention):
    """Self-attention plus an FSMN memory: a depthwise convolution over the values, and the values themselves.

    The memory of a token ends with its block, and before the block reaches back kernel // 2 tokens.
    """

    def __init__(self, config: TokenEncoderConfig) -> None:
        dim = config.dim
        heads, rotary = dim // config.head_dim, Rotary(config.head_dim)
        projections = Linear(dim, dim), Linear(dim, dim, bias=False), Linear(dim, dim), Linear(dim, dim)
        if config.block is None:
            super().__init__(heads, *projections, block=MOST, capacity=1, rotary=rotary)
        else:
            super().__init__(heads, *projections, block=config.block, left=config.left_context, rotary=rotary)
        self.fsmn_block = nn.Conv1d(dim, dim, config.kernel, groups=dim, bias=False)
        self.reach = config.kernel // 2

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        if x.shape[1] == 0:
            return x
        value = self.value(x)
        return super().forward(x) + self._memory(value, value.new_zeros(x.shape[0], self.reach, value.shape[2]))

    def initial_state(self, batch: int) -> MemoryState:  # type: ignore[override]
        """Empty caches."""
        weight = self.fsmn_block.weight
        return MemoryState(super().initial_state(batch), weight.new_zeros(batch, self.reach, weight.shape[0]))

    def step(  # type: ignore[override]
        self, x: Chunk | Tensor, state: MemoryState, rows: Tensor | None = None, last: bool = False
    ) -> Chunk:
        """Attend from the new steps, and remember them."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        value = torch.where(chunk.mask[..., None], self.value(chunk.data), 0)
        before = state.tail[rows]
        recent = chunk.length[:, None] + torch.arange(self.reach, device=value.device)
        attended = super().step(chunk, state.attention, rows)
        memory = self._memory(value, before)
        state.tail[rows] = take_steps(torch.cat([before, value], dim=1), recent)
        return chunk.with_data(attended.data + memory)

    def _memory(self, value: Tensor, before: Tensor) -> Tensor:
        """(B, T, C), which begin with a block, behind (B, reach, C)."""
        batch, steps, _ = value.shape
        block = min(self.block, steps)
        x = F.pad(torch.cat([before, value], dim=1), (0, 0, 0, -steps % block))
        x = F.pad(x.unfold(1, self.reach + block, block), (0, self.reach))  # (B, blocks, C, reach + block + reach)
        y = self.fsmn_block(x.flatten(0, 1)).unflatten(0, (batch, -1))
        return y.transpose(2, 3).flatten(1, 2)[:, :steps] + value
