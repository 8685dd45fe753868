"""What the searches over CTC and transducer outputs share: tokens, hypotheses, and when a token is final.

A search is a function of (encoder frames, state, memo): tensors lie in a pool of slots (`State`), everything else of a
stream in a `SearchMemo` of plain values. Both are bounded, whatever the length of the stream.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple, Protocol, runtime_checkable

from torch import Tensor

from loquent.asr.search.biasing import Biasing
from loquent.asr.search.language_model import Context, Fusion
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk

IMPOSSIBLE = -1e30  # stands for log 0, and can be written as JSON
MAX_OPEN = 64  # tokens that a beam may leave undecided


class Token(NamedTuple):
    """A recognised token.

    id:          0 … V - 1.
    frame:       encoder frame at which it was emitted, counted from the start of the stream.
    probability: that the model gave it there: of all tokens and the blank, at that frame, after the tokens before it;
                 without biasing and language model.
    """

    id: int
    frame: int
    probability: float


@dataclass(frozen=True)
class Advance:
    """What a step adds to a stream: tokens that are final, and those that may still change."""

    committed: list[Token]
    open: list[Token]


@dataclass
class Hypothesis:
    """One candidate for what follows the committed tokens.

    tokens:    not committed yet.
    score:     log-probability relative to the other hypotheses; in a CTC beam that of alignments ending in a blank.
    repeating: in a CTC beam, the log-probability of alignments that end in the last token.
    bonus:     what biasing and the language model have added.
    last:      the last token, committed or not, -1 before the first.
    node:      position in the biasing trie.
    context:   of the language model.
    """

    tokens: list[Token] = field(default_factory=list)
    score: float = 0.0
    repeating: float = IMPOSSIBLE
    bonus: float = 0.0
    last: int = -1
    node: int = 0
    context: Context = ()

    @property
    def total(self) -> float:
        """What hypotheses are ranked by."""
        return log_add(self.score, self.repeating) + self.bonus

    @property
    def ids(self) -> tuple[int, ...]:
        """Ids of the tokens that are not committed."""
        return tuple(token.id for token in self.tokens)


@dataclass
class SearchMemo:
    """Host-side state of one stream; greedy searches have one hypothesis, without open tokens."""

    biasing: Biasing | None = None
    hypotheses: list[Hypothesis] = field(default_factory=lambda: [Hypothesis()])

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return {
            "biasing": self.biasing and self.biasing.to_dict(),
            "hypotheses": [
                vars(hypothesis)
                | {"tokens": [list(token) for token in hypothesis.tokens]}
                | {"context": list(hypothesis.context)}
                for hypothesis in self.hypotheses
            ],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> SearchMemo:
        """Inverse of `to_dict`.

        Raises:
            ValueError: the values are not those of a search.
        """
        try:
            biasing = None if values["biasing"] is None else Biasing.from_dict(values["biasing"])
            hypotheses = [
                Hypothesis(
                    **{
                        **hypothesis,
                        "tokens": [Token(*token) for token in hypothesis["tokens"]],
                        "context": tuple(hypothesis["context"]),
                    }
                )
                for hypothesis in values["hypotheses"]
            ]
            nodes = biasing.nodes if biasing else 1
            sound = hypotheses and all(0 <= hypothesis.node < nodes for hypothesis in hypotheses)
        except (KeyError, TypeError) as error:
            raise ValueError(f"not the memo of a search: {error!r}") from error
        if not sound:
            raise ValueError(f"not the memo of a search: hypotheses {values['hypotheses']} for {nodes} biasing nodes")
        return cls(biasing, hypotheses)


class TokenSearch(Protocol):
    """From encoder frames to tokens.

    The laws: what is committed over a stream does not depend on how its frames are cut into chunks, nor on its slot and
    company; a copy of its slot and memo goes on as the original does; `last` leaves nothing open.
    """

    def initial_state(self, slots: int) -> State:
        """Pool of slots of streams at their beginning."""

    def start(self, phrases: Biasing | None = None) -> SearchMemo:
        """Memo of a stream at its beginning; ``phrases`` are what it is biased towards."""

    def step(self, encoded: Chunk, state: Any, rows: Tensor, memos: Sequence[SearchMemo]) -> list[Advance]:
        """Take in encoder frames, (B, T, dim); memos and the pool's rows are updated in place.

        Rows that end have nothing open.
        """

    def flush(self, state: Any, rows: Tensor, memos: Sequence[SearchMemo]) -> list[Advance]:
        """Make the best hypotheses final, at an endpoint; the streams go on, without memory of the words before it."""


@runtime_checkable
class DeviceSearch(Protocol):
    """A `TokenSearch` whose `step`, in streams that are not biased, is the device's; the host makes tokens of it."""

    def scan(self, encoded: Chunk, state: Any, rows: Tensor) -> tuple[Tensor, ...]:
        """Take in encoder frames (B, T, dim), T > 0; nothing waits. Returns what `finish` is to read."""

    def finish(
        self, scanned: Sequence[Tensor], encoded: Chunk, state: Any, rows: Tensor, streams: int
    ) -> list[Advance]:
        """What `step` gives of the same frames.

        Args:
            scanned: what `scan` gave, on the host.
            encoded, state, rows: that it was given.
            streams: rows that are no padding, the first ones.
        """


def log_add(a: float, b: float) -> float:
    """log(exp a + exp b)."""
    high, low = (a, b) if a > b else (b, a)
    return high + math.log1p(math.exp(low - high))


@dataclass(frozen=True)
class BeamOptions:
    """Extent of a beam search.

    beam:   hypotheses kept per stream.
    tokens: candidates tried per hypothesis and step.
    prune:  nats; candidates this much worse than the best are not tried. inf for none.
    """

    beam: int = 4
    tokens: int = 8
    prune: float = 10.0

    def __post_init__(self) -> None:
        if self.beam < 1 or self.tokens < 1 or not self.prune > 0:
            raise ValueError(f"beam and tokens must be at least 1 and prune positive, got {self}")


def extend(
    hypothesis: Hypothesis, token: Token, score: float, biasing: Biasing | None, fusion: Fusion | None, lm_score: float
) -> Hypothesis:
    """The hypothesis with one more token, whose alignments have log-probability ``score``."""
    node, bonus, context = hypothesis.node, hypothesis.bonus + lm_score, hypothesis.context
    if biasing:
        node, change = biasing.advance(node, token.id)
        bonus += change
    if fusion:
        context = fusion.scorer.advance(context, token.id)
    return Hypothesis([*hypothesis.tokens, token], score, IMPOSSIBLE, bonus, token.id, node, context)


def settle(hypotheses: Sequence[Hypothesis], beam: int) -> tuple[list[Token], list[Hypothesis]]:
    """Keep the best hypotheses after a frame, and commit what they agree on.

    When more than `MAX_OPEN` tokens would stay open, the best hypothesis decides about the oldest of them, and the
    hypotheses that disagree are dropped.

    Returns:
        The tokens that are final now, and the hypotheses (changed in place) without them, best first, the best with
        score 0.
    """
    kept = sorted(hypotheses, key=lambda hypothesis: -hypothesis.total)[:beam]
    best = kept[0]
    ids = [hypothesis.ids for hypothesis in kept]
    agreed = min(map(len, ids))
    while any(other[:agreed] != ids[0][:agreed] for other in ids[1:]):
        agreed -= 1
    longest = max(map(len, ids))
    if longest - agreed > MAX_OPEN:
        agreed = min(longest - MAX_OPEN, len(ids[0]))
        kept = [h for h in kept if h.ids[:agreed] == ids[0][:agreed] and len(h.tokens) - agreed <= MAX_OPEN]
    # Taken off the others, so that scores stay small in a stream of any length.
    committed, score, bonus = best.tokens[:agreed], log_add(best.score, best.repeating), best.bonus
    earliest = committed[-1].frame if committed else 0  # hypotheses may time the same token differently
    for h in kept:
        h.tokens = [token._replace(frame=max(token.frame, earliest)) for token in h.tokens[agreed:]]
        h.score, h.repeating, h.bonus = h.score - score, h.repeating - score, h.bonus - bonus
    return committed, kept


def decide(memo: SearchMemo) -> list[Token]:
    """Make the best hypothesis the only one and commit it; incomplete biasing matches give back what they earned."""
    biasing = memo.biasing

    def final(hypothesis: Hypothesis) -> float:
        return hypothesis.total + (biasing.finish(hypothesis.node) if biasing else 0.0)

    best = max(memo.hypotheses, key=final)
    memo.hypotheses = [replace(best, tokens=[], bonus=0.0, node=0)]
    return best.tokens
