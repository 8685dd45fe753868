"""Several hypotheses of each stream, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch

from loquent.translate.model import Draft, Search
from loquent.translate.search.stepper import Stepper, first_scores, stop_before


@dataclass(frozen=True)
class _Hypothesis:
    stream: int
    score: float = 0.0  # sum of log-probabilities, that of the end included
    pieces: tuple[int, ...] = ()
    attended: tuple[int, ...] = ()
    probabilities: tuple[float, ...] = ()
    words: int = 0
    complete: bool = False
    breaks: bool = False

    @property
    def rank(self) -> float:
        """Mean log-probability of a piece, by which hypotheses of different lengths compare."""
        return self.score / (len(self.pieces) + self.complete or 1)

    def draft(self) -> Draft:
        return Draft(list(self.pieces), list(self.attended), list(self.probabilities), self.complete, self.breaks)


@dataclass
class _Stream:
    search: Search
    read: int
    done: list[_Hypothesis] = field(default_factory=list)
    finite: bool = True


def beam_search(stepper: Stepper, searches: Sequence[Search], size: int) -> list[Draft]:
    """The best hypothesis of each stream as its draft, with the others; given terms are not written.

    A hypothesis that stops (see `stop_before`) makes room for another one; a stream is done when ``size`` have stopped.
    """
    streams = [_Stream(search, read) for search, read in zip(searches, stepper.read, strict=True)]
    begun = [at for at, one in enumerate(streams) if one.search.most_words != 0 and one.search.most_pieces and one.read]
    live = [_Hypothesis(at) for at in begun]
    index = torch.tensor(begun, dtype=torch.long, device=stepper.first.device)
    stepper.select(index)
    pieces = stepper.first[index]
    while live:
        searched = [streams[one.stream].search for one in live]
        scores = stepper.step(pieces) if live[0].pieces else first_scores(stepper, pieces, searched)
        log_probabilities = scores.logits.float().log_softmax(-1)
        best, candidates = (one.tolist() for one in log_probabilities.topk(min(2 * size, scores.logits.shape[1])))
        attended = scores.attended.tolist()
        following: list[tuple[int, _Hypothesis]] = []
        for at, stream in enumerate(streams):
            own = [number for number, one in enumerate(live) if one.stream == at]
            if own:
                following += _continued(own, live, best, candidates, attended, stream, stepper, size)
        origin = torch.tensor([number for number, _ in following], dtype=torch.long, device=pieces.device)
        live = [one for _, one in following]
        stepper.select(origin)
        pieces = torch.tensor([one.pieces[-1] for one in live], dtype=torch.long, device=pieces.device)
    return [_result(stream) for stream in streams]


def _continued(
    own: Sequence[int],
    live: Sequence[_Hypothesis],
    best: Sequence[Sequence[float]],
    candidates: Sequence[Sequence[int]],
    attended: Sequence[int],
    stream: _Stream,
    stepper: Stepper,
    size: int,
) -> list[tuple[int, _Hypothesis]]:
    """The hypotheses of a stream that go on, with the numbers of those that they continue."""
    following: list[tuple[int, _Hypothesis]] = []
    stream.finite = all(best[number][0] > -float("inf") and best[number][0] == best[number][0] for number in own)
    if not stream.finite:
        return []
    ranked = sorted(
        ((live[n].score + s, n, p) for n in own for s, p in zip(best[n], candidates[n], strict=True)), reverse=True
    )
    for score, number, piece in ranked:
        if len(following) == size or len(stream.done) >= size:
            break
        before = live[number]
        begins = stepper.begins_word[piece] or not (before.pieces or stream.search.follows)
        stop = stop_before(
            *(piece, attended[number], before.words, len(before.pieces), stream.search, stream.read),
            end=stepper.end,
            begins=begins,
        )
        if stop is not None:
            ended = score if stop.complete else before.score
            one = replace(before, score=ended, complete=stop.complete, breaks=stop.breaks)
            if one.pieces not in [other.pieces for other in stream.done]:
                stream.done.append(one)
            continue
        probability = float(torch.tensor(score - before.score).exp())
        following.append(
            (
                number,
                replace(
                    before,
                    score=score,
                    pieces=(*before.pieces, piece),
                    attended=(*before.attended, attended[number]),
                    probabilities=(*before.probabilities, probability),
                    words=before.words + begins,
                ),
            )
        )
    return following if len(stream.done) < size else []


def _result(stream: _Stream) -> Draft:
    if not stream.finite:
        return Draft(finite=False)
    ranked = sorted(stream.done, key=lambda one: one.rank, reverse=True)
    if not ranked:
        return Draft()
    draft = ranked[0].draft()
    draft.others = [list(one.pieces) for one in ranked[1:]]
    return draft
