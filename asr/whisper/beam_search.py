"""The hypotheses of one window and how they go on: a beam, or independent samples. No model in here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from loquent.asr.options import Mode


@dataclass(frozen=True)
class DecodingOptions:
    """How one window is decoded."""

    mode: Mode = "transcribe"  # or "translate": into English, whatever is spoken
    language: str | None = None  # spoken, as code or English name; None: detect it
    temperature: float = 0.0  # 0: the most probable text; above: sample
    beam_size: int = 5  # hypotheses kept at temperature 0; 1 is greedy
    patience: float = 1.0  # a beam ends once beam_size · patience hypotheses have (arXiv 2204.05424)
    length_penalty: float = 1.0  # hypotheses are ranked by log-probability / length ** length_penalty
    best_of: int = 5  # samples drawn at a temperature above 0
    repetition_penalty: float = 1.0  # above 1, tokens that were written become less probable
    no_repeat_ngram_size: int = 0  # no sequence of so many tokens is written twice; 0: any may be
    suppress_tokens: tuple[int, ...] | None = None  # never written; -1 and None: what is written but not said
    suppress_blank: bool = True  # do not begin with a space or the end
    without_timestamps: bool = False  # text only
    max_initial_timestamp: float | None = 1.0  # latest first timestamp, in seconds
    sample_len: int | None = None  # most tokens; None: half of the decoder's context
    prompt: tuple[int, ...] = ()  # tokens of the text before the window
    prefix: tuple[int, ...] = ()  # tokens that the window's text begins with
    seed: int = 0  # of the sampling

    def __post_init__(self) -> None:
        if self.beam_size < 1 or self.best_of < 1:
            raise ValueError(f"beam_size and best_of must be at least 1, got {self.beam_size} and {self.best_of}")
        if self.temperature < 0 or self.patience <= 0:
            raise ValueError(f"expected temperature >= 0 and patience > 0, got {self.temperature} and {self.patience}")

    @property
    def hypotheses(self) -> int:
        """Hypotheses of a window that are alive at once."""
        return self.beam_size if self.temperature == 0 else self.best_of


@dataclass
class Branch:
    """One of the texts that a search follows."""

    slot: int  # in the decoder's pool
    tokens: list[int]  # after the prompt
    logprobs: list[float]  # of each
    score: float  # sum of log-probabilities


class Finished(NamedTuple):
    """A text that is over."""

    tokens: list[int]
    logprobs: list[float]  # of each
    score: float  # sum of log-probabilities, that of the end included


@dataclass
class BeamSearch:
    """The hypotheses of one window: a beam at temperature 0, independent samples above."""

    prompt: list[int]
    options: DecodingOptions
    index: int  # of the window in its batch: its slots are index · hypotheses …
    prefix: list[int] = field(default_factory=list)  # the end of the prompt that belongs to the window's text
    hypotheses: list[Branch] = field(init=False)
    finished: list[Finished] = field(default_factory=list)

    def __post_init__(self) -> None:
        base = self.index * self.options.hypotheses
        self.slots = range(base, base + self.options.hypotheses)
        self.hypotheses = [Branch(base, [], [], 0.0)]
        self.generator = torch.Generator().manual_seed(self.options.seed)

    @property
    def done(self) -> bool:
        """Whether the window needs no more steps."""
        return not self.hypotheses

    @property
    def length(self) -> int:
        """Tokens of each live hypothesis."""
        return len(self.hypotheses[0].tokens)

    def draw(self) -> Tensor:
        """Uniform numbers (hypotheses, N) that choose the next tokens: all samples at the start, then one each."""
        count = 1 if self.length else self.options.best_of
        return torch.rand(len(self.hypotheses), count, generator=self.generator)

    def advance(
        self, scores: np.ndarray, tokens: np.ndarray, eot: int, most: int, capacity: int
    ) -> list[tuple[int, int]]:
        """Continue every hypothesis, given candidates (hypotheses, N); returns the (from, to) slots to be copied."""
        total = scores + np.array([hypothesis.score for hypothesis in self.hypotheses])[:, None]
        width = total.shape[1]
        sampled = self.options.temperature > 0
        order = np.arange(total.size) if sampled else np.argsort(-total, axis=None, kind="stable")
        children: list[tuple[Branch, int, float, float]] = []
        for rank, flat in enumerate(order.tolist()):
            parent, column = divmod(flat, width)
            score = float(total[parent, column])
            if score == -np.inf or len(children) == self.options.hypotheses:
                break
            one, token = self.hypotheses[parent], int(tokens[parent, column])
            if token != eot:
                children.append((one, token, float(scores[parent, column]), score))
            elif rank < self.options.hypotheses:  # an end among the best; a worse one is no more than a candidate
                self.finished.append(Finished(one.tokens, one.logprobs, score))
        copies = self._settle(children)
        wanted = self.options.best_of if sampled else max(1, round(self.options.beam_size * self.options.patience))
        full = self.hypotheses and (self.length >= most or len(self.prompt) + self.length >= capacity)
        if full:
            best = sorted(self.hypotheses, key=lambda hypothesis: -hypothesis.score)
            left = best[: max(0, wanted - len(self.finished))]
            self.finished += [Finished(one.tokens, one.logprobs, one.score) for one in left]
        if full or len(self.finished) >= wanted:
            self.hypotheses = []
        return copies if self.hypotheses else []

    def _settle(self, children: list[tuple[Branch, int, float, float]]) -> list[tuple[int, int]]:
        """Give children slots: a parent's first child stays in its slot, further ones move to slots now free."""
        taken = {parent.slot for parent, *_ in children}
        free = iter([slot for slot in self.slots if slot not in taken])
        copies, settled = [], []
        for parent, token, logprob, score in children:
            slot = parent.slot
            if slot in taken:
                taken.remove(slot)
            else:
                slot = next(free)
                copies.append((parent.slot, slot))
            settled.append(Branch(slot, [*parent.tokens, token], [*parent.logprobs, logprob], score))
        self.hypotheses = settled
        return copies

    def best(self) -> Finished:
        """The best finished hypothesis, which may be empty."""
        if not self.finished:
            return Finished([], [], 0.0)
        penalty = self.options.length_penalty
        return max(self.finished, key=lambda one: one.score / max(len(one.tokens), 1) ** penalty)
