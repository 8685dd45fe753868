"""Parts of speech (Penn Treebank), by an averaged perceptron that sees two tokens to either side.

Port of the tagger of hibari-tts 0.2.1 (Apache-2.0, Maureese Williams), whose weights were trained on the tags of
spaCy's en_core_web_sm (MIT, ExplosionAI), see `tts/assets/english/NOTICE`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

from loquent.tts.frontend.pronunciation.tables import Table

START = ("-START2-", "-START-")
END = ("-END-", "-END2-")


class Tagger:
    """Tags of consecutive tokens.

    Args:
        words: of each word its tag if it has only one, and "*" if features name it, separated by a tab.
        features: of each feature the weights of tags, in tenths: "NN=71 VB=-38".
    """

    def __init__(self, words: Table, features: Table) -> None:
        self._words, self._features = words, features
        self._known = lru_cache(maxsize=8192)(self._look_up)
        self._votes = lru_cache(maxsize=16384)(self._read_votes)
        self._cached = lru_cache(maxsize=16384)(self._predict)

    def __call__(self, tokens: Sequence[str]) -> list[str]:
        """A tag for each token."""
        names = [*START, *(self._known(token)[1] for token in tokens), *END]
        before, last = START
        tags = []
        for index, token in enumerate(tokens):
            tag = self._known(token)[0] or self._cached(
                token, tuple(names[index : index + 5]), index == 0, last, before
            )
            tags.append(tag)
            before, last = last, tag
        return tags

    def _look_up(self, token: str) -> tuple[str, str]:
        """The only tag of a token, or "", and its name in features."""
        tag = (self._words.get(token) or "\t").partition("\t")[0]
        name = _normal(token)
        return tag, name if (self._words.get(name) or "").endswith("*") else f"<{_shape(token)}>"

    def _predict(self, token: str, names: tuple[str, ...], first: bool, last: str, before: str) -> str:
        """The tag by the names of the tokens around it, its own in the middle, and the two tags before it."""
        two_before, one_before, own, one_after, two_after = names
        scores: dict[str, float] = {}
        for feature in (
            "b",
            f"s3={token[-3:]}",
            f"p1={token[0]}",
            f"w={own}",
            f"sh={_shape(token)}",
            "i0" if first else "i+",
            f"t-1={last}",
            f"t-2={before}",
            f"t-12={last},{before}",
            f"w-1={one_before}",
            f"s3-1={one_before[-3:]}",
            f"w-2={two_before}",
            f"w+1={one_after}",
            f"s3+1={one_after[-3:]}",
            f"w+2={two_after}",
        ):
            for tag, weight in self._votes(feature):
                scores[tag] = scores.get(tag, 0.0) + weight
        return max(scores, key=lambda tag: (scores[tag], tag))

    def _read_votes(self, feature: str) -> tuple[tuple[str, float], ...]:
        votes = (vote.rpartition("=") for vote in (self._features.get(feature) or "").split())
        return tuple((tag, int(weight) / 10) for tag, _, weight in votes)


def _normal(token: str) -> str:
    if "-" in token and token[0] != "-":
        return "!HYPHEN"
    if token.isdigit() and len(token) == 4:
        return "!YEAR"
    return "!DIGITS" if token[0].isdigit() else token.lower()


def _shape(token: str) -> str:
    if token.isalpha():
        if token.islower():
            return "x"
        if token.isupper():
            return "XX" if len(token) > 1 else "X1"
        return "Xx" if token[0].isupper() and token[1:].islower() else "xX"
    if token.isdigit():
        return "d"
    return "".join("d" if c.isdigit() else "x" if c.isalpha() else c for c in token[:4])
