"""Greedy decoding that starts from a draft: what the last step wrote is verified in one pass, then written on.

After every chunk of audio most of a streaming hypothesis stays as it was. The draft's tokens are fed together, as in
speculative decoding; it is kept up to the first token that the model would no longer write, and decoding goes on from
there.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor

from loquent.asr.adapters import Adapters
from loquent.asr.whisper import AudioMemory, DecoderState, TextDecoder
from loquent.speech.streaming import Chunk

SHORTEST_LOOP = 24  # tokens
LOOP = 32  # tokens that tell whether a text loops


@dataclass(frozen=True)
class Draft:
    """Where a hypothesis starts.

    prefix: tokens fed without question, at least one.
    tokens: hypothesis so far after the prefix, to be verified.
    scores: raw score that each of ``tokens`` had when it was last looked at.
    limit:  most tokens of the new hypothesis.
    past:   text tokens before the hypothesis, to recognise repetitions by.
    """

    prefix: list[int]
    tokens: list[int]
    scores: list[float]
    limit: int
    past: list[int] = field(default_factory=list)


@dataclass
class Hypothesis:
    """Tokens after a draft's prefix, with their raw scores, probabilities and attention to the audio (frames,).

    complete: whether the model had no more to say, rather than being cut by a limit.
    """

    tokens: list[int] = field(default_factory=list)
    scores: list[float] = field(default_factory=list)
    probabilities: list[float] = field(default_factory=list)
    attention: list[Tensor] = field(default_factory=list)
    complete: bool = False

    def add(self, token: int, score: float, log_sum: float, attention: Tensor) -> None:
        """Append a token with its raw score, the log-sum-exp of all scores, and its attention."""
        self.tokens.append(token)
        self.scores.append(score)
        self.probabilities.append(math.exp(score - log_sum))
        self.attention.append(attention)


def repeats(tokens: list[int]) -> bool:
    """Whether a text ends in one phrase said over and over: a model that has begun to loop.

    A phrase of n tokens counts from its fourth round on, and not before 24 tokens: people do say "no, no, no, no".
    """
    for size in range(1, LOOP // 4 + 1):
        span = size * max(4, -(-SHORTEST_LOOP // size))
        if len(tokens) >= span and tokens[-span:-size] == tokens[-span + size :]:
            return True
    return False


class DraftDecoder:
    """Greedy decoding of many streams at once. A hypothesis that begins to loop is ended where it does.

    Args:
        decoder: the text decoder.
        eot: the token that ends a hypothesis: "wait for more audio".
        suppressed: tokens never written.
        watch: (layer, head) pairs whose cross-attention follows the audio.
        lenient: also keep a drafted token whose raw score has risen since it was written, although another one is now
            ahead of it (the revision rule of arXiv 2508.12301); otherwise the result is that of decoding from the
            prefix.
    """

    def __init__(
        self,
        decoder: TextDecoder,
        eot: int,
        suppressed: tuple[int, ...],
        watch: tuple[tuple[int, int], ...],
        lenient: bool = False,
    ) -> None:
        self.decoder, self.eot, self.watch, self.lenient = decoder, eot, watch, lenient
        self.bias = torch.zeros(decoder.token_embedding.num_embeddings, device=decoder.ln.weight.device)
        self.bias[list(suppressed)] = -torch.inf

    def __call__(
        self,
        drafts: list[Draft],
        state: DecoderState,
        rows: Tensor,
        memory: AudioMemory,
        memory_rows: Tensor,
        adapters: Adapters | None = None,
    ) -> list[Hypothesis]:
        """Decode; the state holds what precedes the prefixes, and afterwards they and all but the last new token.

        Args:
            rows: (B,) slots of ``state``, one per draft.
            memory_rows: (B,) slots of ``memory``.
            adapters: of the drafts.
        """
        device = rows.device
        fed = [draft.prefix + draft.tokens for draft in drafts]
        lengths = torch.tensor([len(tokens) for tokens in fed], device=device)
        padded = torch.zeros(len(fed), int(lengths.max()), dtype=torch.long)
        for row, tokens in zip(padded, fed, strict=True):
            row[: len(tokens)] = torch.tensor(tokens)
        start = state.position[rows]
        chunk = Chunk(padded.to(device), lengths, torch.zeros_like(rows, dtype=torch.bool))
        hidden, attention = self.decoder.step(chunk, state, rows, memory, memory_rows, self.watch, adapters)
        assert attention is not None

        # Scores after the last token of each prefix and after every drafted token, in one product.
        after = [range(len(d.prefix) - 1, len(f)) for d, f in zip(drafts, fed, strict=True)]
        place = [(row, step) for row, steps in enumerate(after) for step in steps]
        row, step = torch.tensor(place, device=device).unbind(1)
        scores = self._scores(hidden[row, step])
        drafted = torch.tensor([t for draft in drafts for t in [*draft.tokens, self.eot]], device=device)
        old_scores = scores.gather(1, drafted[:, None])[:, 0].tolist()
        best_scores, best = (x.tolist() for x in scores.max(-1))
        log_sums = scores.logsumexp(-1).tolist()

        hypotheses, nexts, keep, at = [], [], [], 0
        for index, draft in enumerate(drafts):
            hypothesis, weights = Hypothesis(), attention[index, len(draft.prefix) - 1 :]
            for i, token in enumerate(draft.tokens[: draft.limit]):
                if best[at + i] != token and not (self.lenient and old_scores[at + i] > draft.scores[i]):
                    break
                hypothesis.add(token, old_scores[at + i], log_sums[at + i], weights[i])
            kept = len(hypothesis.tokens)
            nexts.append(self._next(draft, hypothesis, best[at + kept]))
            if nexts[-1] != self.eot:
                hypothesis.add(nexts[-1], best_scores[at + kept], log_sums[at + kept], weights[kept])
            hypotheses.append(hypothesis)
            keep.append(len(draft.prefix) + kept)
            at += len(draft.tokens) + 1
        state.position[rows] = start + torch.tensor(keep, device=device)

        chosen, before = adapters, len(drafts)
        while active := [i for i, token in enumerate(nexts) if token != self.eot]:
            newest = torch.tensor([[nexts[i]] for i in active], device=device)
            going = torch.tensor(active, device=device)
            if adapters is not None and len(active) < before:
                chosen, before = adapters.select(going), len(active)
            hidden, attention = self.decoder.step(
                Chunk.of(newest), state, rows[going], memory, memory_rows[going], self.watch, chosen
            )
            assert attention is not None
            scores = self._scores(hidden[:, 0])
            best_scores, best = (x.tolist() for x in scores.max(-1))
            log_sums = scores.logsumexp(-1).tolist()
            for n, i in enumerate(active):
                nexts[i] = self._next(drafts[i], hypotheses[i], best[n])
                if nexts[i] != self.eot:
                    hypotheses[i].add(best[n], best_scores[n], log_sums[n], attention[n, 0])
        return hypotheses

    def _next(self, draft: Draft, hypothesis: Hypothesis, best: int) -> int:
        """The token to add, or the end."""
        hypothesis.complete = best == self.eot
        cut = len(hypothesis.tokens) >= draft.limit or repeats([*draft.past, *hypothesis.tokens, best][-LOOP:])
        return self.eot if cut else best

    def _scores(self, hidden: Tensor) -> Tensor:
        return self.decoder.logits(hidden).float() + self.bias
