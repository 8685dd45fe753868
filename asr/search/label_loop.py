"""The state of streams in a transducer search, and the greedy search as a loop of fixed length on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loquent.asr.heads.transducer import Transducer
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk


@dataclass
class TransducerState(State):
    """Where streams are and what their predictors have read; in a beam, with an axis of hypotheses after the slots."""

    frames: Tensor  # (S,) int64, frames taken in
    started: Tensor  # (S,) bool, whether the predictor has read the start token
    projection: Tensor  # (S, [K,] joint_dim) predictor output, projected for the joiner
    predictor: State  # (S, [K,] …)

    @classmethod
    def new(cls, transducer: Transducer, slots: int, *beam: int) -> TransducerState:
        """Streams at their beginning, with room for ``beam`` hypotheses each."""
        weight = transducer.joiner.pred.weight
        shape = (slots, *beam)
        predictor = transducer.predictor.initial_state(torch.Size(shape).numel())
        return cls(
            torch.zeros(slots, dtype=torch.long, device=weight.device),
            torch.zeros(slots, dtype=torch.bool, device=weight.device),
            weight.new_zeros(*shape, weight.shape[0]),
            predictor.map(lambda tensor: tensor.reshape(*shape, *tensor.shape[1:])),
        )

    def restart(self, rows: Tensor) -> None:
        """Let the predictors of streams forget what they have read."""
        self.started[rows] = False
        self.predictor.reset(rows)


class LabelLoop:
    """Some rounds of label-looping, each of which emits at most one token of every stream; nothing waits.

    Source: Bataev et al. 2024 (arXiv 2406.06220).

    Args:
        rounds: how many.
    """

    def __init__(self, transducer: Transducer, rounds: int) -> None:
        if rounds < 1:
            raise ValueError(f"a loop needs at least 1 round, got {rounds}")
        self.transducer, self.rounds = transducer, rounds

    def __call__(
        self, encoded: Chunk, state: TransducerState, rows: Tensor, at: Tensor, symbols: Tensor
    ) -> tuple[Tensor, ...]:
        """Go on in each stream from a frame.

        Args:
            encoded: frames (B, T, dim), T > 0.
            at: (B,) int64, the frame each stream is at; a stream whose length it is has been searched.
            symbols: (B,) int64, tokens that were emitted at that frame.

        Returns:
            ``at`` and ``symbols`` afterwards, the lengths, and (B, rounds) what was emitted: ids, the blank for
            nothing; frames; probabilities.
        """
        model, length = self.transducer, encoded.length
        enc, steps = model.joiner.enc(encoded.data), torch.arange(encoded.data.shape[1], device=rows.device)
        projection, predictor = state.projection[rows], state.predictor.gather(rows)
        start = torch.full_like(at, model.blank)
        projection, predictor = self._read(start, ~state.started[rows] & (length > 0), projection, predictor)
        emitted = list[tuple[Tensor, Tensor, Tensor]]()
        for _ in range(self.rounds):
            choice, log_probs = model.joiner.best(enc, projection[:, None])
            found = (choice != model.blank) & (steps >= at[:, None]) & (steps < length[:, None])
            some, frame = found.any(1), found.int().argmax(1)
            token = torch.where(some, choice.gather(1, frame[:, None])[:, 0], model.blank)
            emitted.append((token, frame, log_probs.gather(1, frame[:, None])[:, 0].exp()))
            symbols = torch.where(some, torch.where(frame == at, symbols, 0) + 1, 0)
            full = symbols == model.config.max_symbols
            at = torch.where(some, frame + full, length)
            symbols = symbols.masked_fill(full, 0)
            projection, predictor = self._read(token, some, projection, predictor)
        state.projection[rows] = projection
        state.predictor.scatter(rows, predictor)
        state.started[rows] |= length > 0
        return at, symbols, length, *(torch.stack(column, 1) for column in zip(*emitted, strict=True))

    def _read(self, tokens: Tensor, some: Tensor, projection: Tensor, predictor: State) -> tuple[Tensor, State]:
        """Let the predictors of some streams read a token each."""
        after, state = self.transducer.advance(tokens, predictor)
        changed = iter([tensor for _, tensor, _ in state.leaves()])

        def kept(old: Tensor) -> Tensor:
            return torch.where(some.view(-1, *[1] * (old.ndim - 1)), next(changed), old)

        return torch.where(some[:, None], after, projection), predictor.map(kept)
