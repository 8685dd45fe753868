"""When somebody's turn is over: by the silence after it, and by how its text reads.

People take over within a fifth of a second (Stivers et al. 2009, "Universals and cultural variation in turn-taking"),
which no silence threshold can do without interrupting; they know from the sentence where a turn may end. The rule here
is the simplest form of it: a silence ends a turn, and it has to be longer where the text cannot be complete in syntax
(Ford and Thompson 1996, "Interactional units in conversation"). A model that reads the state of the dialogue from the
recogniser, as in Freeze-Omni (arXiv 2411.00774) and MinMo (arXiv 2501.06282), has to be trained; a list of words has
not.
"""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True)
class TurnOptions:
    """When a turn ends; times in seconds of silence after the last speech.

    likely_s:     after which the end is likely: a reply is prepared.
    pause_s:      that ends a turn whose text may be complete, once the recogniser has closed the utterance.
    unfinished_s: that ends any turn.

    Raises:
        ValueError: the times are out of order.
    """

    likely_s: float = 0.25
    pause_s: float = 0.5
    unfinished_s: float = 2.0

    def __post_init__(self) -> None:
        if not 0 < self.likely_s <= self.pause_s <= self.unfinished_s:
            raise ValueError(f"expected 0 < likely_s <= pause_s <= unfinished_s, got {self}")

    def needed_s(self, text: str) -> float:
        """Silence that ends a turn with this text."""
        return self.unfinished_s if looks_unfinished(text) else self.pause_s


# Words that no English sentence ends with, full stop or not (recognisers like to set one): fillers, conjunctions,
# articles and possessives. Then words that seldom end one, unless there is a full stop: prepositions and auxiliaries.
_NEVER_LAST = frozenset(
    "uh um er erm and or but because if although unless until than whether the a an my your our their".split()
)
_SELDOM_LAST = frozenset(
    "so hmm when while since though its his every of for from with into onto at by to i'm you're we're they're i'll "
    "we'll is are was were".split()
)
_OPEN_ENDS = (",", ";", ":", "-", "–", "—", "…", "...", "，", "、", "；", "：")
_BACK_CHANNELS = frozenset(
    "mm hm mhm mm-hm mmhmm mm-hmm mhmm hmm uh-huh uhhuh huh ah oh aha yeah yep yes ok okay right sure".split()
)
_MOST_BACK_CHANNELS = 3  # words


def words_of(text: str) -> list[str]:
    """The words of a text without case and punctuation: what two ways to write the same speech have in common."""
    return re.findall(r"\w+(?:['’-]\w+)*", text.casefold())


def looks_unfinished(text: str) -> bool:
    """Whether a text ends where a sentence goes on: at a comma, a dash or an ellipsis, or at a word such as "and"."""
    ending = text.rstrip().rstrip("\"'”’)")
    if ending.endswith(_OPEN_ENDS):
        return True
    last = words_of(ending)[-1:]
    if ending.endswith(("?", "!")) or not last:
        return False
    return last[0] in _NEVER_LAST or (last[0] in _SELDOM_LAST and not ending.endswith("."))


def is_back_channel(text: str) -> bool:
    """Whether somebody only shows that they listen ("mm-hm", "yeah, okay")."""
    words = words_of(text)
    return 0 < len(words) <= _MOST_BACK_CHANNELS and all(word in _BACK_CHANNELS for word in words)
