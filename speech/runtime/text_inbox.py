"""The inbox of a stream of text: pieces of any kind in, whole words out."""

from __future__ import annotations

import math
from collections import deque
from typing import Any

import torch

from loquent.speech.runtime.snapshot import counted, flagged, timed
from loquent.speech.text.words import MAX_WORD, Draft, Text, TimedWord, WordChunk, WordFramer

MOST_DRAFT = 1000  # characters of a draft; a longer one is cut


class TextInbox:
    """First-in first-out buffer of text that hands out whole words.

    A claim never reaches over a flush: the words before it come first, and with the last of them, or alone if there
    were as many as asked for, the flush. So what a task sees does not depend on when the flush came. The same goes for
    a draft of what may follow, which is handed out and changes nothing else.
    """

    def __init__(self) -> None:
        self.received = 0  # characters, white space at the end not counted
        self.taken = 0  # characters of the words handed out
        self.ended = False
        self._framer = WordFramer()
        self._words: deque[deque[TimedWord]] = deque([deque()])
        self._stops: deque[str | None] = deque()  # what each but the last is followed by: None a flush, or a draft
        self._pushed = 0
        self._flushed = 0  # characters pushed before the last flush
        self._time_s = 0.0  # of the last word handed out

    def push(self, packet: Text | Draft | str) -> None:
        """Append text, in pieces of any kind, or a draft.

        Raises:
            ValueError: it is no text, or its time is not a finite number that does not go back; nothing is appended.
        """
        piece = Text(packet) if isinstance(packet, str) else packet
        if not isinstance(piece, Text | Draft) or not isinstance(piece.text, str):
            raise ValueError(f"expected text (str or Text), got {type(packet).__name__}; this stream takes no audio")
        if any("\ud800" <= character <= "\udfff" for character in piece.text):
            raise ValueError("the text has half of a surrogate pair; decode it as a whole before cutting it")
        if isinstance(piece, Draft):
            return self._stop((self._framer.pending + piece.text)[:MOST_DRAFT])
        time_s = self._framer.time_s if piece.time_s is None else piece.time_s
        if isinstance(time_s, bool) or not isinstance(time_s, int | float) or not math.isfinite(time_s):
            raise ValueError(f"the time of a text is a number of seconds, got {time_s!r}")
        if time_s < self._framer.time_s:
            raise ValueError(f"the time of a text does not go back: got {time_s} s after {self._framer.time_s} s")
        self._words[-1] += self._framer.push(piece.text, float(time_s))
        if piece.whole:
            self._words[-1] += self._framer.flush()
        self._pushed += len(piece.text)
        if piece.text.strip():
            self.received = self._pushed - (len(piece.text) - len(piece.text.rstrip()))

    def flush(self) -> None:
        """End the word under way; everything so far is to come out without waiting for more text."""
        if self._pushed > self._flushed:  # else the last flush says the same
            self._words[-1] += self._framer.flush()
            self._stop(None)
            self._flushed = self._pushed

    def end(self) -> None:
        """No more text."""
        self._words[-1] += self._framer.flush()
        self.ended = True

    def discard(self) -> None:
        """Drop the words that wait, and the one under way."""
        self._words, self._stops = deque([deque()]), deque()
        self._framer.pending = ""
        self.taken = self._flushed = self._pushed

    @property
    def seconds(self) -> float:
        """Time of the last text received."""
        return self._framer.time_s

    @property
    def processed(self) -> int:
        """Characters of the words handed out."""
        return self.taken

    @property
    def clock(self) -> float:
        """Time of the last word handed out."""
        return self._time_s

    @property
    def pending(self) -> float:
        """Whole words that wait, and drafts."""
        return float(sum(map(len, self._words)) + len(self._stops))

    @property
    def nbytes(self) -> int:
        """Bytes of the text that waits, about."""
        return self._pushed - self.taken + sum(len(stop or "") for stop in self._stops)

    def available(self, count: int) -> bool:
        """Whether ``count`` words, or a stop or the end before them, can be taken."""
        return self.ended or len(self._words) > 1 or len(self._words[0]) >= count

    def passed(self, position: int) -> bool:
        """Whether all words before character ``position`` have been handed out."""
        return self.taken >= position

    def claim(self, count: int) -> WordChunk:
        """Take the next ``count`` words, or those before a flush, a draft or the end."""
        begin, first = self.taken, self._words[0]
        words = tuple(first.popleft() for _ in range(min(count, len(first))))
        short = len(words) < count
        flush, draft, last = False, None, short and self.ended and not self._stops
        if short and self._stops:
            self._words.popleft()
            draft = self._stops.popleft()
            flush = draft is None
        if words:
            self.taken += sum(len(word.text) for word in words)
            self._time_s = words[-1].time_s
        return WordChunk(words, begin, flush, last, draft)

    def resolve(self, claim: WordChunk) -> WordChunk:
        """Nothing is left to do."""
        return claim

    def _stop(self, stop: str | None) -> None:
        self._words.append(deque())
        self._stops.append(stop)

    def to_dict(self) -> dict[str, Any]:
        """Everything."""
        return {
            "received": self.received,
            "taken": self.taken,
            "ended": self.ended,
            "pending": [self._framer.pending, self._framer.time_s],
            "words": [[list(word) for word in words] for words in self._words],
            "stops": list(self._stops),
            "pushed": self._pushed,
            "flushed": self._flushed,
            "time_s": self._time_s,
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """None: text goes into `to_dict`."""
        return {}

    def restore(self, values: dict[str, Any], tensors: dict[str, torch.Tensor]) -> None:
        """Inverse of `to_dict`."""
        self.received, self.taken = counted(values, "received"), counted(values, "taken")
        self._pushed, self._flushed = counted(values, "pushed"), counted(values, "flushed")
        self.ended, self._time_s = flagged(values, "ended"), timed(values["time_s"], "time_s")
        (pending, pending_s), rows = values["pending"], values["words"]
        self._words, last_s = deque(), self._time_s
        for row in rows:
            self._words.append(deque())
            for text, time_s in row:
                if timed(time_s, "words") < last_s:
                    raise ValueError("the times of the words that wait go back")
                last_s = float(time_s)
                self._words[-1].append(TimedWord(_text(text, 1), last_s))
        self._framer = WordFramer(_text(pending, 0), timed(pending_s, "pending"))
        self._stops = deque(None if stop is None else _text(stop, 0, MOST_DRAFT) for stop in values["stops"])
        if len(self._words) != len(self._stops) + 1 or self._framer.time_s < last_s:
            raise ValueError("the words that wait do not fit the text that follows them")
        waiting = sum(len(word.text) for words in self._words for word in words) + len(self._framer.pending)
        if not self.taken + waiting == self._pushed >= max(self.received, self._flushed):
            raise ValueError("the text that waits does not fit the counters")


def _text(value: Any, least: int, most: int = MAX_WORD) -> str:
    if not isinstance(value, str) or not least <= len(value) <= most:
        raise ValueError(f"a word that waits has to be a text of {least} to {most} characters")
    if any("\ud800" <= character <= "\udfff" for character in value):
        raise ValueError("a word that waits has half of a surrogate pair")
    return value
