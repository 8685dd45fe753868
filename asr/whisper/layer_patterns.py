"""Matches the names of layers with the patterns of PEFT, in bounded time whatever the patterns are.

PEFT takes the keys of `rank_pattern` and `alpha_pattern` for regular expressions (`get_pattern_key` of its
`utils/other.py`). Python's own matcher can take exponential time for some, so it gets only those that have nothing to
choose between. For others, this one follows all choices at once: it computes the set of places where a part of the
pattern can end, given the set of places where it may begin. The steps of this are counted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from functools import reduce

LONGEST_PATTERN = 512
MOST_PATTERNS = 4096  # one for every linear layer of the largest Whisper, twice
MOST_STEPS = 2_000_000  # of all matches together: some seconds

Places = frozenset[int]  # between the characters of a name
Part = Callable[[str, Places], Places]  # from where a part of a pattern may begin to where it then may end


class LayerPatterns:
    """Patterns for the names of layers, in order.

    A pattern matches a whole name, or what follows one of its dots. It may have characters, `.`, classes, groups,
    alternatives, repetitions, `^` and `$`.

    Attributes:
        steps: taken so far to match patterns that Python's matcher does not get.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        """Read the patterns.

        Raises:
            ValueError: there are too many, or one is too long, no regular expression, or has other parts in it.
        """
        self.patterns = tuple(patterns)
        self.steps = 0
        if len(self.patterns) > MOST_PATTERNS:
            raise ValueError(f"there are {len(self.patterns)} patterns for layers, expected {MOST_PATTERNS} at most")
        self._matchers = [self._matcher(pattern) for pattern in self.patterns]

    def find(self, name: str) -> str | None:
        """The first pattern that matches the name of a layer, None without one.

        Raises:
            ValueError: the patterns are so ambiguous that matching them takes too long.
        """
        both = zip(self.patterns, self._matchers, strict=True)
        return next((pattern for pattern, matches in both if matches(name)), None)

    def _matcher(self, pattern: str) -> Callable[[str], bool]:
        if len(pattern) > LONGEST_PATTERN:
            raise ValueError(
                f"the pattern {pattern[:40]!r}… has {len(pattern)} characters, expected {LONGEST_PATTERN} at most"
            )
        try:
            compiled = re.compile(rf"(?:.*\.)?(?:{pattern})$")
        except (re.error, OverflowError, RecursionError) as error:
            raise ValueError(f"the pattern {pattern!r} for layers is not a regular expression: {error}") from error
        if not re.search(r"[*+?{|(]", pattern):
            return lambda name: compiled.match(name) is not None
        part = _Parser(pattern, self._count).parse()

        def matches(name: str) -> bool:
            begins = {0} | {at + 1 for at, character in enumerate(name) if character == "."}
            return len(name) in part(name, frozenset(begins))

        return matches

    def _count(self, steps: int) -> None:
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise ValueError(f"the patterns {', '.join(self.patterns)[:80]!r} for layers take too long; simplify them")


class _Parser:
    """Turns a pattern, which `re` has compiled, into the function that matches it."""

    def __init__(self, pattern: str, count: Callable[[int], None]) -> None:
        self.pattern, self.count, self.at = pattern, count, 0

    def parse(self) -> Part:
        part = self._alternatives()
        if self.at < len(self.pattern):  # a parenthesis that closes none, which the group around the key would take
            raise self._refused()
        return part

    def _alternatives(self) -> Part:
        branches = [self._sequence()]
        while self._taken(r"\|"):
            branches.append(self._sequence())
        return lambda name, places: frozenset().union(*(branch(name, places) for branch in branches))

    def _sequence(self) -> Part:
        parts: list[Part] = []
        while self.at < len(self.pattern) and self.pattern[self.at] not in "|)":
            parts.append(self._repeated(self._atom()))
        return lambda name, places: reduce(lambda reached, part: part(name, reached), parts, places)

    def _atom(self) -> Part:
        if self._taken(r"\((\?:)?(?!\?)"):
            inside = self._alternatives()
            if not self._taken(r"\)"):
                raise self._refused()
            return inside
        if self._taken(r"\^"):
            return lambda name, places: places & {0}
        if self._taken(r"\$"):
            return lambda name, places: places & {len(name)}
        text = self._taken(r"\[\^?\]?(?:\\.|[^\\\]])*\]|\\[dDwWsS]|\\[^a-zA-Z0-9]|[^\\*+?{()]")
        if not text:
            raise self._refused()
        accepts = re.compile(text, re.DOTALL if text != "." else 0).fullmatch

        def step(name: str, places: Places) -> Places:
            self.count(1 + len(places))
            return frozenset(at + 1 for at in places if at < len(name) and accepts(name[at]))

        return step

    def _repeated(self, part: Part) -> Part:
        if not (text := self._taken(r"[*+?]|\{\d*,?\d*\}")):
            return part
        lazy = self._taken(r"\?")  # matches the same names
        if not lazy and self._taken(r"[*+?{]"):
            raise self._refused()
        least, most = {"*": (0, None), "+": (1, None), "?": (0, 1)}.get(text) or _bounds(text)

        def repeat(name: str, places: Places) -> Places:
            for _ in range(least):
                self.count(1)
                before, places = places, part(name, places)
                if places == before:  # as it then stays
                    break
            reached, newest, times = places, places, least
            while newest and (most is None or times < most):
                self.count(1)
                newest = part(name, newest) - reached
                reached |= newest
                times += 1
            return reached

        return repeat

    def _taken(self, expression: str) -> str:
        found = re.compile(expression, re.DOTALL).match(self.pattern, self.at)
        self.at = found.end() if found else self.at
        return found[0] if found else ""

    def _refused(self) -> ValueError:
        return ValueError(
            f"the pattern {self.pattern!r} for layers cannot be read at {self.pattern[self.at : self.at + 10]!r}; "
            "expected names with characters, classes, groups, alternatives and repetitions"
        )


def _bounds(text: str) -> tuple[int, int | None]:
    least, comma, most = text[1:-1].partition(",")
    if not comma:
        return int(least), int(least)
    return int(least or 0), int(most) if most else None
