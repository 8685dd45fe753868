"""Pairs of sentences to batches: what the model reads, what it is to write, and what it may see at each piece."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from loquent.recipes.translation.corpus import Pair
from loquent.recipes.translation.noise import as_heard, misheard
from loquent.translate.pieces import Pieces

NEVER = 1 << 20  # number of a word that is not there
IGNORED = -100


@dataclass(frozen=True)
class ExampleOptions:
    """How sentences become examples.

    k:          the most words that are read before the first is written; drawn for each example from 1 to this.
    whole:      share of the examples that see the whole source at every piece.
    heard:      share whose source is lower case without punctuation, as from a recogniser.
    misheard:   of those, the share of words that are others, doubled or lost, at most; drawn for each.
    joined:     share of the batches whose examples are several sentences in a row.
    unfinished: share whose source has lost its full stop.
    """

    k: int = 9
    whole: float = 0.5
    heard: float = 0.25
    misheard: float = 0.1
    joined: float = 0.15
    unfinished: float = 0.05


class Examples:
    """Makes batches; everything about an example follows from the seed, the epoch and its number.

    Args:
        pairs: of sentences.
        pieces: of both languages.
        tag: of the language to translate to.
        options: see there.
        similar: words that may be misheard for each other.
        seed: of all choices.
    """

    def __init__(
        self,
        pairs: Sequence[Pair],
        pieces: Pieces,
        tag: str,
        options: ExampleOptions,
        similar: Mapping[str, Sequence[str]],
        seed: int,
    ) -> None:
        self.pairs, self.pieces, self.options, self.similar, self.seed = pairs, pieces, options, similar, seed
        self.tag = pieces.tags[tag]

    def batch(self, items: Sequence[int], epoch: int) -> dict[str, Tensor]:
        """One batch of the pairs with these numbers; see `batch_of`."""
        rng = random.Random(f"{self.seed} {epoch} {items[0]}")
        # A whole batch is joined or not, so that little is padded.
        each = rng.choice((2, 2, 3)) if rng.random() < self.options.joined else 1
        rows = []
        for at in range(0, len(items), each):
            pairs = [self.pairs[item] for item in items[at : at + each]]
            source, target = (" ".join(getattr(pair, side) for pair in pairs) for side in ("source", "target"))
            k = NEVER if rng.random() < self.options.whole else rng.randint(1, self.options.k)
            rows.append((self._noisy(source, rng), target, k))
        return batch_of(rows, self.pieces, self.tag)

    def _noisy(self, source: str, rng: random.Random) -> str:
        options = self.options
        if rng.random() < options.heard:
            return misheard(as_heard(source) or source, rng, self.similar, rng.random() * options.misheard)
        if rng.random() < options.unfinished:
            return source.rstrip(".") or source
        return source


def batch_of(rows: Sequence[tuple[str, str, int]], pieces: Pieces, tag: int) -> dict[str, Tensor]:
    """A batch of source, target and k (see `loquent.translate.seq2seq.network.seen`).

    Returns:
        ``source`` and ``source_words`` (B, S): pieces with the end behind them, and the numbers of their words;
        ``given`` (B, T): the tag and the pieces of the target; ``wanted`` (B, T): those that come next, `IGNORED`
        beyond the end; ``words`` (B, T): the numbers of their words; ``k`` (B,). All int64.
    """
    columns: dict[str, list[Tensor]] = {}
    for source, target, k in rows:
        read, written = pieces.encode(source), pieces.encode(target)
        numbers, others = pieces.words(read), pieces.words(written)
        values = {
            "source": [*read, pieces.end],
            "source_words": [*numbers, numbers[-1] + 1 if numbers else 0],
            "given": [tag, *written],
            "wanted": [*written, pieces.end],
            "words": [*others, others[-1] + 1 if others else 0],
        }
        for name, value in values.items():
            columns.setdefault(name, []).append(torch.tensor(value))
        columns.setdefault("k", []).append(torch.tensor(k))
    filler = {"source_words": NEVER, "wanted": IGNORED}
    batch = {
        name: pad_sequence(column, batch_first=True, padding_value=filler.get(name, 0))
        for name, column in columns.items()
        if name != "k"
    }
    return {**batch, "k": torch.stack(columns["k"])}
