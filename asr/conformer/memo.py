"""What the recogniser remembers of a stream besides tensors: plain values, so that a stream can be saved as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from loquent.asr.conformer.options import ConformerStreamOptions
from loquent.asr.search.tokens import SearchMemo, Token
from loquent.asr.utterance import OpenUtterance
from loquent.speech.audio.endpoint import EndpointMemory


@dataclass
class ConformerMemo:
    """What the recogniser remembers of a stream besides tensors.

    options:   that it began with, or was last configured to.
    lookahead, following: of the chunk under way and of those after it, in encoder frames.
    search:    the search's own memo.
    samples:   of audio received.
    frames:    encoder frames searched.
    word:      tokens of the word under way.
    """

    options: ConformerStreamOptions
    lookahead: int
    following: int
    search: SearchMemo
    samples: int = 0
    frames: int = 0
    endpoint: EndpointMemory = field(default_factory=EndpointMemory)
    utterance: OpenUtterance = field(default_factory=OpenUtterance)
    word: list[Token] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        nested = {name: dict(vars(getattr(self, name))) for name in ("options", "endpoint", "utterance")}
        return vars(self) | nested | {"search": self.search.to_dict(), "word": [list(token) for token in self.word]}
