"""When is a word written? Each policy says what to look for, and how much of what was found is certain.

A policy looks at one stream: what was read, what is committed, and the drafts so far. None knows the model.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from loquent.translate.memo import TranslationMemo
from loquent.translate.model import Draft, Search
from loquent.translate.options import TranslationOptions


@dataclass(frozen=True)
class Policy:
    """A way to decide.

    most_words: words that may be written behind what is committed; None for any number, 0 for no draft.
    certain:    number of pieces of the newest draft that can be committed, given the drafts before it.
    drafts:     drafts before the newest that ``certain`` looks at, or that the next one is held to.
    """

    most_words: Callable[[TranslationOptions, TranslationMemo], int | None]
    certain: Callable[[TranslationOptions, Draft, Sequence[Sequence[int]]], int]
    drafts: Callable[[TranslationOptions], int] = lambda options: 0


def search_of(policy: str, options: TranslationOptions, memo: TranslationMemo, closes: bool) -> Search | None:
    """What to look for after a word was read; None for nothing.

    Args:
        closes: whether the segment ends with the word: then all of its translation is looked for.
    """
    most_words = None if closes else POLICIES[policy].most_words(options, memo)
    if most_words == 0:
        return None
    retranslates = policy == "re-translation"
    return Search(
        most_words=most_words,
        ended=closes,
        margin=options.margin if policy == "alignatt" else None,
        beam=max(options.beam_size, 4) if policy == "ralcp" else options.beam_size,
        previous=memo.drafts[-1] if retranslates and memo.drafts else (),
        bias=options.bias if retranslates and options.beam_size == 1 else 0.0,
        latency=options.latency,
    )


def wait_k(options: TranslationOptions, memo: TranslationMemo) -> int:
    """Words that may be written: the i-th once k + i - 1 were read (Ma et al. 2019, arXiv 1810.08398, equation 2)."""
    return max(memo.count - options.k + 1 - memo.written, 0)


def agreed(options: TranslationOptions, draft: Draft, before: Sequence[Sequence[int]]) -> int:
    """Pieces that the last n drafts begin with (LocalAgreement-n, Liu et al. 2020, arXiv 2005.11185)."""
    wanted = options.agreement - 1
    if len(before) < wanted:
        return 0
    drafts = [draft.pieces, *before[len(before) - wanted :]]
    count = 0
    for column in zip(*drafts, strict=False):
        if len(set(column)) > 1:
            break
        count += 1
    return count


def held(options: TranslationOptions, draft: Draft, before: Sequence[Sequence[int]]) -> int:
    """All but the last n pieces (Hold-n, Liu et al. 2020, arXiv 2005.11185)."""
    return max(len(draft.pieces) - options.held, 0)


def majority(options: TranslationOptions, draft: Draft, before: Sequence[Sequence[int]]) -> int:
    """Pieces that enough hypotheses of the beam begin with (RALCP, Wang et al. 2023, arXiv 2309.06706, algorithm 1)."""
    candidates = [draft.pieces, *draft.others]
    count = 0
    while count < len(draft.pieces):
        votes = Counter(tuple(one[: count + 1]) for one in candidates if len(one) > count)
        if votes[tuple(draft.pieces[: count + 1])] < options.votes * len(candidates):
            break
        count += 1
    return count


def _everything(options: TranslationOptions, draft: Draft, before: Sequence[Sequence[int]]) -> int:
    return len(draft.pieces)


def _nothing(options: TranslationOptions, draft: Draft, before: Sequence[Sequence[int]]) -> int:
    return 0


def _any(options: TranslationOptions, memo: TranslationMemo) -> int | None:
    return None


POLICIES: dict[str, Policy] = {
    "wait-k": Policy(wait_k, _everything),
    "local-agreement": Policy(_any, agreed, lambda options: options.agreement - 1),
    "hold": Policy(_any, held),
    "ralcp": Policy(_any, majority),
    "alignatt": Policy(_any, _everything),  # the search itself ends where the source is too fresh
    "learned": Policy(_any, _everything),  # and here where the model waits
    "re-translation": Policy(_any, _nothing, lambda options: 1),
    "offline": Policy(lambda options, memo: 0, _nothing),
}
