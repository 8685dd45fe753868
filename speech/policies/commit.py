"""When is a token certain? Commit rules for streaming hypotheses of speech or text.

A rule looks at consecutive hypotheses behind the same committed tokens and says how many tokens of the newest one to
commit. What is committed is never taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol


class Hypothesis(Protocol):
    """What the rules look at: the tokens that a model would write next, behind what is committed.

    tokens:        in order.
    probabilities: of each.
    attended:      source step that each attends to most, from the beginning of what the model sees: encoder frames of
                   speech, pieces of text. Empty if the model cannot tell.
    others:        tokens of the other hypotheses of a beam.
    """

    @property
    def tokens(self) -> Sequence[int]: ...

    @property
    def probabilities(self) -> Sequence[float]: ...

    @property
    def attended(self) -> Sequence[int]: ...

    @property
    def others(self) -> Sequence[Sequence[int]]: ...


class CommitRule(Protocol):
    """A streaming policy."""

    def __call__(self, previous: Sequence[Sequence[int]], hypothesis: Hypothesis, read: int) -> int:
        """Number of leading tokens of the hypothesis to commit.

        Args:
            previous: tokens of earlier hypotheses behind the same committed tokens, the newest last.
            hypothesis: the new one.
            read: source steps so far, counted as `Hypothesis.attended` is.
        """


@dataclass(frozen=True)
class LocalAgreement:
    """Commit what the last ``count`` hypotheses agree on: more of the source has not changed it.

    count: hypotheses that have to begin alike, the new one included.

    Source: LocalAgreement-n, Liu et al. 2020 (arXiv 2005.11185); for Whisper, Macháček et al. 2023 (arXiv 2307.14743).
    """

    count: int = 2

    def __call__(self, previous: Sequence[Sequence[int]], hypothesis: Hypothesis, read: int) -> int:
        """Length of the common prefix; 0 while there are fewer hypotheses."""
        earlier = previous[max(len(previous) - self.count + 1, 0) :]
        if len(earlier) < self.count - 1:
            return 0
        agreed = 0
        for token, *before in zip(hypothesis.tokens, *earlier, strict=False):
            if any(old != token for old in before):
                break
            agreed += 1
        return agreed


@dataclass(frozen=True)
class AlignAtt:
    """Commit up to the first token that attends most to the newest source steps, which may end in mid-word.

    margin: source steps at the end that are too fresh to be trusted.

    Source: Papi et al. 2023 (arXiv 2305.11408); for Whisper, Wang et al. 2024 (arXiv 2406.10052).
    """

    margin: int = 25

    def __call__(self, previous: Sequence[Sequence[int]], hypothesis: Hypothesis, read: int) -> int:
        """Number of tokens before the first that attends to the last ``margin`` steps or beyond, or no one knows."""
        for index, step in enumerate(hypothesis.attended):
            if step >= read - self.margin:
                return index
        return len(hypothesis.attended)


@dataclass(frozen=True)
class HoldLast:
    """Commit all but the last ``count`` tokens, which stay open to revision; with none of them, commit at once.

    Source: hold-n, Liu et al. 2020 (arXiv 2005.11185); in speech, the greedy streaming decoder of CarelessWhisper
    (arXiv 2508.12301).
    """

    count: int = 2

    def __call__(self, previous: Sequence[Sequence[int]], hypothesis: Hypothesis, read: int) -> int:
        """Number of tokens before the last ``count``."""
        return max(len(hypothesis.tokens) - self.count, 0)


@dataclass(frozen=True)
class Majority:
    """Commit what most hypotheses of a beam have at the same place; without a beam, everything.

    votes: share of the hypotheses that have to have the token.

    Source: RALCP, relaxed agreement longest common prefix, Wang et al. 2023 (arXiv 2309.06706).
    """

    votes: float = 0.6

    def __call__(self, previous: Sequence[Sequence[int]], hypothesis: Hypothesis, read: int) -> int:
        """Number of tokens before the first that too few hypotheses have in its place."""
        candidates = [hypothesis.tokens, *hypothesis.others]
        for index, token in enumerate(hypothesis.tokens):
            agreeing = sum(len(one) > index and one[index] == token for one in candidates)
            if agreeing / len(candidates) < self.votes:
                return index
        return len(hypothesis.tokens)


@dataclass(frozen=True)
class Confident:
    """Commit what `LocalAgreement` does, and with it the tokens that follow as long as the model is sure of them.

    probability: that a token needs to be committed as soon as it is written.
    """

    probability: float = 0.9

    def __call__(self, previous: Sequence[Sequence[int]], hypothesis: Hypothesis, read: int) -> int:
        """Number of tokens before the first that is neither agreed on nor probable enough."""
        count = LocalAgreement()(previous, hypothesis, read)
        while count < len(hypothesis.tokens) and hypothesis.probabilities[count] >= self.probability:
            count += 1
        return count
