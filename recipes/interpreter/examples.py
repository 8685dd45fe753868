"""Pairs of sentences to what an interleaved language model reads and writes."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from loquent.recipes.interpreter.chunks import merged, minimal_chunks
from loquent.recipes.translation.alignment import align
from loquent.recipes.translation.corpus import Pair
from loquent.translate.llm.model import LanguageModelTranslator
from loquent.translate.llm.settings import LATENCIES

IGNORED = -100


@dataclass(frozen=True)
class ChunkSizes:
    """Source words of a chunk, at least, by latency."""

    low: int = 2
    medium: int = 4
    high: int = 8


class InterpreterExamples:
    """Makes batches; the latency of an example follows from the seed, the epoch and its number.

    Args:
        pairs: of sentences, to be aligned with each other.
        translator: with the layout "interleaved".
        sizes: of chunks.
    """

    def __init__(
        self, pairs: Sequence[Pair], translator: LanguageModelTranslator, sizes: ChunkSizes, seed: int
    ) -> None:
        self.pairs, self.translator, self.sizes, self.seed = pairs, translator, sizes, seed
        self.words = [(pair.source.split(), pair.target.split()) for pair in pairs]
        links = align(self.words)
        self.chunks = [
            minimal_chunks(some, len(source), len(target))
            for some, (source, target) in zip(links, self.words, strict=True)
        ]

    def batch(self, items: Sequence[int], epoch: int) -> dict[str, Tensor]:
        """One batch of the pairs with these numbers.

        Returns:
            ``given`` (B, T) int64 pieces, and ``wanted`` (B, T) int64, those that come next; `IGNORED` where the
            instruction goes on and beyond the end.
        """
        rng = random.Random(f"{self.seed} {epoch} {items[0]}")
        return self.of([(item, rng.choice(LATENCIES)) for item in items])

    def of(self, chosen: Sequence[tuple[int, str]]) -> dict[str, Tensor]:
        """The batch of the pairs with these numbers and latencies; see `batch`."""
        examples = [self.example(item, latency) for item, latency in chosen]
        given = [torch.tensor(pieces[:-1]) for pieces, _ in examples]
        wanted = [torch.tensor([IGNORED] * (first - 1) + pieces[first:]) for pieces, first in examples]
        return {
            "given": pad_sequence(given, batch_first=True),
            "wanted": pad_sequence(wanted, batch_first=True, padding_value=IGNORED),
        }

    def example(self, item: int, latency: str) -> tuple[list[int], int]:
        """Pieces of a pair, and how many of them are the instruction."""
        translator, decoding = self.translator, self.translator.decoding
        (source, target), pieces = self.words[item], list(decoding.instruction_pieces(latency))
        first, read, written = len(pieces), 0, 0
        for chunk in merged(self.chunks[item], getattr(self.sizes, latency)):
            pieces += translator.codec.encode(" ".join(source[read : chunk.source]))
            pieces += [
                decoding.end_of_read,
                *translator.target_codec.encode(" ".join(target[written : chunk.target])),
                decoding.end,
            ]
            read, written = chunk
        return pieces, first

    def length(self, item: int) -> int:
        """Pieces of a pair, about."""
        return len(self.example(item, "medium")[0])
