"""Beam search over transducer outputs: the hypotheses of all streams are one batch."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from loquent.asr.heads.transducer import Transducer
from loquent.asr.search.biasing import Biasing
from loquent.asr.search.label_loop import TransducerState
from loquent.asr.search.language_model import Fusion
from loquent.asr.search.tokens import (
    IMPOSSIBLE,
    Advance,
    BeamOptions,
    Hypothesis,
    SearchMemo,
    Token,
    decide,
    extend,
    log_add,
    settle,
)
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk

Ids = tuple[int, ...]
_UNTIDY = 4  # predictors per hypothesis above which they are sorted out


class TransducerBeamSearch:
    """The most probable token sequences, frame by frame, each summed over the alignments that the beam meets.

    At every frame hypotheses are extended by up to `max_symbols` tokens; those that have emitted the blank wait, merged
    with others of the same tokens, until the frame is done. With an unlimited beam the scores are those of the
    transducer loss. A token is final when all hypotheses agree.

    Hypotheses are saved in the memo, best first; row k of a slot in the pool holds the predictor of hypothesis k.

    Source: Graves 2012 (arXiv 1211.3711), section 2.4; frame-synchronous with a limit per frame as in Kim et al. 2020
    (arXiv 2005.00188, "adaptive expansion search").
    """

    def __init__(
        self, transducer: Transducer, options: BeamOptions | None = None, fusion: Fusion | None = None
    ) -> None:
        self.transducer, self.options, self.fusion = transducer, options or BeamOptions(), fusion

    def initial_state(self, slots: int) -> TransducerState:
        """Streams at their beginning."""
        return TransducerState.new(self.transducer, slots, self.options.beam)

    def start(self, phrases: Biasing | None = None) -> SearchMemo:
        """Memo of a stream, biased towards ``phrases``."""
        return SearchMemo(phrases, [Hypothesis(context=self.fusion.scorer.start() if self.fusion else ())])

    @torch.no_grad()
    def step(self, encoded: Chunk, state: TransducerState, rows: Tensor, memos: Sequence[SearchMemo]) -> list[Advance]:
        """Advance every stream's hypotheses frame by frame."""
        committed: list[list[Token]] = [[] for _ in memos]
        first, length, last = state.frames[rows].tolist(), encoded.length.tolist(), encoded.last.tolist()
        state.frames[rows] += encoded.length
        if any(length):
            self._start(state, rows)
            enc = self.transducer.joiner.enc(encoded.data)
            streams = [_Stream(memo, b) for b, memo in enumerate(memos)]
            predictors = _Predictors(self.transducer, state, rows, streams)
            for t in range(max(length)):
                active = [stream for stream in streams if t < length[stream.row]]
                self._frame(active, enc[:, t], predictors, [first[stream.row] + t for stream in active])
                for stream in active:
                    final, stream.memo.hypotheses = settle(list(stream.waiting.values()), self.options.beam)
                    committed[stream.row] += final
                    stream.forget(tuple(token.id for token in final))
                predictors.tidy(streams)
            predictors.save(state, rows, streams)
        for b, memo in enumerate(memos):
            if last[b]:
                committed[b] += self._decide(memo, state, rows[b])
        return [Advance(tokens, list(memo.hypotheses[0].tokens)) for tokens, memo in zip(committed, memos, strict=True)]

    def flush(self, state: TransducerState, rows: Tensor, memos: Sequence[SearchMemo]) -> list[Advance]:
        """Commit the best hypotheses; predictor and language model start anew."""
        committed = [decide(memo) for memo in memos]
        for memo in memos:
            memo.hypotheses[0].context = self.start().hypotheses[0].context
        state.restart(rows)
        return [Advance(tokens, []) for tokens in committed]

    def _decide(self, memo: SearchMemo, state: TransducerState, slot: Tensor) -> list[Token]:
        """Commit the best hypothesis; its predictor moves to the front."""
        before = [hypothesis.ids for hypothesis in memo.hypotheses]
        tokens = decide(memo)
        best = before.index(tuple(token.id for token in tokens))
        state.projection[slot, 0] = state.projection[slot, best].clone()
        for _, tensor, _ in state.predictor.leaves():
            tensor[slot, 0] = tensor[slot, best].clone()
        return tokens

    def _start(self, state: TransducerState, rows: Tensor) -> None:
        """Read the start token in the rows that are new."""
        new = rows[~state.started[rows]]
        if len(new):
            part = state.predictor.map(lambda tensor: tensor[new, 0])
            state.projection[new, 0], part = self.transducer.advance(torch.full_like(new, self.transducer.blank), part)
            for (_, tensor, _), (_, value, _) in zip(state.predictor.leaves(), part.leaves(), strict=True):
                tensor[new, 0] = value
            state.started[new] = True

    def _frame(
        self, streams: Sequence[_Stream], frames: Tensor, predictors: _Predictors, numbers: Sequence[int]
    ) -> None:
        """Extend the streams' hypotheses until all of them wait for the next frame."""
        frame_of = {stream.row: number for stream, number in zip(streams, numbers, strict=True)}
        extending = []
        for stream in streams:
            stream.waiting = {}
            extending += [(stream, hypothesis) for hypothesis in stream.memo.hypotheses]
        for symbols in range(self.transducer.config.max_symbols + 1):
            blanks, tokens, scores = self._outputs(extending, frames, predictors)
            candidates: dict[int, list[tuple[float, Hypothesis, int, float, float]]] = {}
            added = self._lm_scores(extending, tokens)
            for i, (stream, hypothesis) in enumerate(extending):
                stream.wait(hypothesis, hypothesis.score + blanks[i])
                for j, (token, score) in enumerate(zip(tokens[i], scores[i], strict=True)):
                    extra = added[i][j] if added else 0.0
                    bonus = hypothesis.bonus + extra
                    if stream.memo.biasing:
                        bonus += stream.memo.biasing.advance(hypothesis.node, token)[1]
                    total = hypothesis.score + score + bonus
                    candidates.setdefault(stream.row, []).append((total, hypothesis, token, score, extra))
            if symbols == self.transducer.config.max_symbols:
                return
            extending = []
            for stream in streams:
                found = candidates.get(stream.row)
                if not found:
                    continue
                floor = self._floor(stream, max(total for total, *_ in found))
                best = sorted((c for c in found if c[0] > floor), key=lambda c: -c[0])[: self.options.beam]
                for _, hypothesis, token, score, extra in best:
                    new = Token(token, frame_of[stream.row], math.exp(score))
                    longer = extend(hypothesis, new, hypothesis.score + score, stream.memo.biasing, self.fusion, extra)
                    extending.append((stream, longer))
            if not extending:
                return
            predictors.run(extending)

    def _outputs(
        self, extending: Sequence[tuple[_Stream, Hypothesis]], frames: Tensor, predictors: _Predictors
    ) -> tuple[list[float], list[list[int]], list[list[float]]]:
        """Log-probabilities of the blank, the most likely tokens, and their log-probabilities, per hypothesis."""
        row = torch.tensor([stream.row for stream, _ in extending], device=frames.device)
        log_probs = self.transducer.joiner(frames[row], predictors.projections(extending)).float().log_softmax(-1)
        scores, tokens = log_probs[:, :-1].topk(min(self.options.tokens, self.transducer.vocabulary), dim=-1)
        return log_probs[:, -1].tolist(), tokens.tolist(), scores.tolist()

    def _lm_scores(
        self, extending: Sequence[tuple[_Stream, Hypothesis]], tokens: list[list[int]]
    ) -> list[list[float]] | None:
        """What the language model adds to each hypothesis' candidates."""
        if self.fusion is None:
            return None
        scores = self.fusion.scores([hypothesis.context for _, hypothesis in extending])
        return scores.gather(1, torch.tensor(tokens, device=scores.device)).tolist()

    def _floor(self, stream: _Stream, best: float) -> float:
        """What an extension has to beat: the worst of a full beam, and the best by less than `prune`."""
        totals = sorted((hypothesis.total for hypothesis in stream.waiting.values()), reverse=True)
        floor = max(best, totals[0]) - self.options.prune
        return max(floor, totals[self.options.beam - 1]) if len(totals) >= self.options.beam else floor


@dataclass
class _Stream:
    """A row of the batch during a step: who waits for the next frame, and which predictor belongs to which tokens."""

    memo: SearchMemo
    row: int
    waiting: dict[Ids, Hypothesis] = field(default_factory=dict)
    predictor: dict[Ids, int] = field(default_factory=dict)  # row among the predictors of the batch

    def wait(self, hypothesis: Hypothesis, score: float) -> None:
        """Add a hypothesis that has emitted the blank, with its new score; one with the same tokens takes it in."""
        ids = hypothesis.ids
        other = self.waiting.get(ids)
        if other is None:
            values = vars(hypothesis) | {"score": score, "repeating": IMPOSSIBLE}
            self.waiting[ids] = Hypothesis(**values)
            return
        if score > other.score:
            other.tokens = hypothesis.tokens
        other.score = log_add(other.score, score)

    def forget(self, committed: Ids) -> None:
        """Keep the predictors of hypotheses that go on, under the names they have without the committed tokens."""
        kept, n = {hypothesis.ids for hypothesis in self.memo.hypotheses}, len(committed)
        self.predictor = {
            ids[n:]: index for ids, index in self.predictor.items() if ids[:n] == committed and ids[n:] in kept
        }


class _Predictors:
    """Predictor outputs and states of all hypotheses that a step meets, read from the pool and written back."""

    def __init__(
        self, transducer: Transducer, state: TransducerState, rows: Tensor, streams: Sequence[_Stream]
    ) -> None:
        self._transducer = transducer
        slots: list[int] = []
        beams: list[int] = []
        for stream in streams:
            for k, hypothesis in enumerate(stream.memo.hypotheses):
                stream.predictor[hypothesis.ids] = len(slots)
                slots.append(stream.row)
                beams.append(k)
        at = rows[torch.tensor(slots, device=rows.device)], torch.tensor(beams, device=rows.device)
        self._projection = state.projection[at]
        self._state: State = state.predictor.map(lambda tensor: tensor[at])

    def projections(self, extending: Sequence[tuple[_Stream, Hypothesis]]) -> Tensor:
        """Projected outputs (N, joint_dim) after the hypotheses' tokens."""
        index = [stream.predictor[hypothesis.ids] for stream, hypothesis in extending]
        return self._projection[torch.tensor(index, device=self._projection.device)]

    def run(self, extending: Sequence[tuple[_Stream, Hypothesis]]) -> None:
        """Read the last tokens of the hypotheses that are new."""
        new = [(stream, hypothesis.ids) for stream, hypothesis in extending if hypothesis.ids not in stream.predictor]
        if not new:
            return
        device = self._projection.device
        parents = torch.tensor([stream.predictor[ids[:-1]] for stream, ids in new], device=device)
        tokens = torch.tensor([ids[-1] for _, ids in new], device=device)
        projection, part = self._transducer.advance(tokens, self._state.gather(parents))
        for offset, (stream, ids) in enumerate(new):
            stream.predictor[ids] = self._projection.shape[0] + offset
        self._projection = torch.cat([self._projection, projection])
        joined = [torch.cat([a, b]) for (_, a, _), (_, b, _) in zip(self._state.leaves(), part.leaves(), strict=True)]
        parts = iter(joined)
        self._state = self._state.map(lambda _: next(parts))

    def tidy(self, streams: Sequence[_Stream]) -> None:
        """Drop the predictors that no stream refers to, once they are many."""
        wanted = [index for stream in streams for index in stream.predictor.values()]
        if self._projection.shape[0] < _UNTIDY * len(wanted):
            return
        index = torch.tensor(wanted, device=self._projection.device)
        self._projection, self._state = self._projection[index], self._state.gather(index)
        numbers = iter(range(len(wanted)))
        for stream in streams:
            stream.predictor = {ids: next(numbers) for ids in stream.predictor}

    def save(self, state: TransducerState, rows: Tensor, streams: Sequence[_Stream]) -> None:
        """Write the predictors of the hypotheses that go on into the pool."""
        kept = [
            (stream.row, k, stream.predictor[hypothesis.ids])
            for stream in streams
            for k, hypothesis in enumerate(stream.memo.hypotheses)
        ]
        row, beam, index = (torch.tensor(column, device=rows.device) for column in zip(*kept, strict=True))
        at = rows[row], beam
        state.projection[at] = self._projection[index]
        for (_, tensor, _), (_, value, _) in zip(state.predictor.leaves(), self._state.leaves(), strict=True):
            tensor[at] = value[index]
