"""Searches over CTC outputs: greedy, and a beam over prefixes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from loquent.asr.heads.ctc import CTCHead
from loquent.asr.search.biasing import Biasing, choose
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
from loquent.speech.nn.state import State, initial
from loquent.speech.nn.streaming import Chunk


@dataclass
class CTCGreedyState(State):
    """Where greedy streams are."""

    frames: Tensor  # (S,) int64, frames taken in
    previous: Tensor = initial(-1)  # noqa: RUF009  (S,) int64, id of the last frame, the blank included; -1 at the start


class CTCGreedySearch:
    """The best token of every frame; runs of a token count once, blanks not at all.

    A token is final at the first frame of its run, which is its time; its probability is that of this frame. Biased
    streams choose as `biasing.choose` says; going on with a run neither earns nor costs anything.
    """

    def __init__(self, head: CTCHead) -> None:
        self.head = head

    def initial_state(self, slots: int) -> CTCGreedyState:
        """Streams at their beginning."""
        zeros = torch.zeros(slots, dtype=torch.long, device=self.head.out.weight.device)
        return CTCGreedyState(zeros, zeros - 1)

    def start(self, phrases: Biasing | None = None) -> SearchMemo:
        """Memo of a stream, biased towards ``phrases``."""
        return SearchMemo(phrases)

    @torch.no_grad()
    def step(self, encoded: Chunk, state: CTCGreedyState, rows: Tensor, memos: Sequence[SearchMemo]) -> list[Advance]:
        """Tokens that begin in these frames."""
        if encoded.data.shape[1] == 0:
            return [Advance([], []) for _ in memos]
        return self.finish(self.scan(encoded, state, rows, memos), encoded, state, rows, len(memos))

    @torch.no_grad()
    def scan(
        self, encoded: Chunk, state: CTCGreedyState, rows: Tensor, memos: Sequence[SearchMemo] = ()
    ) -> tuple[Tensor, ...]:
        """See `DeviceSearch.scan`: where tokens begin, ids and log-probabilities (B, T), and the first frames (B,).

        ``memos`` are those of streams that may be biased, which waits for the device.
        """
        frames, previous = state.frames[rows], state.previous[rows]
        ids, log_probs = self._choose(encoded, previous, memos)
        before = torch.cat([previous[:, None], ids[:, :-1]], dim=1)
        begins = encoded.mask & (ids != before) & (ids != self.head.blank)
        newest = ids.gather(1, (encoded.length - 1).clamp(min=0)[:, None])[:, 0]
        state.previous[rows] = torch.where(encoded.length > 0, newest, previous)
        state.frames[rows] = frames + encoded.length
        return begins, ids, log_probs, frames

    def finish(
        self, scanned: Sequence[Tensor], encoded: Chunk, state: CTCGreedyState, rows: Tensor, streams: int
    ) -> list[Advance]:
        """See `DeviceSearch.finish`."""
        begins, ids, log_probs, frames = scanned
        committed: list[list[Token]] = [[] for _ in range(streams)]
        row, step = begins.nonzero(as_tuple=True)
        found = (row, ids[row, step], frames[row] + step, log_probs[row, step].exp())
        for b, *values in zip(*(column.tolist() for column in found), strict=True):
            committed[b].append(Token(*values))
        return [Advance(tokens, []) for tokens in committed]

    def flush(self, state: CTCGreedyState, rows: Tensor, memos: Sequence[SearchMemo]) -> list[Advance]:
        """Nothing is open; matches of phrases end here."""
        for memo in memos:
            decide(memo)
        return [Advance([], []) for _ in memos]

    def _choose(self, encoded: Chunk, previous: Tensor, memos: Sequence[SearchMemo]) -> tuple[Tensor, Tensor]:
        """The id of every frame (B, T) and its log-probability; frame by frame in the rows that are biased."""
        if all(memo.biasing is None for memo in memos):
            return self.head.best(encoded.data)
        log_probs = self.head(encoded.data)
        ids = log_probs.argmax(-1)
        self._bias(ids, log_probs, previous, encoded.length, memos)
        return ids, log_probs.gather(-1, ids[..., None])[..., 0]

    def _bias(
        self, ids: Tensor, log_probs: Tensor, previous: Tensor, length: Tensor, memos: Sequence[SearchMemo]
    ) -> None:
        """Choose again, frame by frame, in the rows that are biased."""
        for b, memo in enumerate(memos):
            if memo.biasing is None:
                continue
            hypothesis, last = memo.hypotheses[0], int(previous[b])
            change = memo.biasing.changes(hypothesis.node, self.head.vocabulary).to(log_probs.device)
            for t in range(int(length[b])):
                scores, now = log_probs[b, t], change[None]
                if 0 <= last < self.head.blank:  # a run may go on
                    now = now.clone()
                    now[0, last] = 0
                choice = int(choose(scores[None, None], now))
                if choice not in (last, self.head.blank):
                    hypothesis.node, _ = memo.biasing.advance(hypothesis.node, choice)
                    change = memo.biasing.changes(hypothesis.node, self.head.vocabulary).to(log_probs.device)
                ids[b, t] = last = choice


@dataclass
class CTCBeamState(State):
    """Where streams with a beam are; their hypotheses are in the memo."""

    frames: Tensor  # (S,) int64, frames taken in


class CTCBeamSearch:
    """The most probable prefixes, each summed over its alignments, with biasing and a language model.

    A token's time is the frame at which the prefix's best alignments emitted it. It is final when all hypotheses agree.

    Source: Hannun et al. 2014 (arXiv 1408.2873).
    """

    def __init__(self, head: CTCHead, options: BeamOptions | None = None, fusion: Fusion | None = None) -> None:
        self.head, self.options, self.fusion = head, options or BeamOptions(), fusion

    def initial_state(self, slots: int) -> CTCBeamState:
        """Streams at their beginning."""
        return CTCBeamState(torch.zeros(slots, dtype=torch.long, device=self.head.out.weight.device))

    def start(self, phrases: Biasing | None = None) -> SearchMemo:
        """Memo of a stream, biased towards ``phrases``."""
        return SearchMemo(phrases, [Hypothesis(context=self.fusion.scorer.start() if self.fusion else ())])

    @torch.no_grad()
    def step(self, encoded: Chunk, state: CTCBeamState, rows: Tensor, memos: Sequence[SearchMemo]) -> list[Advance]:
        """Advance every stream's hypotheses frame by frame."""
        vocabulary = self.head.vocabulary
        committed: list[list[Token]] = [[] for _ in memos]
        first, length, last = state.frames[rows].tolist(), encoded.length.tolist(), encoded.last.tolist()
        if encoded.data.shape[1]:
            log_probs = self.head(encoded.data)
            best, tokens = log_probs[..., :-1].topk(min(self.options.tokens, vocabulary), dim=-1)
            # What is far below the best of a frame, mostly the blank, is not tried.
            floor = (log_probs.amax(-1) - self.options.prune).tolist()
            scores, tried, table = best.tolist(), tokens.tolist(), log_probs.cpu().numpy()
        for t in range(max(length, default=0)):
            active = [b for b, frames in enumerate(length) if t < frames]
            candidates = {
                b: [pair for pair in zip(tried[b][t], scores[b][t], strict=True) if pair[1] > floor[b][t]]
                for b in active
            }
            lm = self._lm_scores([memos[b] for b in active if candidates[b]])
            for b in active:
                hypotheses = self._frame(memos[b], first[b] + t, table[b, t], candidates[b], lm)
                final, memos[b].hypotheses = settle(hypotheses, self.options.beam)
                committed[b] += final
        state.frames[rows] += encoded.length
        for b, memo in enumerate(memos):
            if last[b]:
                committed[b] += decide(memo)
        return [Advance(tokens, list(memo.hypotheses[0].tokens)) for tokens, memo in zip(committed, memos, strict=True)]

    def flush(self, state: CTCBeamState, rows: Tensor, memos: Sequence[SearchMemo]) -> list[Advance]:
        """Commit the best hypotheses; the language model starts anew."""
        committed = [decide(memo) for memo in memos]
        for memo in memos:
            memo.hypotheses[0].context = self.start().hypotheses[0].context
        return [Advance(tokens, []) for tokens in committed]

    def _lm_scores(self, memos: Sequence[SearchMemo]) -> dict[tuple[int, ...], list[float]]:
        """What the language model adds after every context that occurs."""
        contexts = list({hypothesis.context: None for memo in memos for hypothesis in memo.hypotheses})
        if self.fusion is None or not contexts:
            return {}
        return dict(zip(contexts, self.fusion.scores(contexts).tolist(), strict=True))

    def _frame(
        self,
        memo: SearchMemo,
        frame: int,
        log_probs: Sequence[float],
        candidates: list[tuple[int, float]],
        lm: dict[tuple[int, ...], list[float]],
    ) -> list[Hypothesis]:
        """All hypotheses after one more frame."""
        blank = float(log_probs[self.head.blank])
        out: dict[tuple[int, ...], Hypothesis] = {}

        def add(ids: tuple[int, ...], new: Hypothesis) -> None:
            old = out.get(ids)
            if old is None:
                out[ids] = new
                return
            if log_add(new.score, new.repeating) > log_add(old.score, old.repeating):
                old.tokens = new.tokens
            old.score, old.repeating = log_add(old.score, new.score), log_add(old.repeating, new.repeating)

        for old in memo.hypotheses:
            ids, every = old.ids, log_add(old.score, old.repeating)
            run = old.repeating + float(log_probs[old.last]) if old.last >= 0 else IMPOSSIBLE
            add(ids, Hypothesis(old.tokens, every + blank, run, old.bonus, old.last, old.node, old.context))
            for token, score in candidates:
                before = old.score if token == old.last else every
                if before + score <= IMPOSSIBLE / 2:
                    continue
                added = lm[old.context][token] if self.fusion else 0.0
                new = extend(old, Token(token, frame, math.exp(score)), IMPOSSIBLE, memo.biasing, self.fusion, added)
                new.repeating = before + score
                add((*ids, token), new)
        return list(out.values())
