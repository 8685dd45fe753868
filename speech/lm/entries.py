"""Steps of a decoder whose keys and values are kept in entries that the caller chooses, and who sees which."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from loquent.speech.lm.decoder import Decoder, KeyValueState


@dataclass(frozen=True)
class Entries:
    """Where new steps of a batch stand, where they are kept, and what they see. An order of steps is nowhere implied.

    steps:   (B, T) int64, positions.
    rows:    (B,) int64 slots.
    kept:    (B, T) int64, the entry of each step's key and value; steps beyond a row's length go to one nobody sees.
    columns: parts of the entries that are looked at, one behind the other; N entries together.
    seen:    (B, T, N) bool, what each step sees, itself at least.
    """

    steps: Tensor
    rows: Tensor
    kept: Tensor
    columns: tuple[slice, ...]
    seen: Tensor

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cache: KeyValueState) -> Tensor:
        """See `Place.attend`."""
        cache.k[self.rows[:, None], :, self.kept] = k
        cache.v[self.rows[:, None], :, self.kept] = v
        keys, values = self.looked_at(cache.k), self.looked_at(cache.v)
        return F.scaled_dot_product_attention(q.transpose(1, 2), keys, values, self.seen[:, None], enable_gqa=True)

    def looked_at(self, pool: Tensor) -> Tensor:
        """The columns (B, kv_heads, N, D) of a pool (S, kv_heads, R, D)."""
        return torch.cat([pool[:, :, part][self.rows] for part in self.columns], dim=2)


class Watched(NamedTuple):
    """Heads whose attention is to be known, by layer, and for each row the steps (B, W) int64 that it is wanted of."""

    heads: Mapping[int, Sequence[int]]
    steps: Tensor


@dataclass(frozen=True)
class _Watching(Entries):
    """Entries that also tell the attention of some heads."""

    heads: Sequence[int] = ()
    wanted: Tensor | None = None
    told: list[Tensor] | None = None

    def attend(self, q: Tensor, k: Tensor, v: Tensor, cache: KeyValueState) -> Tensor:
        """See `Place.attend`."""
        y = super().attend(q, k, v, cache)
        assert self.wanted is not None
        assert self.told is not None
        heads = torch.tensor(self.heads, device=q.device)
        at = torch.arange(len(q), device=q.device)[:, None]
        queries = q[at, self.wanted][:, :, heads].transpose(1, 2).float()
        keys = self.looked_at(cache.k)[:, heads // (q.shape[2] // k.shape[2])].float()
        scores = queries @ keys.transpose(2, 3) * q.shape[-1] ** -0.5
        hidden = ~self.seen[at, self.wanted][:, None]
        self.told.append(scores.masked_fill(hidden, -torch.inf).softmax(-1))
        return y


def run(
    decoder: Decoder, x: Tensor, caches: Sequence[KeyValueState], place: Entries, watched: Watched | None = None
) -> tuple[Tensor, Tensor | None]:
    """New steps through all layers of a decoder.

    Args:
        x: (B, T, dim) embedded steps.
        caches: of the layers, updated in place.

    Returns:
        Hidden steps (B, T, dim), and the attention of the watched heads, (B, heads, W, N) in float32, in the order of
        layers; None if none is watched.
    """
    told: list[Tensor] = []
    for number, (layer, cache) in enumerate(zip(decoder.decoder_layers, caches, strict=True)):
        heads = watched.heads.get(number) if watched is not None else None
        x = layer.step(x, cache, place if not heads or watched is None else _watch(place, heads, watched.steps, told))
    return decoder.norm(x), torch.cat(told, dim=1) if told else None


def _watch(place: Entries, heads: Sequence[int], wanted: Tensor, told: list[Tensor]) -> _Watching:
    return _Watching(place.steps, place.rows, place.kept, place.columns, place.seen, heads, wanted, told)
