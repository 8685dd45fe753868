"""What one stream of translation may choose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

PolicyName = Literal["wait-k", "local-agreement", "hold", "ralcp", "alignatt", "learned", "re-translation", "offline"]
Latency = Literal["low", "medium", "high"]


@dataclass(frozen=True)
class TranslationOptions:
    """Options of a stream; those of the policy may change while it runs.

    policy:       when a word is written: see docs/topics/simultaneous-translation.md. By default what suits the model.
    k:            wait-k: source words that are read before the first word is written, and stay ahead.
    agreement:    local-agreement: consecutive drafts that have to begin alike.
    held:         hold: pieces at the end of each draft that are held back.
    votes:        ralcp: share of the hypotheses of a beam that have to agree on a word.
    beam_size:    hypotheses that are followed.
    margin:       alignatt: newest source pieces that a written word must not attend to most.
    masked:       re-translation: words at the end of each draft that are not shown.
    bias:         re-translation: share of the probability that goes to what was shown before.
    latency:      learned: low, medium or high, for models that were taught several.
    drafts:       whether to show what is not committed yet, as the unstable tail of `Partial` events, from the third
                  word of a sentence on; behind a recogniser also what would come of words that it may still change.
    most_behind_words, most_behind_s: what is committed at the latest so many source words or seconds after the word it
                  stands for, certain or not.
    glossary:     words or phrases of the source, with what is written for them.
    keep:         words or phrases of the source that are written as they are.
    """

    policy: PolicyName | None = None
    k: int = 3
    agreement: int = 2
    held: int = 3
    votes: float = 0.6
    beam_size: int = 1
    margin: int = 2
    masked: int = 1
    bias: float = 0.0
    latency: Latency | None = None
    drafts: bool = False
    most_behind_words: int | None = None
    most_behind_s: float | None = None
    glossary: dict[str, str] = field(default_factory=dict)
    keep: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.policy not in (None, *get_args(PolicyName)):
            raise ValueError(f"policy: expected one of {', '.join(get_args(PolicyName))}, got {self.policy!r}")
        limits = {"k": 1000, "agreement": 10, "held": 100, "beam_size": 16, "margin": 1000, "masked": 100}
        for name, most in limits.items():
            least = 0 if name in ("held", "margin", "masked") else 1
            if not least <= getattr(self, name) <= most:
                raise ValueError(f"{name}: expected a number from {least} to {most}, got {getattr(self, name)}")
        if not 0 < self.votes <= 1:
            raise ValueError(f"votes: expected a share above 0 and at most 1, got {self.votes}")
        if not 0 <= self.bias < 0.5:  # from there on nothing would ever be revised
            raise ValueError(f"bias: expected a share from 0 to below 0.5, got {self.bias}")
        if self.most_behind_words is not None and self.most_behind_words < 1:
            raise ValueError(f"most_behind_words: expected 1 or more, got {self.most_behind_words}")
        if self.most_behind_s is not None and not self.most_behind_s > 0:
            raise ValueError(f"most_behind_s: expected a number above 0, got {self.most_behind_s}")
        if len(self.glossary) + len(self.keep) > MOST_TERMS:
            raise ValueError(
                f"glossary: expected at most {MOST_TERMS} terms, got {len(self.glossary) + len(self.keep)}"
            )


MOST_TERMS = 1000
