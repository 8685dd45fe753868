"""Contextual biasing: phrases that a stream is likely to contain make their tokens cheaper.

A trie over token ids with failure links (Aho and Corasick 1975). Every matched token earns its phrase's score at once;
what was earned is given back when the match breaks off before the phrase is complete.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import torch
from torch import Tensor


class Biasing:
    """The phrases of one stream. Immutable: one may serve many streams.

    A search walks along the trie: it keeps a node (an int, 0 at the start) per hypothesis and adds to the hypothesis'
    score what `advance` returns. Completed phrases keep their score; of phrases that overlap, the one completed first
    counts, and the next match begins after it, unless a longer phrase goes on from there.

    Source: the idea of the context graph of k2-fsa/icefall; scores given back as in its Aho-Corasick version.
    """

    def __init__(self, phrases: Iterable[tuple[Sequence[int], float]]) -> None:
        """Build from (tokens, score) pairs; the score, in nats per token, is typically 0.5 … 3.

        Raises:
            ValueError: an empty phrase, a negative token, or a score that is not a positive number.
        """
        self.phrases = tuple((tuple(int(token) for token in tokens), float(score)) for tokens, score in phrases)
        for tokens, score in self.phrases:
            if not tokens or min(tokens) < 0:
                raise ValueError(f"a phrase must be a non-empty list of token ids, got {list(tokens)}")
            if not 0 < score < math.inf:
                raise ValueError(f"the score of phrase {list(tokens)} must be positive nats per token, got {score}")
        # By node: the root is 0, children come after their parents.
        self._children: list[dict[int, int]] = [{}]
        self._token = [-1]
        self._parent = [0]
        self._depth = [0]
        self._score = [0.0]  # of the node's token; where phrases share a beginning, the highest counts
        self._complete = [False]
        for tokens, score in self.phrases:
            self._insert(tokens, score)
        self._worth = [0.0] * len(self._children)  # score of the match so far
        self._failure = [0] * len(self._children)  # the longest proper suffix that is in the trie too
        self._kept = [0.0] * len(self._children)  # what remains of the score when the match breaks off here
        self._kept_depth = [0] * len(self._children)  # and how many of its tokens that is for
        self._link()
        self._gains: dict[tuple[int, bool], tuple[Tensor, Tensor]] = {}

    @classmethod
    def of(cls, phrases: Iterable[Sequence[int]], score: float = 1.5) -> Self:
        """Phrases, as token ids, that all have the same score in nats per token."""
        return cls((tokens, score) for tokens in phrases)

    @property
    def nodes(self) -> int:
        """Number of nodes; one more than there are different beginnings of phrases."""
        return len(self._children)

    def advance(self, node: int, token: int) -> tuple[int, float]:
        """The node after one more token, and by how many nats the hypothesis' score changes."""
        child = self._children[node].get(token)
        if child is not None:
            return child, self._worth[child] - self._worth[node]
        given_back = self.finish(node)
        for suffix in self._suffixes(node):
            child = self._children[suffix].get(token)
            if child is not None:
                return child, given_back + self._worth[child]
        return 0, given_back

    def walk(self, tokens: Iterable[int], node: int = 0) -> int:
        """The node after some more tokens."""
        for token in tokens:
            node, _ = self.advance(node, token)
        return node

    def finish(self, node: int) -> float:
        """How the score changes when nothing follows: minus what an incomplete match has earned."""
        return self._kept[node] - self._worth[node]

    def changes(self, node: int, vocabulary: int) -> Tensor:
        """What `advance` would add for every token, (vocabulary,) float32."""
        given_back = self.finish(node)
        out = torch.full((vocabulary,), given_back)
        change: dict[int, float] = {}
        for suffix in reversed(list(self._suffixes(node))):
            for token, child in self._children[suffix].items():
                change[token] = given_back + self._worth[child]
        for token, child in self._children[node].items():
            change[token] = self._worth[child] - self._worth[node]
        inside = {token: value for token, value in change.items() if token < vocabulary}
        if inside:
            out[list(inside)] = torch.tensor(list(inside.values()))
        return out

    def gains(self, node: int, greedy: bool) -> list[tuple[Tensor, Tensor]]:
        """What sets the few tokens that are in phrases apart from the others as the next one: a sparse `changes`.

        Args:
            greedy: whether there is one hypothesis only. Nothing takes a match back then that began by mistake, so what
                it has earned must not speak for going on with it: within a match only the token that goes on with it
                gains, and no more than its score. Among several hypotheses everything counts that would be given back
                without the token.

        Returns:
            Parts that add up, each (N,) int64 tokens and (N,) float32 gains.
        """
        own = self._gains.get((node, greedy))
        alone = node == 0 or (greedy and self.finish(node) < 0)
        if own is None:
            gains = dict[int, float]()
            for place in [] if alone else reversed(list(self._suffixes(node))):
                gains |= {token: self._worth[child] for token, child in self._children[place].items()}
            for token, child in self._children[node].items():
                gains[token] = self._score[child] if greedy else self._worth[child] - self._kept[node]
            if not alone:
                root = {token: self._score[child] for token, child in self._children[0].items()}
                gains = {token: gain - root.get(token, 0.0) for token, gain in gains.items()}
            told = {token: gain for token, gain in gains.items() if gain}
            own = torch.tensor(list(told), dtype=torch.long), torch.tensor(list(told.values()))
            self._gains[node, greedy] = own
        return [own] if alone else [*self.gains(0, greedy), own]

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return {"phrases": [[list(tokens), score] for tokens, score in self.phrases]}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Inverse of `to_dict`; nodes keep their numbers.

        Raises:
            ValueError: the values are none.
        """
        try:
            return cls((tokens, score) for tokens, score in values["phrases"])
        except (KeyError, TypeError) as error:
            raise ValueError(f"not a list of phrases: {error!r}") from error

    def _insert(self, tokens: Sequence[int], score: float) -> None:
        node = 0
        for token in tokens:
            child = self._children[node].get(token)
            if child is None:
                child = self._children[node][token] = len(self._children)
                self._children.append({})
                self._token.append(token)
                self._parent.append(node)
                self._depth.append(self._depth[node] + 1)
                self._score.append(0.0)
                self._complete.append(False)
            self._score[child] = max(self._score[child], score)
            node = child
        self._complete[node] = True

    def _link(self) -> None:
        """Fill in scores, failure links and what is kept, nodes in the order of their depth."""
        suffix_phrase = [0] * self.nodes  # the longest phrase that is a proper suffix
        queue = deque(self._children[0].values())
        while queue:
            node = queue.popleft()
            queue.extend(self._children[node].values())
            parent, token, depth = self._parent[node], self._token[node], self._depth[node]
            self._worth[node] = self._worth[parent] + self._score[node]
            if parent:
                suffix = self._failure[parent]
                while suffix and token not in self._children[suffix]:
                    suffix = self._failure[suffix]
                self._failure[node] = self._children[suffix].get(token, 0)
            failure = self._failure[node]
            suffix_phrase[node] = failure if self._complete[failure] else suffix_phrase[failure]
            kept, kept_depth = self._kept[parent], self._kept_depth[parent]
            inner = suffix_phrase[node]
            if self._complete[node]:
                kept, kept_depth = self._worth[node], depth
            elif inner and depth - self._depth[inner] >= kept_depth:
                kept, kept_depth = kept + self._worth[inner], depth
            self._kept[node], self._kept_depth[node] = kept, kept_depth

    def _suffixes(self, node: int) -> Iterable[int]:
        """Where a match that breaks off may go on, longest first: suffixes that begin after what is kept."""
        open_depth = self._depth[node] - self._kept_depth[node]
        suffix = node
        while suffix:
            suffix = self._failure[suffix]
            if self._depth[suffix] <= open_depth:
                yield suffix


def choose(logits: Tensor, change: Tensor | None) -> Tensor:
    """Greedy choice between tokens and blank, biased: (N, T, V + 1) logits to (N, T) ids.

    Tokens compete with each other under ``change`` (N, V), as `Biasing.changes` has it. The best of them competes with
    the blank under what it earns; what it gives back does not count there, since a broken match says nothing about
    whether there is a token at all.
    """
    if change is None:
        return logits.argmax(-1)
    token = (logits[..., :-1] + change[:, None]).argmax(-1)
    score = logits.gather(-1, token[..., None])[..., 0] + change.gather(-1, token).clamp(min=0)
    return torch.where(score > logits[..., -1], token, logits.shape[-1] - 1)
