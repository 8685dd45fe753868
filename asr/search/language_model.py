"""Language models over tokens for shallow fusion, and a back-off n-gram read from an ARPA file."""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

Context = tuple[int, ...]
_KEPT = 4096  # contexts whose distributions are remembered


class TokenScorer(Protocol):
    """A language model over the tokens of a recogniser.

    What it needs of a hypothesis' past is a `Context`, a tuple of ints of bounded length that is kept with the
    hypothesis and saved with the stream: the last tokens, for an n-gram and for a neural model with a window.
    """

    def start(self) -> Context:
        """Context at the start of a stream."""

    def advance(self, context: Context, token: int) -> Context:
        """Context after one more token."""

    def scores(self, contexts: Sequence[Context]) -> Tensor:
        """Natural log-probabilities (N, V) of the next token after each of N contexts, float32."""


@dataclass(frozen=True)
class Fusion:
    """How a language model takes part in a search: each token adds weight · log p_lm(token) + token_bonus.

    The bonus makes up for the model's log-probabilities all being negative, which would favour short texts.

    Source: shallow fusion, Gulcehre et al. 2015 (arXiv 1503.03535).
    """

    scorer: TokenScorer
    weight: float = 0.3
    token_bonus: float = 0.0

    def scores(self, contexts: Sequence[Context]) -> Tensor:
        """What each next token adds, (N, V)."""
        return self.weight * self.scorer.scores(contexts) + self.token_bonus


class NGram:
    """Back-off n-gram model over tokens::

        log p(w | h) = log p*(w | h)                       if the model holds the n-gram (h, w)
                       log b(h) + log p(w | h without its first token)   otherwise

    Source: Katz 1987; the ARPA format of SRILM and KenLM, log10 in the file and natural logarithms here.
    """

    def __init__(self, orders: Sequence[Mapping[Context, tuple[float, float]]], vocabulary: int) -> None:
        """Build from {n-gram: (log p, log back-off weight)} for n = 1, 2, …; tokens are 0 … V - 1, and V begins texts.

        Tokens without a unigram have the probability of the least likely one.
        """
        if not orders or not orders[0]:
            raise ValueError("an n-gram model needs unigrams")
        self.vocabulary, self.order = vocabulary, len(orders)
        known = {gram[0]: p for gram, (p, _) in orders[0].items() if gram[0] < vocabulary}
        if not known:
            raise ValueError(f"none of the {len(orders[0])} unigrams is one of the {vocabulary} tokens")
        self._unigrams = torch.full((vocabulary,), float(min(known.values())))
        self._unigrams[list(known)] = torch.tensor(list(known.values()), dtype=torch.float32)
        self._backoff = {gram: backoff for grams in orders[:-1] for gram, (_, backoff) in grams.items()}
        self._following: dict[Context, dict[int, float]] = {}
        for grams in orders[1:]:
            for gram, (p, _) in grams.items():
                if gram[-1] < vocabulary:
                    self._following.setdefault(gram[:-1], {})[gram[-1]] = p
        self._distribution = lru_cache(_KEPT)(self._compute)

    @classmethod
    def from_arpa(cls, path: str | Path, pieces: Sequence[str]) -> NGram:
        """Read an ARPA file, plain or gzipped, whose words are pieces of the tokenizer.

        Args:
            path: the file.
            pieces: what each token is called in it, as `SubwordTokenizer.pieces`; n-grams with other words, </s> among
                them, are left out.

        Raises:
            ValueError: not an ARPA file, or one over other words.
        """
        ids = {piece: id_ for id_, piece in enumerate(pieces)} | {"<s>": len(pieces)}
        orders: list[dict[Context, tuple[float, float]]] = []
        path = Path(path)
        with gzip.open(path, "rt", encoding="utf-8") if path.suffix == ".gz" else path.open(encoding="utf-8") as lines:
            for number, line in enumerate(lines, 1):
                text = line.strip()
                if text.startswith("\\") and text.endswith("-grams:"):
                    orders.append({})
                elif text == "\\end\\":
                    break
                elif text and orders:
                    fields, order = text.split(), len(orders)
                    if len(fields) not in (order + 1, order + 2):
                        raise ValueError(f"{path}:{number}: expected a {order}-gram and its log10 p: {text!r}")
                    gram = tuple(ids.get(word, -1) for word in fields[1 : order + 1])
                    if -1 not in gram:
                        backoff = float(fields[order + 1]) if len(fields) == order + 2 else 0.0
                        orders[-1][gram] = (_natural(float(fields[0])), _natural(backoff))
        try:
            return cls(orders, len(pieces))
        except ValueError as error:
            raise ValueError(f"{path}: not an ARPA file over these {len(pieces)} tokens: {error}") from error

    def start(self) -> Context:
        """The beginning of a text."""
        return (self.vocabulary,) if self.order > 1 else ()

    def advance(self, context: Context, token: int) -> Context:
        """The last n - 1 tokens."""
        return (*context, token)[-(self.order - 1) :] if self.order > 1 else ()

    def scores(self, contexts: Sequence[Context]) -> Tensor:
        """Natural log-probabilities (N, V)."""
        return torch.stack([self._distribution(tuple(context)) for context in contexts])

    def _compute(self, context: Context) -> Tensor:
        if not context:
            return self._unigrams
        out = self._distribution(context[1:]) + self._backoff.get(context, 0.0)
        following = self._following.get(context)
        if following:
            out[list(following)] = torch.tensor(list(following.values()), dtype=out.dtype)
        return out


def _natural(log10: float) -> float:
    return log10 * math.log(10)
