"""Chooses the heads of a language model that show which source piece a target piece comes from.

In a decoder-only model some heads, when a piece is about to be written, look at what it translates (arXiv 2605.31432,
2606.03967). They are found by how well they do so on some pairs of sentences; the model is not trained for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from loquent.speech.lm.decoder import KeyValueState
from loquent.speech.lm.entries import Entries, Watched, run
from loquent.translate.llm.decoding import Decoding
from loquent.translate.llm.model import LanguageModelTranslator


class HeadScore(NamedTuple):
    """How well a head aligns.

    looks:    share of the target pieces at which its largest weight, the instruction aside, is on a source piece.
    monotone: correlation of that piece's number with the number of the target piece; 0 where one of them is constant.
    """

    layer: int
    head: int
    looks: float
    monotone: float

    @property
    def total(self) -> float:
        """Both together."""
        return self.looks * max(self.monotone, 0.0)


@torch.no_grad()
def choose_heads(
    translator: LanguageModelTranslator, pairs: Sequence[tuple[str, str]], count: int = 8
) -> list[HeadScore]:
    """The heads that align best, the best first: their ``layer`` and ``head`` are for `LanguageModelSettings.heads`.

    Args:
        pairs: sentences and their translations, of languages whose order of words is alike; twenty are many.
        count: heads.

    Raises:
        ValueError: there are no pairs of two pieces or more.
    """
    decoding, config = translator.decoding, translator.decoding.model.model.config
    looks, monotone, used = torch.zeros(config.layers * config.heads), torch.zeros(config.layers * config.heads), 0
    for source, target in pairs:
        read, written = translator.codec.encode(source), translator.target_codec.encode(target)
        if len(read) < 2 or len(written) < 2:
            continue
        places, on_source = _alignment(decoding, read, written)
        looks, monotone, used = looks + on_source, monotone + _correlation(places), used + 1
    if not used:
        raise ValueError("no pair has two pieces or more on either side")
    scores = [
        HeadScore(
            number // config.heads, number % config.heads, float(looks[number]) / used, float(monotone[number]) / used
        )
        for number in range(len(looks))
    ]
    return sorted(scores, key=lambda one: one.total, reverse=True)[:count]


def _alignment(decoding: Decoding, source: list[int], target: list[int]) -> tuple[Tensor, Tensor]:
    """Of all heads: the source piece that each looks at before each target piece (heads, T), and how often at any."""
    config, before = decoding.model.model.config, decoding.instruction_pieces(None)
    opening = [decoding.end_of_read] if decoding.joint else decoding.opening
    pieces = [*before, *source, *opening, *target[:-1]]
    weight, count, behind = decoding.model.model.norm.weight, len(pieces), len(before) + len(source)
    device = weight.device
    order = torch.arange(count, device=device)
    apart = not (decoding.joint or decoding.moves)
    steps = torch.where(order < behind, order, order - behind + decoding.settings.offset) if apart else order
    zero = torch.zeros(1, dtype=torch.long, device=device)
    entries = Entries(steps[None], zero, order[None], (slice(0, count),), (order[:, None] >= order)[None])
    every = {layer: range(config.heads) for layer in range(config.layers)}
    x = decoding.model.model.embed_tokens(torch.tensor([pieces], device=device))
    shape = 1, config.kv_heads, count, config.head_dim
    caches = [KeyValueState(weight.new_zeros(shape), weight.new_zeros(shape)) for _ in range(config.layers)]
    _, weights = run(decoding.model.model, x, caches, entries, Watched(every, order[None, -len(target) :]))
    assert weights is not None
    weights = weights[0].cpu()
    largest = weights[:, :, len(before) :].argmax(2)
    return weights[:, :, len(before) : behind].argmax(2), (largest < len(source)).float().mean(1)


def _correlation(places: Tensor) -> Tensor:
    """Of the places (heads, T) with their columns, (heads,)."""
    x = places.float() - places.float().mean(1, keepdim=True)
    t = torch.arange(places.shape[1], dtype=torch.float32)
    t = t - t.mean()
    scale = x.norm(dim=1) * t.norm()
    return torch.where(scale > 0, (x @ t) / scale.clamp(min=1e-6), 0.0)
