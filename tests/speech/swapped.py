"""A small but real translation: words of which each pair changes places, as adjectives and nouns do."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from loquent.speech.nn.state import State
from loquent.speech.nn.transfer import staged
from loquent.speech.runtime.events import Event, Translation
from loquent.speech.runtime.options import parse_options
from loquent.speech.runtime.task import Port, Turn
from loquent.speech.text.words import WordChunk


@dataclass(frozen=True)
class SwapOptions:
    """
    capitals: whether to write in capitals.
    """

    capitals: bool = False


@dataclass
class Count(State):
    words: Tensor  # (S,) int64


@dataclass
class SwapMemo:
    capitals: bool

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Swapped:
    takes = gives = Port("text")
    fingerprint = "swapped"
    Options = SwapOptions

    def initial_state(self, slots: int) -> Count:
        return Count(torch.zeros(slots, dtype=torch.long))

    def start(self, options: SwapOptions) -> SwapMemo:
        return SwapMemo(options.capitals)

    def configure(self, memo: SwapMemo, options: SwapOptions) -> None:
        memo.capitals = options.capitals

    def restore(self, values: dict[str, Any]) -> SwapMemo:
        return parse_options(SwapMemo, values)

    def wants(self, memo: SwapMemo) -> int:
        return 2

    def launch(self, inputs: Sequence[WordChunk], state: Count, rows: Tensor, memos: list[SwapMemo]) -> Any:
        state.words[rows] += staged([len(chunk.words) for chunk in inputs], "cpu")
        return inputs, state.words[rows], memos

    def read(self, pending: Any) -> list[Turn]:
        turns = []
        for chunk, count, memo in zip(*pending, strict=True):
            words = [word.text.strip() for word in reversed(chunk.words)]
            text = "".join(f" {word}" for word in words if word)
            text = text.upper() if memo.capitals else text
            end = chunk.begin + sum(len(word.text) for word in chunk.words)
            events: list[Event] = [Translation(text=f"{text}#{int(count)}", span=(chunk.begin, end))] if text else []
            turns.append(Turn(events, chunk.last))
        return turns

    def interrupt(self, memo: SwapMemo, played_s: float | None = None) -> list[Event]:
        return []

    def end(self, memo: SwapMemo) -> None:
        pass
