"""What a Whisper remembers of each stream and of each hypothesis: pools of slots, as plain values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from loquent.speech.nn.state import State, check_range
from loquent.speech.nn.streaming import WindowState


@dataclass
class KeyValues(State):
    """Keys and values of one layer, (S, H, R, D) each."""

    k: Tensor
    v: Tensor


@dataclass
class EncoderState(State):
    """What the encoder remembers of each stream: 30 s of keys and values and the frames its convolutions still need."""

    conv1: WindowState
    conv2: WindowState
    waiting: WindowState  # frames of a block that is not complete
    position: Tensor  # (S,) int64, frames encoded
    layers: tuple[KeyValues, ...]

    def check(self) -> None:
        super().check()
        check_range("position", self.position, 0, self.layers[0].k.shape[2])

    def restart(self, rows: list[int]) -> None:
        """Begin a new window in these slots; keys and values beyond ``position`` are never read, so they may stay."""
        for part in (self.conv1, self.conv2, self.waiting):
            part.reset(rows)
        self.position[rows] = 0


@dataclass
class DecoderState(State):
    """Keys and values of the tokens of each hypothesis. Setting `position` back takes tokens back."""

    position: Tensor  # (S,) int64, tokens decoded
    layers: tuple[KeyValues, ...]

    def check(self) -> None:
        super().check()
        check_range("position", self.position, 0, self.capacity)

    @property
    def capacity(self) -> int:
        """Tokens that a hypothesis has room for."""
        return self.layers[0].k.shape[2]

    def copy(self, pairs: list[tuple[int, int]], length: int) -> None:
        """Copy hypotheses of at most ``length`` tokens from slot to slot; no slot is both read and written."""
        if not pairs:
            return
        source, target = torch.tensor(pairs, device=self.position.device).unbind(1)
        self.position[target] = self.position[source]
        for layer in self.layers:
            for cache in (layer.k[:, :, :length], layer.v[:, :, :length]):
                cache[target] = cache[source]

    def take(self, other: DecoderState, source: Tensor, target: Tensor, length: int) -> None:
        """Copy hypotheses of at most ``length`` tokens from slots of another pool to slots of this one."""
        self.position[target] = other.position[source]
        for mine, theirs in zip(self.layers, other.layers, strict=True):
            mine.k[target, :, :length] = theirs.k[source, :, :length]
            mine.v[target, :, :length] = theirs.v[source, :, :length]

    def resized(self, capacity: int) -> DecoderState:
        """The same hypotheses with room for more tokens."""

        def resize(cache: Tensor) -> Tensor:
            return F.pad(cache, (0, 0, 0, capacity - cache.shape[2]))

        return DecoderState(self.position, tuple(KeyValues(resize(one.k), resize(one.v)) for one in self.layers))


@dataclass
class AudioMemory(State):
    """Keys and values that the decoder's cross-attention reads: they only grow as audio comes in."""

    frames: Tensor  # (S,) int64
    layers: tuple[KeyValues, ...]

    def check(self) -> None:
        super().check()
        check_range("frames", self.frames, 0, self.capacity)

    @property
    def capacity(self) -> int:
        """Frames that a stream has room for."""
        return self.layers[0].k.shape[2]


def key_values(batch: int, heads: int, capacity: int, like: Tensor) -> KeyValues:
    """Empty keys and values of one layer as wide as ``like``."""
    return KeyValues(*like.new_zeros(2, batch, heads, capacity, like.shape[0] // heads).unbind())
