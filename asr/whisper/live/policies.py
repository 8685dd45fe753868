"""When is a word certain? Commit rules for streaming hypotheses.

A rule looks at two consecutive hypotheses over the same committed text and says how many tokens of the newer one to
commit. What is committed is never taken back.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from torch import Tensor


class ScoredHypothesis(Protocol):
    """What the rules look at, of each token: its probability, and its attention to the audio (frames,)."""

    @property
    def tokens(self) -> Sequence[int]: ...

    @property
    def probabilities(self) -> Sequence[float]: ...

    @property
    def attention(self) -> Sequence[Tensor]: ...


class CommitRule(Protocol):
    """A streaming policy."""

    def __call__(self, previous: list[int], hypothesis: ScoredHypothesis, frames: int) -> int:
        """Number of leading tokens of the hypothesis to commit.

        Args:
            previous: tokens of the last hypothesis that were not committed.
            hypothesis: the new one, after the same prefix.
            frames: encoder frames (20 ms) of audio so far.
        """


@dataclass(frozen=True)
class LocalAgreement:
    """Commit what two consecutive hypotheses agree on: one more chunk of audio has not changed it.

    Source: LocalAgreement-2, Liu et al. 2020 (arXiv 2005.11185); for Whisper, Macháček et al. 2023 (arXiv 2307.14743).
    """

    def __call__(self, previous: list[int], hypothesis: ScoredHypothesis, frames: int) -> int:
        """Length of the common prefix."""
        agreed = 0
        for old, new in zip(previous, hypothesis.tokens, strict=False):
            if old != new:
                break
            agreed += 1
        return agreed


@dataclass(frozen=True)
class AlignAtt:
    """Commit up to the first token that attends most to the newest frames, where the audio may be cut in mid-word.

    margin: frames (20 ms) at the end of the audio that are too fresh to be trusted.

    Source: Papi et al. 2023 (arXiv 2305.11408); for Whisper, Wang et al. 2024 (arXiv 2406.10052).
    """

    margin: int = 25

    def __call__(self, previous: list[int], hypothesis: ScoredHypothesis, frames: int) -> int:
        """Number of tokens before the first one that attends to the last ``margin`` frames or beyond."""
        for index, weights in enumerate(hypothesis.attention):
            if int(weights.argmax()) >= frames - self.margin:
                return index
        return len(hypothesis.tokens)


@dataclass(frozen=True)
class HoldLast:
    """Commit all but the last ``count`` tokens, which stay open to revision; with none of them, commit at once.

    Source: the greedy streaming decoder of CarelessWhisper (arXiv 2508.12301).
    """

    count: int = 2

    def __call__(self, previous: list[int], hypothesis: ScoredHypothesis, frames: int) -> int:
        """Number of tokens before the last ``count``."""
        return max(len(hypothesis.tokens) - self.count, 0)


@dataclass(frozen=True)
class Confident:
    """Commit what `LocalAgreement` does, and with it the tokens that follow as long as the model is sure of them.

    probability: that a token needs to be committed as soon as it is written.
    """

    probability: float = 0.9

    def __call__(self, previous: list[int], hypothesis: ScoredHypothesis, frames: int) -> int:
        """Number of tokens before the first that is neither agreed on nor probable enough."""
        count = LocalAgreement()(previous, hypothesis, frames)
        while count < len(hypothesis.tokens) and hypothesis.probabilities[count] >= self.probability:
            count += 1
        return count
