"""The cache-aware Conformer encoder (FastConformer, arXiv 2312.17279): many look-aheads in one model, exactly streamed.

Attention works on chunks of R + 1 frames: a frame sees its own chunk, R frames ahead at most, and `left_context` frames
before it; everything else is causal. R, the look-ahead, is a property of each stream and may change between chunks.
What is cached is what is needed and no more: inputs of convolutions, keys and values of attention.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.kernels.gated_conv_step import gated_conv_step
from loquent.kernels.linear import linear
from loquent.speech.nn.attention import RingState
from loquent.speech.nn.convolution import Conv1d, Conv2d
from loquent.speech.nn.linear import Linear
from loquent.speech.nn.relative_attention import RelativeAttention, Sight
from loquent.speech.nn.state import State, check_range
from loquent.speech.nn.streaming import (
    Chain,
    ChainState,
    Chunk,
    StreamingModule,
    WindowState,
    as_chunk,
    as_rows,
    step_in_groups,
    take_steps,
)
from loquent.speech.sizes import check_fraction, check_sizes

AT_ONCE = 6 * 2**20  # bytes that a convolution writes: more than caches and malloc's pools hold takes twice as long
SUBSAMPLING = 8  # mel frames of 10 ms per encoder frame
Schedule = Sequence[tuple[int, int]]  # (first frame, look-ahead from there on), beginning with frame 0


@dataclass(frozen=True)
class ConformerConfig:
    """Shape of an encoder; counts of frames are of encoder frames (80 ms).

    Raises:
        ValueError: sizes that do not fit each other.
    """

    n_mels: int = 80
    dim: int = 512
    layers: int = 17
    heads: int = 8
    feed_forward: int = 4  # width of the feed-forward layers, in multiples of dim
    conv_kernel: int = 9
    subsampling_channels: int = 256
    left_context: int = 70
    lookaheads: tuple[int, ...] = (13, 6, 1, 0)  # the first is the default
    xscaling: bool = False  # multiply the subsampled input by √dim
    bias: bool = True  # of feed-forward layers, projections and convolutions
    conv_norm: Literal["layer_norm", "batch_norm"] = "layer_norm"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        check_sizes(self, _LARGEST)
        check_fraction("dropout", self.dropout)
        if not isinstance(self.xscaling, bool) or not isinstance(self.bias, bool):
            raise ValueError(f"expected truth values for xscaling and bias, got {self.xscaling} and {self.bias}")
        if not isinstance(self.lookaheads, tuple) or not all(
            type(one) is int and one <= MOST_FRAMES for one in self.lookaheads
        ):
            raise ValueError(f"lookaheads must be numbers of frames up to {MOST_FRAMES}, got {self.lookaheads}")
        if not self.lookaheads or min(self.lookaheads) < 0 or len(set(self.lookaheads)) < len(self.lookaheads):
            raise ValueError(f"lookaheads must be different numbers of frames from 0 on, got {self.lookaheads}")
        if self.dim % self.heads or self.dim % 2:
            raise ValueError(f"dim={self.dim} must be even and a multiple of heads={self.heads}")
        if self.conv_norm not in ("layer_norm", "batch_norm"):
            raise ValueError(f"conv_norm must be 'layer_norm' or 'batch_norm', got {self.conv_norm!r}")


# Far beyond any Conformer, and small enough to be built.
MOST_FRAMES = 2**14  # that a frame may see: 22 minutes
_LARGEST = {
    "n_mels": 512,
    "dim": 2**13,
    "layers": 2**8,
    "heads": 2**8,
    "feed_forward": 64,
    "conv_kernel": 2**10,
    "subsampling_channels": 2**12,
    "left_context": MOST_FRAMES,
}


@dataclass
class LayerState(State):
    """Caches of one layer."""

    attention: RingState
    conv: WindowState


@dataclass
class ConformerState(State):
    """Caches of an encoder."""

    subsampling: ChainState
    waiting: Tensor  # (S, largest look-ahead, C) subsampled frames of chunks not complete yet, right-aligned
    held: Tensor  # (S,) int64, how many of them wait
    chosen: Tensor  # (S,) int64, look-ahead of the chunk under way, as index into config.lookaheads
    following: Tensor  # (S,) int64, that of the chunks after it
    position: Tensor  # (S,) int64, frames that have passed the layers
    layers: tuple[LayerState, ...]
    choices: int  # look-aheads that there are

    def check(self) -> None:
        """See `State.check`."""
        super().check()
        check_range("held", self.held, 0, self.waiting.shape[1])
        for name, index in (("chosen", self.chosen), ("following", self.following)):
            check_range(name, index, 0, self.choices - 1)
        if not all(torch.equal(layer.attention.position, self.position) for layer in self.layers):
            raise ValueError("state 'position' differs from those of the layers")


class ConformerEncoder(StreamingModule):
    """Log-mel frames (B, T, F) to encoder frames (B, T', dim), one for every 8 (see `output_length`)."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.config = config
        widest = max(config.lookaheads)
        self.subsampling = Subsampling(config)
        self.layers = nn.ModuleList(ConformerLayer(config) for _ in range(config.layers))
        self.dropout = nn.Dropout(config.dropout)
        self.widest = widest
        self.register_buffer("sizes", torch.tensor(config.lookaheads) + 1, persistent=False)

    sizes: Tensor  # (choices,) frames of a chunk for each of config.lookaheads

    @property
    def lookahead(self) -> int:
        """Look-ahead of streams that have not chosen one, in encoder frames."""
        return self.config.lookaheads[0]

    def output_length(self, length: Tensor) -> Tensor:
        """Encoder frames of ``length`` mel frames, elementwise."""
        return self.subsampling.lengths(length)[-1]

    def forward(self, x: Tensor, length: Tensor | None = None, lookahead: int | Schedule | None = None) -> Tensor:
        """Encode whole inputs.

        Args:
            x: (B, T, F); what lies beyond a row's length is ignored.
            length: (B,) int64, valid frames; all by default.
            lookahead: one of config.lookaheads, or a schedule of them; the first by default.

        Returns:
            (B, T', dim), arbitrary beyond `output_length`.
        """
        if length is None:
            length = torch.full((x.shape[0],), x.shape[1], device=x.device)
        x = self.dropout(self.subsampling(x, length))
        sight = self._sight_of(
            x.shape[1], self.output_length(length), self.lookahead if lookahead is None else lookahead
        )
        for layer in self.layers:
            x = layer(x, sight)
        return x

    def initial_state(self, batch: int) -> ConformerState:
        """Streams at their beginning."""
        weight = self.subsampling.out.weight
        zeros = torch.zeros(4, batch, dtype=torch.long, device=weight.device)
        held, chosen, following, position = (one.clone() for one in zeros)
        waiting = weight.new_zeros(batch, self.widest, self.config.dim)
        layers = tuple(layer.initial_state(batch) for layer in self._typed_layers)
        subsampling, choices = self.subsampling.initial_state(batch), len(self.config.lookaheads)
        return ConformerState(subsampling, waiting, held, chosen, following, position, layers, choices)

    def set_lookahead(self, state: ConformerState, rows: Tensor, lookahead: int) -> None:
        """Choose the look-ahead of streams, from the next chunk of each that has not begun.

        Raises:
            ValueError: the model was not made for it.
        """
        state.following[rows] = self.config.lookaheads.index(self._checked(lookahead))

    def step(
        self,
        x: Chunk | Tensor,
        state: ConformerState,
        rows: Tensor | None = None,
        last: bool = False,
        widest: int | None = None,
    ) -> Chunk:
        """Encode every chunk of R + 1 frames that is complete; the last one of a stream may be short.

        Args:
            widest: the largest look-ahead of any of these streams, now or from the next chunk on, where that is known:
                no more frames are made room for.
        """
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        new = self.subsampling.step(chunk, state.subsampling, rows)
        frames, sight = self._whole_chunks(new, state, rows, self.widest if widest is None else widest)
        if frames.data.shape[1] == 0:
            return frames
        for layer, cache in zip(self._typed_layers, state.layers, strict=True):
            frames = layer.step(frames, cache, rows, sight)
        return frames

    def inputs_for(self, outputs: int) -> int:
        """Mel frames for whole chunks of the default look-ahead."""
        size = self.lookahead + 1
        return self.subsampling.inputs_for(-(-outputs // size) * size)

    @property
    def _typed_layers(self) -> list[ConformerLayer]:
        return cast("list[ConformerLayer]", list(self.layers))

    def _whole_chunks(self, new: Chunk, state: ConformerState, rows: Tensor, widest: int) -> tuple[Chunk, Sight]:
        """Put the frames of incomplete chunks aside, at most ``widest``; tell what those of the others see."""
        data, device = new.data, new.data.device
        held, following = state.held[rows], state.following[rows]
        chosen = torch.where(held > 0, state.chosen[rows], following)
        size, next_size = self.sizes[chosen], self.sizes[following]
        available = held + new.length
        beyond = available - size
        whole = torch.where(beyond >= 0, size + beyond // next_size * next_size, 0)
        count = torch.where(new.last, available, whole)

        unused = self.widest - widest
        joined = torch.cat([state.waiting[rows, unused:], data], dim=1)
        most = new.room(count, joined.shape[1])

        def pick(start: Tensor, steps: int) -> Tensor:
            index = start[:, None] + torch.arange(steps, device=device)
            return take_steps(joined, index.clamp(max=joined.shape[1] - 1))

        frames = new.with_data(pick(widest - held, most), count)
        if widest:
            state.waiting[rows, unused:] = pick(new.length, widest)
        state.held[rows] = available - count
        state.chosen[rows] = torch.where(count > 0, following, chosen)

        offset = torch.arange(most, device=device).expand(len(rows), -1)
        in_first = offset < size[:, None]
        own = torch.where(in_first, size[:, None], next_size[:, None])
        start = torch.where(in_first, 0, size[:, None] + (offset - size[:, None]) // own * own)
        position = state.position[rows][:, None]
        state.position[rows] += count
        return frames, self._sight(position + offset, position + start, own, position + count[:, None])

    def _sight_of(self, steps: int, length: Tensor, lookahead: int | Schedule) -> Sight:
        """Sight of frames 0 … steps - 1 of whole inputs."""
        schedule = [(0, lookahead)] if isinstance(lookahead, int) else lookahead
        frame = torch.arange(steps, device=length.device)
        origin, size = torch.zeros_like(frame), torch.ones_like(frame)
        previous = 0, 1
        for begin, value in schedule:
            if begin >= max(steps, 1):  # the stream has ended, perhaps in the middle of a chunk
                break
            if begin < previous[0] or (begin - previous[0]) % previous[1]:
                raise ValueError(f"the look-ahead changes at frame {begin}, which is in the middle of a chunk")
            previous = begin, self._checked(value) + 1
            origin[begin:], size[begin:] = previous
        start = origin + (frame - origin) // size * size
        frame, start, size = (one.expand(len(length), -1) for one in (frame, start, size))
        return self._sight(frame, start, size, length[:, None])

    def _sight(self, frame: Tensor, start: Tensor, size: Tensor, end: Tensor) -> Sight:
        """Frames in chunks of ``size`` that begin at ``start``, of streams that have come to ``end``."""
        left = self.config.left_context // size * size  # whole chunks
        return Sight(frame, (start - left).clamp(min=0), torch.where(frame < end, (start + size).minimum(end), 0))

    def _checked(self, lookahead: int) -> int:
        if lookahead not in self.config.lookaheads:
            raise ValueError(f"the model was made for look-aheads of {self.config.lookaheads} frames, not {lookahead}")
        return lookahead


class Subsampling(StreamingModule):
    """Eight-fold subsampling by causal convolutions over time and frequency ("dw_striding")."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        self.channels = channels = config.subsampling_channels
        bins = config.n_mels
        stages: list[nn.Module] = []
        for stage in range(3):
            groups = channels if stage else 1
            conv = Conv2d(groups, channels, 3, 2, left=2, right=1, groups=groups, bins=bins)
            stages += [conv, Linear(channels, channels)] if stage else [conv]
            stages.append(nn.ReLU(inplace=True))
            bins = conv.out_bins
        self.conv = Chain(*stages)
        self.out = Linear(channels * bins, config.dim)
        self.scale = math.sqrt(config.dim) if config.xscaling else 1.0

    def lengths(self, length: Tensor) -> list[Tensor]:
        """Valid steps after each convolution, given those of the input."""
        lengths = []
        for module in self.conv.stages:
            if isinstance(module, Conv2d):
                length = module.window.outputs(length, True)
                lengths.append(length)
        return lengths

    def forward(self, x: Tensor, length: Tensor) -> Tensor:
        """(B, T, F) with valid lengths to (B, T', dim)."""
        x, lengths = x[..., None], iter([length, *self.lengths(length)])
        for module in self.conv.stages:
            if isinstance(module, Conv2d):  # sees zeros after the end
                valid = torch.arange(x.shape[1], device=x.device) < next(lengths)[:, None]
                x = torch.where(valid[:, :, None, None], x, 0)
            x = module(x)
        return self._project(x)

    def initial_state(self, batch: int) -> ChainState:
        """States of the convolutions."""
        return self.conv.initial_state(batch)

    def step(self, x: Chunk | Tensor, state: ChainState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Frames whose inputs have all come."""
        chunk = as_chunk(x, last)
        chunk, rows = chunk.with_data(chunk.data[..., None]), as_rows(rows, chunk)
        if chunk.static:
            chunk = self.conv.step(chunk, state, rows)
        else:  # caches as small as a CPU's
            bytes_of_row = chunk.data[:1].nbytes // 4 * self.channels  # the first convolution halves steps and bins
            chunk = step_in_groups(self.conv, chunk, state, rows, max(AT_ONCE // max(bytes_of_row, 1), 1))
        return chunk.with_data(self._project(chunk.data))

    def inputs_for(self, outputs: int) -> int:
        """Those of the convolutions."""
        return self.conv.inputs_for(outputs)

    def _project(self, x: Tensor) -> Tensor:
        return self.out(x.transpose(2, 3).flatten(2)) * self.scale  # bins of a channel side by side, as in checkpoints


class ConformerLayer(nn.Module):
    """Half a feed-forward layer, attention, convolution, the other half (arXiv 2005.08100, figure 1)."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        dim, widest = config.dim, max(config.lookaheads)
        self.norm_feed_forward1, self.feed_forward1 = nn.LayerNorm(dim), FeedForward(config)
        self.norm_attention = nn.LayerNorm(dim)
        self.attention = RelativeAttention(
            *(dim, config.heads),
            past=config.left_context + widest,
            future=widest,
            memory=config.left_context,
            bias=config.bias,
            dropout=config.dropout,
        )
        self.norm_conv, self.conv = nn.LayerNorm(dim), ConvolutionModule(config)
        self.norm_feed_forward2, self.feed_forward2 = nn.LayerNorm(dim), FeedForward(config)
        self.norm_out = nn.LayerNorm(dim)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor, sight: Sight) -> Tensor:
        """(B, T, C) whole inputs."""
        x = torch.add(x, self.dropout(self.feed_forward1(self.norm_feed_forward1(x))), alpha=0.5)
        x = x + self.dropout(self.attention(self.norm_attention(x), sight))
        x = x + self.dropout(self.conv(self.norm_conv(x)))
        x = torch.add(x, self.dropout(self.feed_forward2(self.norm_feed_forward2(x))), alpha=0.5)
        return self.norm_out(x)

    def initial_state(self, batch: int) -> LayerState:
        """Empty caches."""
        return LayerState(self.attention.initial_state(batch), self.conv.depthwise.initial_state(batch))

    def step(self, chunk: Chunk, state: LayerState, rows: Tensor, sight: Sight) -> Chunk:
        """Whole chunks of new frames."""
        x = chunk.data
        x = self.feed_forward1.step(self.norm_feed_forward1(x), x)
        x = x + self.attention.step(chunk.with_data(self.norm_attention(x)), state.attention, rows, sight)
        x = x + self.conv.step(chunk.with_data(self.norm_conv(x)), state.conv, rows)
        x = self.feed_forward2.step(self.norm_feed_forward2(x), x)
        return chunk.with_data(self.norm_out(x))


class FeedForward(nn.Module):
    """Linear, Swish, linear."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        width = config.dim * config.feed_forward
        self.linear1 = Linear(config.dim, width, config.bias)
        self.linear2 = Linear(width, config.dim, config.bias)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        x = F.silu(self.linear1(x))
        return self.linear2(self.dropout(x) if self.training else x)

    def step(self, x: Tensor, residual: Tensor) -> Tensor:
        """Half of the layer of x (..., C), added to another."""
        x = linear(x, self.linear1.weight, self.linear1.bias, "silu")
        return linear(x, self.linear2.weight, self.linear2.bias, residual=residual, alpha=0.5)


class ConvolutionModule(nn.Module):
    """Gated pointwise convolution, causal depthwise convolution, normalisation, Swish, pointwise convolution."""

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__()
        dim, bias = config.dim, config.bias
        self.pointwise1 = Linear(dim, 2 * dim, bias)
        self.depthwise = Conv1d(dim, dim, config.conv_kernel, groups=dim, bias=bias)
        self.norm = nn.LayerNorm(dim) if config.conv_norm == "layer_norm" else BatchNorm(dim)
        self.pointwise2 = Linear(dim, dim, bias)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) whole inputs."""
        return self._finish(self.depthwise(F.glu(self.pointwise1(x))))

    def step(self, chunk: Chunk, state: WindowState, rows: Tensor) -> Tensor:
        """New frames."""
        x, depthwise, norm = self.pointwise1(chunk.data), self.depthwise, self.norm
        if isinstance(norm, BatchNorm):
            return self._finish(depthwise.step(chunk.with_data(F.glu(x)), state, rows).data)
        weight = depthwise.weight.squeeze(1), depthwise.bias
        y = gated_conv_step(x, *weight, (norm.weight, norm.bias), state.tail, rows, chunk.length)
        return self.pointwise2(y)

    def _finish(self, x: Tensor) -> Tensor:
        return self.pointwise2(F.silu(self.norm(x)))


class BatchNorm(nn.BatchNorm1d):
    """Batch normalisation of (B, T, C): its statistics come from training, so at inference it is pointwise."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, C) to (B, T, C)."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)
