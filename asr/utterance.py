"""The utterance under way in a recogniser's stream, and the events that report it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from loquent.speech.runtime.events import Event, Final, Partial, Word

MOST = 2**44  # seconds, which no stream lasts


@dataclass
class OpenUtterance:
    """Words since the last `Final`; JSON-able, as part of a stream's memo.

    text:       of the committed words.
    start, end: of the first and the last word, in seconds; after `finish` those of the utterance before.
    shown:      stable and unstable text of the last `Partial`, which is not repeated.
    """

    text: str = ""
    start: float = 0.0
    end: float = 0.0
    shown: tuple[str, str] = ("", "")

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> OpenUtterance:
        """Inverse of ``vars``.

        Raises:
            ValueError: the values are not those of an utterance.
        """
        text, start, end, shown = (values.get(name) for name in ("text", "start", "end", "shown"))
        match text, start, end, shown:
            case str(), int() | float(), int() | float(), [str() as stable, str() as unstable]:
                if 0 <= start <= MOST and 0 <= end <= MOST:  # what is no number is in no range
                    return cls(text, float(start), float(end), (stable, unstable))
        raise ValueError(f"not an utterance: {str(dict(values))[:200]}")

    def add(self, word: Word) -> None:
        """Append a committed word."""
        if not self.text:
            self.start = word.start
        self.end = word.end
        self.text += word.text

    def show(self, pending: str, unstable: str) -> list[Event]:
        """A `Partial`, if the utterance reads differently now.

        Args:
            pending: text after the committed words that will not change, but is not a whole word yet.
            unstable: text after it that may change.
        """
        shown = (self.text + pending, unstable)
        if shown == self.shown:
            return []
        self.shown = shown
        return [Partial(stable=shown[0], unstable=shown[1])]

    def finish(self) -> list[Event]:
        """End the utterance: its `Final`, if anything was said."""
        text = self.text.strip()
        self.text, self.shown = "", ("", "")
        return [Final(text=text, start=self.start, end=self.end)] if text else []
