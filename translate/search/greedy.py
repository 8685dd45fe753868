"""The likeliest piece at every step, or the one that was shown before, or the one that is given."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from loquent.translate.model import Draft, Search
from loquent.translate.search.stepper import Scores, Stepper, first_scores, stop_before


def greedy_search(stepper: Stepper, searches: Sequence[Search]) -> list[Draft]:
    """A draft for each stream; all are written in one batch, which those that have ended leave."""
    found = [_Hypothesis(search, read) for search, read in zip(searches, stepper.read, strict=True)]
    live = [hypothesis for hypothesis in found if hypothesis.may_begin]
    pieces = stepper.first
    if len(live) < len(found):
        begun = _index([at for at, hypothesis in enumerate(found) if hypothesis.may_begin], pieces)
        stepper.select(begun)
        pieces = pieces[begun]
    while live:
        written = live[0].draft.pieces
        scores = stepper.step(pieces) if written else first_scores(stepper, pieces, [one.search for one in live])
        chosen, probabilities, attended, finite = _likeliest(scores, live)
        going = [
            hypothesis.add(*values, stepper)
            for hypothesis, values in zip(live, zip(chosen, probabilities, attended, finite, strict=True), strict=True)
        ]
        kept = [at for at, goes in enumerate(going) if goes]
        if len(kept) < len(live):
            stepper.select(_index(kept, pieces))
        live = [live[at] for at in kept]
        pieces = torch.tensor([hypothesis.draft.pieces[-1] for hypothesis in live], device=pieces.device)
    return [hypothesis.draft for hypothesis in found]


class _Hypothesis:
    def __init__(self, search: Search, read: int) -> None:
        self.search, self.read, self.draft, self.words = search, read, Draft(), 0
        self.given: list[int] = []  # pieces of a term, still to be written

    @property
    def may_begin(self) -> bool:
        """Whether anything may be written at all."""
        return self.search.most_words != 0 and self.search.most_pieces > 0 and self.read > 0

    @property
    def expected(self) -> int:
        """The piece of the draft before this one, as long as this one is the same; else -1."""
        previous, at = self.search.previous, len(self.draft.pieces)
        same = at < len(previous) and list(previous[:at]) == self.draft.pieces
        return previous[at] if same else -1

    def add(self, piece: int, probability: float, attended: int, finite: bool, stepper: Stepper) -> bool:
        """Append a piece, or the one that is given instead; returns whether the hypothesis goes on."""
        draft, search = self.draft, self.search
        if not finite:
            draft.finite = False
            return False
        begins = stepper.begins_word[piece] or not (draft.pieces or search.follows)
        if self.given:
            piece, begins = self.given.pop(0), False
        else:
            if term := self._term(attended, begins, piece == stepper.end):
                piece, *self.given = search.terms[term - 1].pieces
                draft.written.append(term - 1)
                begins = True
            stop = stop_before(
                *(piece, attended, self.words, len(draft.pieces), search, self.read),
                end=stepper.end,
                begins=begins,
            )
            if stop is not None:
                draft.complete, draft.breaks = stop
                if term:
                    draft.written.pop()
                return False
        self.words += begins
        draft.pieces.append(piece)
        draft.attended.append(attended)
        draft.probabilities.append(probability)
        return True

    def _term(self, attended: int, begins: bool, ends: bool) -> int:
        """The number, from 1, of the term that is written here; 0 for none.

        It is the one whose source is looked at where a word may begin (Song et al. 2020, "Alignment-enhanced
        Transformer for constraining NMT with pre-specified translations"); before the end of a segment, any that is
        left.
        """
        for number, term in enumerate(self.search.terms, start=1):
            looked_at = (begins or ends) and term.first <= attended <= term.last
            if number - 1 not in self.draft.written and (looked_at or (ends and self.search.ended)):
                return number
        return 0


def _likeliest(scores: Scores, live: Sequence[_Hypothesis]) -> tuple[list[int], list[float], list[int], list[bool]]:
    """Of each hypothesis: the piece, its probability, the source piece it attends to, and whether these are numbers."""
    log_probabilities = scores.logits.float().log_softmax(-1)
    best, pieces = log_probabilities.max(-1)
    if any(hypothesis.search.bias for hypothesis in live):
        # Arivazhagan et al. 2020 (arXiv 2004.03643), equation 2: p' = (1 - β) p + β [y = y_prev].
        bias = torch.tensor([hypothesis.search.bias for hypothesis in live], device=best.device)
        expected = torch.tensor([hypothesis.expected for hypothesis in live], device=best.device)
        kept = log_probabilities.gather(1, expected.clamp(min=0)[:, None])[:, 0].exp() * (1 - bias) + bias
        wins = (expected >= 0) & (kept >= best.exp() * (1 - bias))
        pieces = torch.where(wins, expected, pieces)
        best = log_probabilities.gather(1, pieces[:, None])[:, 0]
    return pieces.tolist(), best.exp().tolist(), scores.attended.tolist(), torch.isfinite(best).tolist()


def _index(kept: Sequence[int], like: Tensor) -> Tensor:
    return torch.tensor(kept, dtype=torch.long, device=like.device)
