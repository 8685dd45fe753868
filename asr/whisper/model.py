"""Whisper: one network for training, offline and streaming use.

The encoder is a `StreamingModule`: under a block-causal mask it runs chunk by chunk on cached convolution inputs and
keys and values, and gives what the whole input would. Without a mask it is OpenAI's bidirectional encoder. The decoder
keeps its keys and values in a pool of slots, one per hypothesis, and reads the audio from another pool, one slot per
stream.

Parameter names are those of openai/whisper (`encoder.blocks.0.attn.query.weight`, …), whose checkpoints this loads.
Source: Radford et al. 2022 (arXiv 2212.04356); block-causal streaming as in arXiv 2508.12301.
"""

from __future__ import annotations

import copy
import math
from collections.abc import MutableMapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.asr.whisper.config import WhisperConfig
from loquent.asr.whisper.states import AudioMemory, DecoderState, EncoderState, KeyValues, key_values
from loquent.kernels.cached_attention import attention_mask, cached_attention
from loquent.kernels.cross_attention import attention, cross_attention
from loquent.kernels.int8_linear import Int8Weight, int8_linear
from loquent.kernels.linear import linear
from loquent.speech.nn.convolution import Conv1d
from loquent.speech.nn.linear import Linear
from loquent.speech.nn.low_rank import Adapters, project
from loquent.speech.nn.packing import Packing
from loquent.speech.nn.skeleton import Skeletons
from loquent.speech.nn.streaming import Blocks, Chunk, StreamingModule, as_chunk, as_rows
from loquent.speech.nn.transfer import staged

EMBEDDING = "decoder.token_embedding.weight"


class MultiHeadAttention(nn.Module):
    """The four projections of an attention layer; Whisper's keys have no bias."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = Linear(width, width)
        self.key = Linear(width, width, bias=False)
        self.value = Linear(width, width)
        self.out = Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        """(..., C) to (..., H, D)."""
        return x.unflatten(-1, (self.heads, -1))

    def forward(
        self, x: Tensor, source: Tensor | None = None, mask: Tensor | None = None, adapters: Adapters | None = None
    ) -> Tensor:
        """Attend from x (B, T, C) to ``source`` (B, S, C), itself by default, under a (T, S) bool mask."""
        if source is None:
            q, k, v = map(self.split, self.inputs(x, adapters))
        else:
            q, (k, v) = self.split(project(self.query, x, adapters)), self.memory(source, adapters)
        return project(self.out, attention(q, k, v, mask).flatten(2), adapters)

    def inputs(self, x: Tensor, adapters: Adapters | None = None) -> Sequence[Tensor]:
        """Queries, keys and values of steps that attend to each other, (..., C) each."""
        return [project(layer, x, adapters) for layer in (self.query, self.key, self.value)]

    def memory(self, source: Tensor, adapters: Adapters | None = None) -> tuple[Tensor, Tensor]:
        """Keys and values of what others attend to: (..., C) to (..., H, D) each."""
        return self.split(project(self.key, source, adapters)), self.split(project(self.value, source, adapters))

    def step(
        self,
        x: Tensor,
        packing: Packing,
        cache: KeyValues,
        rows: Tensor,
        position: Tensor,
        block: int = 1,
        adapters: Adapters | None = None,
    ) -> Tensor:
        """Attend from new steps, packed (N, C), to each other and to the cached past, and remember them; (N, C)."""
        q, k, v = (self.split(packing.unpack(one)) for one in self.inputs(x, adapters))
        attended = cached_attention(q, k, v, cache.k, cache.v, rows, position, packing.length, block=block)
        return project(self.out, packing.pack(attended.flatten(2)), adapters)


class ResidualAttentionBlock(nn.Module):
    """Pre-norm transformer block, with cross-attention in the decoder."""

    def __init__(self, width: int, heads: int, cross_attention: bool = False) -> None:
        super().__init__()
        self.attn = MultiHeadAttention(width, heads)
        self.attn_ln = nn.LayerNorm(width)
        self.cross_attn = MultiHeadAttention(width, heads) if cross_attention else None
        self.cross_attn_ln = nn.LayerNorm(width) if cross_attention else None
        self.mlp = nn.Sequential(Linear(width, 4 * width), nn.GELU(), Linear(4 * width, width))
        self.mlp_ln = nn.LayerNorm(width)

    def forward(
        self, x: Tensor, mask: Tensor | None, audio: Tensor | None = None, adapters: Adapters | None = None
    ) -> Tensor:
        """x (B, T, C), mask (T, T) bool, audio (B, S, C) for the decoder."""
        x = x + self.attn(self.attn_ln(x), mask=mask, adapters=adapters)
        if self.cross_attn is not None and self.cross_attn_ln is not None:
            x = x + self.cross_attn(self.cross_attn_ln(x), audio, adapters=adapters)
        return x + self.feed_forward(self.mlp_ln(x), adapters)

    def feed_forward(self, x: Tensor, adapters: Adapters | None = None) -> Tensor:
        """The two layers after attention, (B, T, C)."""
        widen, activation, narrow = cast(tuple[Linear, nn.GELU, Linear], tuple(self.mlp))
        return project(narrow, activation(project(widen, x, adapters)), adapters)


class CrossAttentionBlock(ResidualAttentionBlock):
    """The decoder's block."""

    cross_attn: MultiHeadAttention
    cross_attn_ln: nn.LayerNorm

    def __init__(self, width: int, heads: int) -> None:
        super().__init__(width, heads, cross_attention=True)


class AudioEncoder(StreamingModule):
    """Log-mel frames (B, T, F) at 10 ms to features (B, T / 2, C) at 20 ms.

    Args:
        block: frames (of 20 ms) that see each other; every frame sees all earlier blocks. None: every frame sees all
            others, which is the network OpenAI trained, and which cannot be streamed.
    """

    positional_embedding: Tensor  # (positions, C)

    def __init__(self, config: WhisperConfig, block: int | None = None) -> None:
        super().__init__()
        width = config.n_audio_state
        self.capacity, self.heads, self.width = config.n_audio_ctx, config.n_audio_head, width
        self.block = block
        self.conv1 = Conv1d(config.n_mels, width, kernel=3, left=1, right=1)
        self.conv2 = Conv1d(width, width, kernel=3, stride=2, left=1, right=1)
        self.register_buffer("positional_embedding", sinusoids(config.n_audio_ctx, width))
        self.blocks = nn.ModuleList(ResidualAttentionBlock(width, self.heads) for _ in range(config.n_audio_layer))
        self.ln_post = nn.LayerNorm(width)
        self.reframe = None if block is None else Blocks(block, width)

    def with_block(self, block: int) -> AudioEncoder:
        """The same layers under a block-causal mask: a view that shares every parameter, and adapters put on later."""
        view = copy.copy(self)
        view._modules = self._modules.copy()
        view.block, view.reframe = block, Blocks(block, self.width).to(self.ln_post.weight)
        return view

    def forward(self, mel: Tensor, adapters: Adapters | None = None) -> Tensor:
        """Encode whole windows: mel (B, T, F), T at most twice the number of positions."""
        x = F.gelu(self.conv2(F.gelu(self.conv1(mel))))
        self._check_room(x.shape[1])
        x = x + self.positional_embedding[: x.shape[1]]
        steps = torch.arange(x.shape[1], device=x.device)
        mask = None if self.block is None else attention_mask(steps, steps, self.block, None, 0)
        for block in self.blocks:
            x = block(x, mask, adapters=adapters)
        return self.ln_post(x)

    def initial_state(self, batch: int) -> EncoderState:
        """Room for a full window of every stream."""
        like = self.ln_post.weight
        return EncoderState(
            self.conv1.initial_state(batch),
            self.conv2.initial_state(batch),
            self._blocks_of_frames.initial_state(batch),
            torch.zeros(batch, dtype=torch.long, device=like.device),
            tuple(key_values(batch, self.heads, self.capacity, like) for _ in self.blocks),
        )

    def step(
        self,
        x: Chunk | Tensor,
        state: EncoderState,
        rows: Tensor | None = None,
        last: bool = False,
        adapters: Adapters | None = None,
        ahead: bool = False,
    ) -> Chunk:
        """Encode the blocks that new mel frames (B, T, F) complete.

        Args:
            adapters: of the B rows.
            ahead: also encode the frames of each stream's incomplete block, without what will follow them in it. The
                stream does not advance over these: they are encoded again, until the block is complete.

        Raises:
            ValueError: a stream outgrows the 1500 positions (30 s), which is not checked in static mode; the caller
                must have begun a new segment before.
        """
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        for conv, before in ((self.conv1, state.conv1), (self.conv2, state.conv2)):
            chunk = conv.step(chunk, before, rows)
            chunk = chunk.with_data(F.gelu(chunk.data))
        chunk, complete = self._blocks_of_frames.step_ahead(chunk, state.waiting, rows)
        if not ahead:
            chunk = chunk.with_data(chunk.data[:, : chunk.room(complete, chunk.data.shape[1])], complete)
        features = self._attend(chunk, state, rows, adapters)
        state.position[rows] += complete
        return features

    def _attend(self, chunk: Chunk, state: EncoderState, rows: Tensor, adapters: Adapters | None) -> Chunk:
        """Pass the frames after ``position`` through the layers. Their keys and values stay in the cache, where those
        beyond the position are never read."""
        position = state.position[rows]
        if not chunk.static:
            self._check_room(int((position + chunk.length).max()))
        index = position[:, None] + torch.arange(chunk.data.shape[1], device=position.device)
        frames = chunk.data + self.positional_embedding[index.clamp(max=self.capacity - 1)]
        if chunk.data.shape[1]:
            size, packing = self._blocks_of_frames.size, Packing(chunk)
            x, adapters = packing.pack(frames), packing.adapters(adapters)
            for block, cache in zip(self._typed_blocks, state.layers, strict=True):
                x = x + block.attn.step(block.attn_ln(x), packing, cache, rows, position, size, adapters)
                x = x + block.feed_forward(block.mlp_ln(x), adapters)
            frames = packing.unpack(self.ln_post(x))
        return chunk.with_data(frames)

    def inputs_for(self, outputs: int) -> int:
        """Whole blocks, and the convolutions' look-ahead of two mel frames."""
        return self.conv1.inputs_for(self.conv2.inputs_for(self._blocks_of_frames.inputs_for(outputs)))

    @property
    def _typed_blocks(self) -> list[ResidualAttentionBlock]:
        return cast(list[ResidualAttentionBlock], list(self.blocks))  # ModuleList does not tell

    @property
    def _blocks_of_frames(self) -> Blocks:
        if self.reframe is None:
            raise ValueError("an encoder without a block size sees the whole input and cannot stream; use with_block")
        return self.reframe

    def _check_room(self, frames: int) -> None:
        if frames > self.capacity:
            raise ValueError(f"{frames} encoder frames exceed the {self.capacity} positions (30 s) of this model")


class TextDecoder(nn.Module):
    """Tokens to next-token scores, given the encoder's features."""

    def __init__(self, config: WhisperConfig) -> None:
        super().__init__()
        width = config.n_text_state
        self.capacity, self.heads, self.audio_capacity = config.n_text_ctx, config.n_text_head, config.n_audio_ctx
        self.token_embedding = nn.Embedding(config.n_vocab, width)
        self.positional_embedding = nn.Parameter(torch.empty(config.n_text_ctx, width))
        self.blocks = nn.ModuleList(CrossAttentionBlock(width, self.heads) for _ in range(config.n_text_layer))
        self.ln = nn.LayerNorm(width)
        self._heads: dict[tuple[tuple[int, ...], torch.device], Tensor] = {}
        self.int8_vocabulary: Int8Weight | None = None  # the embedding once more, for `logits`

    def forward(self, tokens: Tensor, audio: Tensor) -> Tensor:
        """Teacher forcing: tokens (B, T) int64 and features (B, S, C) to scores (B, T, V)."""
        x = self.token_embedding(tokens) + self.positional_embedding[: tokens.shape[1]]
        steps = torch.arange(tokens.shape[1], device=x.device)
        mask = attention_mask(steps, steps, 1, None, 0)
        for block in self.blocks:
            x = block(x, mask, audio)
        return self.logits(self.ln(x))

    def initial_state(self, batch: int, capacity: int | None = None) -> DecoderState:
        """Room for ``capacity`` tokens of every hypothesis, by default the longest sequence there can be."""
        like = self.ln.weight
        return DecoderState(
            torch.zeros(batch, dtype=torch.long, device=like.device),
            tuple(key_values(batch, self.heads, capacity or self.capacity, like) for _ in self.blocks),
        )

    def initial_memory(self, batch: int, capacity: int | None = None) -> AudioMemory:
        """Room for the keys and values of ``capacity`` frames of every stream, by default a full window."""
        like = self.ln.weight
        return AudioMemory(
            torch.zeros(batch, dtype=torch.long, device=like.device),
            tuple(key_values(batch, self.heads, capacity or self.audio_capacity, like) for _ in self.blocks),
        )

    def add_audio(self, features: Chunk, memory: AudioMemory, rows: Tensor, adapters: Adapters | None = None) -> None:
        """Append new encoder features (B, T, C) to the memory slots of their streams."""
        start = memory.frames[rows]
        if features.static:
            self._add_audio_statically(features, memory, rows, start, adapters)
            return
        row, step = features.mask.nonzero().unbind(1)
        slot, frame = rows[row], start[row] + step
        new = features.data[row, step]
        adapters = None if adapters is None else adapters.select(row)
        for block, cache in zip(self._typed_blocks, memory.layers, strict=True):
            cache.k[slot, :, frame], cache.v[slot, :, frame] = block.cross_attn.memory(new, adapters)
        memory.frames[rows] = start + features.length

    def _add_audio_statically(
        self, features: Chunk, memory: AudioMemory, rows: Tensor, start: Tensor, adapters: Adapters | None
    ) -> None:
        """`add_audio` in one shape: what lies beyond a row's length overwrites frames with what they were."""
        features = features.with_data(features.data[:, : memory.capacity])  # no more of them can be valid
        steps = torch.arange(features.data.shape[1], device=rows.device)
        # Around the end and on from the start: so no frame is written twice.
        slot, frame = rows[:, None], (start[:, None] + steps) % memory.capacity
        valid = features.mask[:, :, None, None]
        for block, cache in zip(self._typed_blocks, memory.layers, strict=True):
            pairs = zip(block.cross_attn.memory(features.data, adapters), (cache.k, cache.v), strict=True)
            for new, kept in pairs:
                kept[slot, :, frame] = torch.where(valid, new, kept[slot, :, frame])
        memory.frames[rows] = start + features.length

    def set_audio(self, features: Tensor, memory: AudioMemory, slot: int) -> None:
        """What `add_audio` does for the whole window (T, C) of one new stream, without its indexing."""
        for block, cache in zip(self._typed_blocks, memory.layers, strict=True):
            new = block.cross_attn.memory(features)
            cache.k[slot, :, : len(features)], cache.v[slot, :, : len(features)] = (one.transpose(0, 1) for one in new)
        memory.frames[slot] = len(features)

    def step(
        self,
        tokens: Chunk,
        state: DecoderState,
        rows: Tensor,
        memory: AudioMemory,
        memory_rows: Tensor,
        watch: tuple[tuple[int, int], ...] = (),
        adapters: Adapters | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """Append tokens to hypotheses.

        Args:
            tokens: (B, T) int64 new tokens.
            rows: (B,) slots of the hypotheses in ``state``.
            memory_rows: (B,) slots of their audio in ``memory``; hypotheses may share one.
            watch: (layer, head) pairs whose cross-attention to return.
            adapters: of the B hypotheses.

        Returns:
            Hidden states (B, T, C), for `logits`; and the watched attention averaged over heads (B, T, frames), if any.
        """
        hidden, weights = self.attend(tokens, state, rows, memory, memory_rows, watch, adapters)
        return hidden, None if weights is None else weights.mean(1)

    def attend(
        self,
        tokens: Chunk,
        state: DecoderState,
        rows: Tensor,
        memory: AudioMemory,
        memory_rows: Tensor,
        watch: tuple[tuple[int, int], ...] = (),
        adapters: Adapters | None = None,
    ) -> tuple[Tensor, Tensor | None]:
        """`step`, but with each watched head's attention, (B, heads, T, frames), in order of layers."""
        position = state.position[rows]
        index = position[:, None] + torch.arange(tokens.data.shape[1], device=position.device)
        embedded = self.token_embedding(tokens.data) + self.positional_embedding[index.clamp(max=self.capacity - 1)]
        packing = Packing(tokens)
        x, adapters = packing.pack(embedded), packing.adapters(adapters)
        frames = memory.frames[memory_rows]
        watched = []
        for layer, (block, own, audio) in enumerate(zip(self._typed_blocks, state.layers, memory.layers, strict=True)):
            x = x + block.attn.step(block.attn_ln(x), packing, own, rows, position, adapters=adapters)
            attention = block.cross_attn
            query = attention.split(packing.unpack(project(attention.query, block.cross_attn_ln(x), adapters)))
            heads = [head for watched_layer, head in watch if watched_layer == layer]
            wanted = self._head_numbers(tuple(heads), rows.device) if heads else None
            attended, weights = cross_attention(query, audio.k, audio.v, memory_rows, frames, heads=wanted)
            if weights is not None:
                watched.append(weights)
            x = x + project(attention.out, packing.pack(attended.flatten(2)), adapters)
            x = x + block.feed_forward(block.mlp_ln(x), adapters)
        state.position[rows] = position + tokens.length
        return packing.unpack(self.ln(x)), torch.cat(watched, 1) if watched else None

    def _head_numbers(self, heads: tuple[int, ...], device: torch.device) -> Tensor:
        """Made once: a graph reads them where they are."""
        key = heads, device
        if key not in self._heads:
            self._heads[key] = staged(heads, device)
        return self._heads[key]

    def logits(self, hidden: Tensor) -> Tensor:
        """Hidden states (..., C) to scores over the vocabulary (..., V)."""
        if self.int8_vocabulary is not None:
            return int8_linear(hidden, self.int8_vocabulary)
        return linear(hidden, self.token_embedding.weight)

    @property
    def _typed_blocks(self) -> list[CrossAttentionBlock]:
        return cast(list[CrossAttentionBlock], list(self.blocks))


class Whisper(nn.Module):
    """Encoder and decoder of one checkpoint."""

    def __init__(self, config: WhisperConfig, block: int | None = None) -> None:
        super().__init__()
        self.config = config
        self.encoder = AudioEncoder(config, block)
        self.decoder = TextDecoder(config)
        self.merged: tuple[str, ...] = ()  # digests of the adapters that are part of the weights

    @classmethod
    def from_weights(
        cls, config: WhisperConfig, weights: MutableMapping[str, Tensor], *, float_vocabulary: bool = True
    ) -> Whisper:
        """Build the model around a checkpoint's tensors, in float32.

        Args:
            weights: by name; they are taken out, so that none is held twice. Those in float32 are used as they are.
            float_vocabulary: False leaves the token embedding in its own type, for `quantize_int8`: tokens are looked
                up in it, exactly, but scores over the vocabulary are not computed with it.
        """
        with Skeletons():
            model = cls(config)
        embedding = None if float_vocabulary else weights.pop(EMBEDDING)
        state = {name: weights.pop(name).float() for name in list(weights)}
        model.load_state_dict(state if embedding is None else {**state, EMBEDDING: embedding}, assign=True)
        return model.eval().requires_grad_(False)


def sinusoids(length: int, channels: int, max_timescale: float = 10000) -> Tensor:
    """Whisper's fixed positions: (length, channels), sines then cosines at geometrically spaced periods."""
    scale = torch.exp(-math.log(max_timescale) / (channels // 2 - 1) * torch.arange(channels // 2))
    angle = torch.arange(length)[:, None] * scale
    return torch.cat([angle.sin(), angle.cos()], dim=1)
