"""When is a word written? Each policy says what to look for, and how much of what was found is certain.

A policy looks at one stream: what was read, what is committed, and the drafts so far. None knows the model. The rules
are those of speech: see `loquent.speech.policies.commit`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from loquent.speech.policies.commit import CommitRule, HoldLast, LocalAgreement, Majority
from loquent.translate.memo import TranslationMemo
from loquent.translate.model import MOST_DRAFT, Search
from loquent.translate.options import TranslationOptions

LEAST_BEAM = 4  # hypotheses of a policy that lets them vote


@dataclass(frozen=True)
class Policy:
    """A way to decide.

    rule:       how much of the newest draft can be committed.
    most_words: words that may be written behind what is committed; None for any number, 0 for no draft.
    earlier:    drafts before the newest that the rule looks at, or that the next draft is held to.
    """

    rule: CommitRule
    most_words: int | None = None
    earlier: int = 0


def policy_of(name: str, options: TranslationOptions, memo: TranslationMemo) -> Policy:
    """The policy of a stream after it has read a word."""
    return POLICIES[name](options, memo)


def search_of(name: str, options: TranslationOptions, memo: TranslationMemo, closes: bool) -> Search | None:
    """What to look for after a word was read; None for nothing.

    Args:
        closes: whether the segment ends with the word: then all of its translation is looked for.
    """
    most_words = None if closes else policy_of(name, options, memo).most_words
    if most_words == 0:
        return None
    shown = memo.drafts[-1] if name == "re-translation" and memo.drafts else ()
    return Search(
        most_words=most_words,
        ended=closes,
        margin=options.margin if name == "alignatt" else None,
        beam=max(options.beam_size, LEAST_BEAM) if name == "ralcp" else options.beam_size,
        previous=shown,
        bias=options.bias if shown else 0.0,
        latency=options.latency,
    )


def _wait_k(options: TranslationOptions, memo: TranslationMemo) -> Policy:
    """The i-th word is written once k + i - 1 were read (Ma et al. 2019, arXiv 1810.08398, equation 2)."""
    return Policy(EVERYTHING, max(memo.count - options.k + 1 - memo.written, 0))


def _within(memo: TranslationMemo) -> int:
    """Words that a draft may have where the rule does not bound it: as many as were read.

    The translation of a prefix goes on where the prefix ends, for no end was read; what lies beyond is made up.
    """
    return max(memo.count - memo.written, 0)


EVERYTHING, NOTHING = HoldLast(0), HoldLast(MOST_DRAFT)
POLICIES: dict[str, Callable[[TranslationOptions, TranslationMemo], Policy]] = {
    "wait-k": _wait_k,
    "local-agreement": lambda options, memo: Policy(
        LocalAgreement(options.agreement), _within(memo), options.agreement - 1
    ),
    "hold": lambda options, memo: Policy(HoldLast(options.held), _within(memo)),
    "ralcp": lambda options, memo: Policy(Majority(options.votes), _within(memo)),
    "alignatt": lambda options, memo: Policy(EVERYTHING),  # the search itself ends where the source is too fresh
    "learned": lambda options, memo: Policy(EVERYTHING),  # and here where the model waits
    "re-translation": lambda options, memo: Policy(NOTHING, _within(memo), earlier=1),
    "offline": lambda options, memo: Policy(NOTHING, most_words=0),
}
