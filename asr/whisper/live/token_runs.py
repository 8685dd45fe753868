"""Greedy decoding some tokens at a time: the device writes on by itself, and the host looks at them afterwards."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loquent.asr.whisper.live.draft_decoding import DraftDecoder, Writing, loops
from loquent.asr.whisper.model import TextDecoder
from loquent.asr.whisper.states import AudioMemory, DecoderState
from loquent.speech.nn.low_rank import Adapters
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk
from loquent.speech.nn.transfer import Fetched, staged
from loquent.speech.runtime.batch import bucket
from loquent.speech.runtime.replay import Replay


@dataclass
class DecoderPool(State):
    """What a decoder reads and writes: the hypotheses' past, and their audio."""

    decoder: DecoderState
    memory: AudioMemory


class TokenRun:
    """Some greedy steps of a decoder, each with the token that the one before found best; nothing waits.

    Args:
        bias: (V,) added to all scores.
        eot: a stream whose best token is this one has written enough.
        watch: (layer, head) pairs whose cross-attention is returned.
        steps: how many.
    """

    def __init__(
        self, decoder: TextDecoder, bias: Tensor, eot: int, watch: tuple[tuple[int, int], ...], steps: int
    ) -> None:
        self.decoder, self.bias, self.eot, self.watch, self.steps = decoder, bias, eot, watch, steps

    def __call__(
        self,
        first: Chunk,
        pool: DecoderPool,
        rows: Tensor,
        memory_rows: Tensor,
        room: Tensor,
        adapters: Adapters | None = None,
    ) -> tuple[Tensor, ...]:
        """Write on.

        Args:
            first: (B, 1) int64 the token that each stream feeds first, if any.
            rows, memory_rows: (B,) slots of the two parts of the pool.
            room: (B,) int64, most tokens that each stream may feed.

        Returns:
            What may follow each token, (B, steps): the best token, its score, the log-sum-exp of all scores; and the
            attention (B, steps, heads, frames) with which it would be written. Behind a stream's last step they mean
            nothing.
        """
        tokens, going = first.data, first.length > 0
        found = list[tuple[Tensor, ...]]()
        for step in range(self.steps):
            chunk = first.with_data(tokens, going.long())
            hidden, heads = self.decoder.attend(
                chunk, pool.decoder, rows, pool.memory, memory_rows, self.watch, adapters
            )
            assert heads is not None
            scores = self.decoder.logits(hidden[:, 0]).float() + self.bias
            best_score, best = scores.max(-1)
            found.append((best, best_score, scores.logsumexp(-1), heads[:, :, 0]))
            going = going & (best != self.eot) & (step + 1 < room)
            tokens = best[:, None]
        return tuple(torch.stack(column, 1) for column in zip(*found, strict=True))


class RunningDecoder(DraftDecoder):
    """A greedy `DraftDecoder` that writes what that one writes and waits for the device once for several tokens.

    Tokens that turn out not to be wanted are taken back. Where a loop begins, the host goes on by itself.

    Args:
        plain: that one.
        spare: whether the last slot of the decoder's pool is no stream's, to fill batches up with.
        steps: tokens of a run.
    """

    def __init__(self, plain: DraftDecoder, *, spare: bool = False, steps: int = 8) -> None:
        if plain.beam_size != 1:
            raise ValueError(f"only a greedy decoder can run ahead, got a beam of {plain.beam_size}")
        vars(self).update(vars(plain))
        self.spare = spare
        self._run = Replay(TokenRun(plain.decoder, plain.bias, plain.eot, plain.watch, steps))

    def _write_on(self, writing: Writing, scores: Tensor, attention: Sequence[Tensor]) -> None:
        """See `DraftDecoder._write_on`. What a stream with phrases prefers is the host's choice, token by token."""
        preferring = [index for index, draft in enumerate(writing.drafts) if draft.biasing]
        if preferring:
            chosen = [attention[index] for index in preferring]
            super()._write_on(writing.select(preferring), scores[preferring], chosen)
            rest = [index for index, draft in enumerate(writing.drafts) if not draft.biasing]
            if not rest:
                return
            writing, scores, attention = writing.select(rest), scores[rest], [attention[index] for index in rest]
        going = self._decide(writing, scores, attention)
        while going:
            writing = writing.select(going)
            going, looping = self._run_on(writing)
            if looping:  # the last token once more, for all the scores that follow it
                again = writing.select(list(looping))
                again.state.position[again.rows] -= 1
                hidden, _ = self._feed(again, [hypothesis.tokens[-1:] for hypothesis in again.hypotheses])
                decided = self._decide(again, self._scores(hidden[:, 0]), list(looping.values()))
                going += [list(looping)[i] for i in decided]

    def _run_on(self, writing: Writing) -> tuple[list[int], dict[int, Tensor]]:
        """Feed the last token of each text, and take up what follows it.

        Returns:
            Those that go on; and those in which a loop would begin, with the attention of its token.
        """
        start, going, looping, fed = writing.state.position[writing.rows], list[int](), dict[int, Tensor](), list[int]()
        *found, heads = self._launched(writing)
        rows = zip(*(tensor.tolist() for tensor in Fetched(*found).wait()), strict=True)
        for index, (draft, hypothesis, row) in enumerate(zip(writing.drafts, writing.hypotheses, rows, strict=False)):
            for step, (token, score, log_sum) in enumerate(zip(*row, strict=True)):
                attention = self._where(writing, index, heads[index, step, :, None])[0]
                full = len(hypothesis.tokens) >= draft.limit
                hypothesis.finite = math.isfinite(log_sum)
                if not hypothesis.finite:
                    break
                if not full and token != self.eot and loops(draft, hypothesis, token, attention):
                    looping[index] = attention
                    break
                hypothesis.complete = token == self.eot
                if hypothesis.complete or full:
                    break
                hypothesis.add(token, score, log_sum, attention)
            else:
                going.append(index)
            fed.append(step + 1)
        writing.state.position[writing.rows] = start + staged(fed, start.device)
        return going, looping

    def _launched(self, writing: Writing) -> tuple[Tensor, ...]:
        """What `TokenRun` gives."""
        state, memory, adapters = writing.state, writing.memory, writing.adapters
        count, device = len(writing.drafts), writing.rows.device
        pool = DecoderPool(state, memory)
        padding = bucket(count) - count if self.spare and adapters is None else 0
        rows, memory_rows = (
            torch.cat([own, own.new_full((padding,), part.slots - 1)])
            for own, part in ((writing.rows, state), (writing.memory_rows, memory))
        )
        last = [hypothesis.tokens[-1] for hypothesis in writing.hypotheses] + [0] * padding
        room = [a.limit - len(b.tokens) + 1 for a, b in zip(writing.drafts, writing.hypotheses, strict=True)]
        length = staged([1] * count + [0] * padding, device)
        first = Chunk(staged(last, device)[:, None], length, torch.zeros_like(length, dtype=torch.bool))
        more = memory_rows, staged(room + [0] * padding, device)
        if adapters is not None:
            return self._run.function(first, pool, rows, *more, adapters)
        return self._run(first, pool, rows, *more)
