"""Greedy search over transducer outputs, batched over streams."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from loquent.asr.heads.transducer import Transducer
from loquent.asr.search.biasing import Biasing, choose
from loquent.asr.search.label_loop import LabelLoop, TransducerState
from loquent.asr.search.tokens import Advance, SearchMemo, Token, decide
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk
from loquent.speech.nn.transfer import Fetched, sent
from loquent.speech.runtime.replay import Replay

_PAIRS = 32  # of streams and frames that are joined at once; few streams look at many frames


class TransducerGreedySearch:
    """The best token at every step, label-looping: the predictor runs only when some stream emits a token.

    For each stream the joiner looks at frames ahead, under one predictor output, for the first that is no blank. A
    token's time is the frame that emits it. Biased streams choose as `biasing.choose` says.

    Source: Graves 2012; Bataev et al. 2024 (arXiv 2406.06220) for label-looping.

    Args:
        run: tokens that each stream may emit in one `scan`; the few streams that emit more are scanned again.
    """

    def __init__(self, transducer: Transducer, run: int = 4) -> None:
        self.transducer, self._again = transducer, Replay(LabelLoop(transducer, run))

    def initial_state(self, slots: int) -> TransducerState:
        """Streams at their beginning."""
        return TransducerState.new(self.transducer, slots)

    def start(self, phrases: Biasing | None = None) -> SearchMemo:
        """Memo of a stream, biased towards ``phrases``."""
        return SearchMemo(phrases)

    @torch.no_grad()
    def step(self, encoded: Chunk, state: TransducerState, rows: Tensor, memos: Sequence[SearchMemo]) -> list[Advance]:
        """Tokens that these frames emit."""
        model, device = self.transducer, encoded.data.device
        committed: list[list[Token]] = [[] for _ in memos]
        first, length = state.frames[rows].tolist(), encoded.length.tolist()
        state.frames[rows] += encoded.length
        if not any(length):
            return [Advance([], []) for _ in memos]
        projection, predictor = self._started(state, rows)
        enc = model.joiner.enc(encoded.data)
        changes = self._changes(memos, device)
        at = [0] * len(memos)  # the frame that each stream is at
        symbols = [0] * len(memos)  # emitted at this frame
        while searching := [b for b, frames in enumerate(length) if at[b] < frames]:
            emitting: list[int] = []
            while searching:
                ahead = min(max(length[b] - at[b] for b in searching), max(1, _PAIRS // len(searching)))
                found = self._next(enc, projection, changes, searching, at, encoded.length, ahead)
                for b, step, id_, probability in zip(searching, *found, strict=True):
                    if step:
                        at[b], symbols[b] = at[b] + step, 0
                    if id_ == model.blank:
                        continue
                    committed[b].append(Token(id_, first[b] + at[b], probability))
                    emitting.append(b)
                    symbols[b] += 1
                    if symbols[b] == model.config.max_symbols:
                        at[b], symbols[b] = at[b] + 1, 0
                searching = [b for b in searching if at[b] < length[b] and b not in emitting]
            if not emitting:
                break
            index = torch.tensor(emitting, device=device)
            tokens = torch.tensor([committed[b][-1].id for b in emitting], device=device)
            projection[index], part = model.advance(tokens, predictor.gather(index))
            predictor.scatter(index, part)
            if changes is not None:
                self._follow(changes, emitting, memos, committed)
        state.projection[rows] = projection
        state.predictor.scatter(rows, predictor)
        return [Advance(tokens, []) for tokens in committed]

    @torch.no_grad()
    def scan(self, encoded: Chunk, state: TransducerState, rows: Tensor) -> tuple[Tensor, ...]:
        """See `DeviceSearch.scan`: the first frames (B,), and what `LabelLoop` gives."""
        first = state.frames[rows]
        state.frames[rows] = first + encoded.length
        start = torch.zeros_like(first)
        return first, *self._again.function(encoded, state, rows, start, start)

    @torch.no_grad()
    def finish(
        self, scanned: Sequence[Tensor], encoded: Chunk, state: TransducerState, rows: Tensor, streams: int
    ) -> list[Advance]:
        """See `DeviceSearch.finish`; what a run did not come to is looped over again."""
        committed: list[list[Token]] = [[] for _ in range(streams)]
        first, *found = scanned
        while True:
            at, symbols, length = found[:3]
            for b, begin, *some in zip(range(streams), first.tolist(), *(x.tolist() for x in found[3:]), strict=False):
                emitted = [one for one in zip(*some, strict=True) if one[0] != self.transducer.blank]
                committed[b] += [Token(id_, begin + frame, probability) for id_, frame, probability in emitted]
            if bool((at >= length).all()):
                return [Advance(tokens, []) for tokens in committed]
            device = encoded.data.device
            again = self._again(encoded, state, rows, sent(at, device), sent(symbols, device))
            found = list(Fetched(*again).wait())

    def flush(self, state: TransducerState, rows: Tensor, memos: Sequence[SearchMemo]) -> list[Advance]:
        """Nothing is open; matches of phrases end here, and the predictor starts anew."""
        for memo in memos:
            decide(memo)
        state.restart(rows)
        return [Advance([], []) for _ in memos]

    def _started(self, state: TransducerState, rows: Tensor) -> tuple[Tensor, State]:
        """Copies of the rows' predictor outputs and states, after the start token at least."""
        new = rows[~state.started[rows]]
        if len(new):
            start = torch.full_like(new, self.transducer.blank)
            state.projection[new], part = self.transducer.advance(start, state.predictor.gather(new))
            state.predictor.scatter(new, part)
            state.started[new] = True
        return state.projection[rows], state.predictor.gather(rows)

    def _next(
        self,
        enc: Tensor,
        projection: Tensor,
        changes: Tensor | None,
        searching: list[int],
        at: list[int],
        length: Tensor,
        ahead: int,
    ) -> tuple[list[int], list[int], list[float]]:
        """Look for the streams' next tokens within ``ahead`` frames.

        Returns:
            Frames to go on by, the token there (the blank for none), and its probability (for none, any).
        """
        device = enc.device
        row = torch.tensor(searching, device=device)
        frame = torch.tensor([at[b] for b in searching], device=device)[:, None] + torch.arange(ahead, device=device)
        inside = frame < length[row, None]
        frames = enc[row[:, None], frame.clamp(max=enc.shape[1] - 1)]
        if changes is None:
            choice, log_probs = self.transducer.joiner.best(frames, projection[row, None])
        else:
            logits = self.transducer.joiner(frames, projection[row, None])
            choice = choose(logits, changes[row])
            log_probs = logits.float().log_softmax(-1).gather(-1, choice[..., None])[..., 0]
        found = inside & (choice != self.transducer.blank)
        step = torch.where(found.any(1), found.int().argmax(1), inside.sum(1))
        pick = step.clamp(max=ahead - 1)[:, None]
        token = torch.where(found.any(1), choice.gather(1, pick)[:, 0], self.transducer.blank)
        probability = log_probs.gather(1, pick)[:, 0].exp()
        return step.tolist(), token.tolist(), probability.tolist()

    def _changes(self, memos: Sequence[SearchMemo], device: torch.device) -> Tensor | None:
        """What biasing adds to each stream's tokens, (B, V); None where no stream is biased."""
        if all(memo.biasing is None for memo in memos):
            return None
        vocabulary, none = self.transducer.vocabulary, torch.zeros(self.transducer.vocabulary)
        rows = [m.biasing.changes(m.hypotheses[0].node, vocabulary) if m.biasing else none for m in memos]
        return torch.stack(rows).to(device)

    def _follow(
        self, changes: Tensor, emitting: list[int], memos: Sequence[SearchMemo], committed: list[list[Token]]
    ) -> None:
        """Move the biased streams that have just emitted along their tries."""
        for b in emitting:
            biasing, hypothesis = memos[b].biasing, memos[b].hypotheses[0]
            if biasing:
                hypothesis.node, _ = biasing.advance(hypothesis.node, committed[b][-1].id)
                changes[b] = biasing.changes(hypothesis.node, self.transducer.vocabulary)
