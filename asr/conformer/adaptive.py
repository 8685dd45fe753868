"""A Conformer that decides for each frame how far to look ahead (ANCAT, arXiv 2305.04159).

In every layer a small scheduler reads a frame and says how many of the following frames, 0 … K, its self-attention
waits for: none where the sound is plain, some where it is not. A frame leaves a layer as soon as what it looks at has
come. The frames looked at and the wait through all layers are differentiable and are added to the loss.

The paper trains with soft weights on the keys ahead, annealed to hard ones. Here training samples hard decisions, whose
noise is annealed, and passes gradients straight through: soft weights inside a softmax are undone by large scores, and
a model that learnt to do so cannot work with hard decisions.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.asr.conformer.encoder import ConformerConfig, ConformerEncoder, ConformerLayer, Schedule
from loquent.speech.nn.attention import RingState
from loquent.speech.nn.relative_attention import RelativeAttention, Sight
from loquent.speech.nn.state import State, check_range
from loquent.speech.nn.streaming import ChainState, Chunk, WindowState, as_chunk, as_rows

GAIN = 5.0  # of gates in training, so that they move at the learning rates of fine-tuning


@dataclass(frozen=True)
class AdaptiveEncoding:
    """Output of an encoder with what it cost in time.

    encoded: (B, T, C) frames, arbitrary beyond a row's length.
    length: (B,) int64, frames of each row.
    ahead: (B, T) float, following frames that attention looks at, mean over the layers: the extra compute.
    wait: (B, T) float, frames that must follow before each frame is put out, through all layers and in order: the
        algorithmic latency. The end of the stream puts out all that is left.
    """

    encoded: Tensor
    length: Tensor
    ahead: Tensor
    wait: Tensor

    @property
    def mean_ahead(self) -> Tensor:
        """Mean of ``ahead`` over all valid frames: a regulariser on compute."""
        return self._mean(self.ahead)

    @property
    def mean_wait(self) -> Tensor:
        """Mean of ``wait`` over all valid frames, in frames: a regulariser on latency."""
        return self._mean(self.wait)

    def _mean(self, x: Tensor) -> Tensor:
        valid = torch.arange(x.shape[1], device=x.device) < self.length[:, None]
        return torch.where(valid, x, 0).sum() / valid.sum().clamp(min=1)


@dataclass
class AdaptiveLayerState(State):
    """Caches of one layer."""

    attention: RingState
    conv: WindowState
    waiting: Tensor  # (S, K, C) frames that wait for those they look at, right-aligned
    needed: Tensor  # (S, K) int64, how many frames must have come for each of them
    held: Tensor  # (S,) int64, how many of them there are

    def check(self) -> None:
        """See `State.check`."""
        super().check()
        most, position = self.needed.shape[1], self.attention.position[:, None]
        check_range("held", self.held, 0, most)
        step = position - torch.arange(most, 0, -1, device=position.device)
        waits = torch.arange(most, 0, -1, device=position.device) <= self.held[:, None]
        if not bool((~waits | ((step >= 0) & (self.needed > step) & (self.needed <= step + 1 + most))).all()):
            raise ValueError("state 'needed' is not that of frames which wait for at most the look-ahead")


@dataclass
class AdaptiveState(State):
    """Caches of an encoder."""

    subsampling: ChainState
    layers: tuple[AdaptiveLayerState, ...]


class AdaptiveConformerEncoder(ConformerEncoder):
    """`ConformerEncoder` whose layers look ahead as far as each frame asks for.

    When an output comes depends on the data: `inputs_for`, and the latency that follows from it, are upper bounds, of
    ``lookahead`` frames for each layer. What a recording really costs is in `encode`.

    Args:
        config: shape; its ``lookaheads`` play no part.
        lookahead: K, the most frames that one layer may look ahead.
    """

    def __init__(self, config: ConformerConfig, lookahead: int = 4) -> None:
        if lookahead < 1:
            raise ValueError(f"lookahead={lookahead}: with nothing to decide, take a ConformerEncoder of look-ahead 0")
        super().__init__(replace(config, lookaheads=(lookahead,)))
        self.layers = nn.ModuleList(AdaptiveLayer(self.config) for _ in range(config.layers))
        self.temperature = 1.0  # noise of the decisions in training; at 0 they are those of inference

    def take_weights(self, encoder: ConformerEncoder) -> None:
        """Start from a trained encoder of fixed look-aheads; the schedulers keep their weights.

        Raises:
            ValueError: it has another shape.
        """
        own, other = self.state_dict(), encoder.state_dict()
        shapes = {name: tensor.shape for name, tensor in own.items() if ".scheduler." not in name}
        if shapes != {name: tensor.shape for name, tensor in other.items()}:
            raise ValueError(f"the encoder of shape {encoder.config} does not fit one of {self.config}")
        self.load_state_dict(own | other)

    def forward(self, x: Tensor, length: Tensor | None = None, lookahead: int | Schedule | None = None) -> Tensor:
        """Encode whole inputs, (B, T, F) to (B, T', dim); see `encode`.

        Raises:
            ValueError: a look-ahead is asked for.
        """
        if lookahead is not None:
            raise ValueError(f"this encoder decides by itself how far to look ahead, got lookahead={lookahead}")
        return self.encode(x, length).encoded

    def encode(self, x: Tensor, length: Tensor | None = None) -> AdaptiveEncoding:
        """Encode whole inputs, and tell what `step` would have waited for; in training mode decisions are sampled.

        Args:
            x: (B, T, F); what lies beyond a row's length is ignored.
            length: (B,) int64, valid frames; all by default.
        """
        if length is None:
            length = torch.full((x.shape[0],), x.shape[1], device=x.device)
        x = self.dropout(self.subsampling(x, length))
        length = self.output_length(length)
        frames = torch.arange(x.shape[1], device=x.device)
        come = (frames + 1).minimum(length[:, None]).float()  # frames that have come when each frame is there
        arrived, ahead = come, torch.zeros_like(come)
        for layer in self._layers:
            x, looks = layer(x, length, self.temperature)
            ahead = ahead + looks.sum(-1) / len(self.layers)
            arrived = _arrival(arrived, looks, length)
        return AdaptiveEncoding(x, length, ahead, arrived - come)

    def initial_state(self, batch: int) -> AdaptiveState:  # type: ignore[override]
        """Streams at their beginning."""
        layers = tuple(layer.initial_state(batch) for layer in self._layers)
        return AdaptiveState(self.subsampling.initial_state(batch), layers)

    def set_lookahead(self, state: State, rows: Tensor, lookahead: int) -> None:
        """Not for this encoder.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"this encoder decides by itself how far to look ahead, got lookahead={lookahead}")

    def step(  # type: ignore[override]
        self, x: Chunk | Tensor, state: AdaptiveState, rows: Tensor | None = None, last: bool = False
    ) -> Chunk:
        """Put out every frame for which all that it looks at has come, in order."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        frames = self.subsampling.step(chunk, state.subsampling, rows)
        for layer, cache in zip(self._layers, state.layers, strict=True):
            if frames.data.shape[1] == 0 and not (frames.static or bool(frames.last.any())):
                break
            frames = layer.step(frames, cache, rows)
        return frames

    def inputs_for(self, outputs: int) -> int:
        """Mel frames after which ``outputs`` frames are out whatever they look at: an upper bound."""
        return self.subsampling.inputs_for(outputs + self.lookahead * len(self.layers)) if outputs else 0

    @property
    def _layers(self) -> list[AdaptiveLayer]:
        return cast(list[AdaptiveLayer], list(self.layers))  # ModuleList does not tell


class AdaptiveLayer(ConformerLayer):
    """`ConformerLayer` with a scheduler in front of its attention; convolution stays causal.

    The scheduler gives each frame K gates. Frame i looks at frame i + k if the first k gates are open, so that the
    frames looked at are always a stretch.
    """

    def __init__(self, config: ConformerConfig) -> None:
        super().__init__(config)
        self.left, self.most = config.left_context, config.lookaheads[0]
        self.attention = RelativeAttention(
            *(config.dim, config.heads),
            past=self.left,
            future=self.most,
            memory=self.left + self.most,  # a frame that waits sees as far back as when it came
            bias=config.bias,
            dropout=config.dropout,
        )
        gates = nn.Linear(config.dim // 2, self.most)
        self.scheduler = nn.Sequential(nn.Linear(config.dim, config.dim // 2), nn.SiLU(), gates)
        nn.init.normal_(gates.weight, std=0.01)
        nn.init.constant_(gates.bias, 2.0 / GAIN)  # nearly open: what a model trained with look-ahead is used to

    def forward(self, x: Tensor, length: Tensor, temperature: float) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Whole inputs (B, T, C) with (B,) valid frames; ``temperature`` is the noise of decisions in training.

        Returns:
            (B, T, C), and whether each frame looks at each of the K frames after it, (B, T, K) of 0 and 1.
        """
        x = x + 0.5 * self.dropout(self.feed_forward1(self.norm_feed_forward1(x)))
        h = self.norm_attention(x)
        frame = torch.arange(x.shape[1], device=x.device).expand(x.shape[0], -1)

        def sight(ahead: Tensor | int) -> Sight:
            end = torch.where(frame < length[:, None], (frame + 1 + ahead).minimum(length[:, None]), 0)
            return Sight(frame, (frame - self.left).clamp(min=0), end)

        if self.training:
            looks = _sampled(self.scheduler(h).float(), temperature)
            near, *further = self.attention.compare(h, [sight(ahead) for ahead in range(self.most + 1)])
            attended = near
            for look, far in zip(looks.to(h.dtype).unbind(-1), further, strict=True):
                attended, near = attended + look[..., None] * (far - near), far
        else:
            looks = (self.scheduler(h) > 0).cumprod(-1).float()
            attended = self.attention(h, sight(looks.sum(-1).long()))
        x = x + self.dropout(attended)
        x = x + self.dropout(self.conv(self.norm_conv(x)))
        x = x + 0.5 * self.dropout(self.feed_forward2(self.norm_feed_forward2(x)))
        following = frame[:, :, None] + torch.arange(1, self.most + 1, device=x.device)
        return self.norm_out(x), torch.where(following < length[:, None, None], looks, 0)

    def initial_state(self, batch: int) -> AdaptiveLayerState:  # type: ignore[override]
        """Empty caches."""
        weight = self.norm_out.weight
        return AdaptiveLayerState(
            self.attention.initial_state(batch),
            self.conv.depthwise.initial_state(batch),
            weight.new_zeros(batch, self.most, weight.shape[0]),
            torch.zeros(batch, self.most, dtype=torch.long, device=weight.device),
            torch.zeros(batch, dtype=torch.long, device=weight.device),
        )

    def step(self, chunk: Chunk, state: AdaptiveLayerState, rows: Tensor) -> Chunk:  # type: ignore[override]
        """Take in new frames; put out the longest run of waiting ones that have all they look at."""
        x, device = chunk.data, chunk.data.device
        x = x + 0.5 * self.feed_forward1(self.norm_feed_forward1(x))
        h = self.norm_attention(x)
        position, held = state.attention.position[rows], state.held[rows]
        come = (position + chunk.length)[:, None]
        new = position[:, None] + torch.arange(x.shape[1], device=device)
        needed = new + (self.scheduler(h) > 0).cumprod(-1).sum(-1) + 1

        # Waiting and new frames side by side; the first one is at self.most - held.
        frames, needs = torch.cat([state.waiting[rows], x], 1), torch.cat([state.needed[rows], needed], 1)
        available = held + chunk.length
        offset = torch.arange(frames.shape[1], device=device).expand(len(rows), -1)

        def pick(values: Tensor, start: Tensor, steps: int) -> Tensor:
            index = (start[:, None] + offset[:, :steps]).clamp(max=values.shape[1] - 1)
            return values.gather(
                1, index.reshape(*index.shape, *[1] * (values.ndim - 2)).expand(-1, -1, *values.shape[2:])
            )

        ordered = pick(needs, self.most - held, frames.shape[1])
        ready = ((ordered <= come) | chunk.last[:, None]) & (offset < available[:, None])
        count = ready.cumprod(1).sum(1)
        most = chunk.room(count, frames.shape[1])

        offset_out = offset[:, :most]
        query = (position - held)[:, None] + offset_out
        end = torch.where(offset_out < count[:, None], ordered[:, :most].minimum(come), 0)
        sight = Sight(query, (query - self.left).clamp(min=0), end)
        x = pick(frames, self.most - held, most)
        x = x + self.attention.step(chunk.with_data(h), state.attention, rows, sight, self.norm_attention(x))
        out = chunk.with_data(x, count)
        x = x + self.conv.step(out.with_data(self.norm_conv(x)), state.conv, rows)
        x = x + 0.5 * self.feed_forward2(self.norm_feed_forward2(x))

        state.waiting[rows] = pick(frames, chunk.length, self.most)
        state.needed[rows] = pick(needs, chunk.length, self.most)
        state.held[rows] = available - count
        return out.with_data(self.norm_out(x))


def _sampled(gates: Tensor, temperature: float) -> Tensor:
    """Decisions (B, T, K), 0 or 1, of gates with logistic noise; their gradients are those of soft decisions."""
    uniform = torch.rand_like(gates).clamp(1e-6, 1 - 1e-6)
    noisy = GAIN * gates + temperature * (uniform.log() - (-uniform).log1p())
    soft, hard = F.logsigmoid(noisy).cumsum(-1).exp(), (noisy > 0).cumprod(-1)
    return hard + (soft - soft.detach())


def _arrival(arrived: Tensor, looks: Tensor, length: Tensor) -> Tensor:
    """When a layer's outputs are there, given when its inputs are: (B, T) numbers of frames that have come.

    Output i needs input i + k for the largest k that it looks at, and comes no sooner than output i - 1.
    """
    most = looks.shape[2]
    end = length[:, None].expand(-1, most).to(arrived.dtype)
    later = torch.cat([arrived, end], 1).unfold(1, most + 1, 1)  # (B, T, K + 1): inputs i … i + K
    needed = arrived + (looks * later.diff(dim=2)).sum(2)
    return needed.cummax(1).values.minimum(length[:, None].to(arrived.dtype))
