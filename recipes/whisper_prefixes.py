"""What a streaming decoder should have written when: prefixes of an utterance with their targets, packed for one pass.

At the end of a chunk the decoder has heard the audio so far and should have written the tokens that have been said by
then, and after them one end-of-text: "wait". One pass of the encoder serves many such moments of an utterance, for a
block-causal encoder's frames do not change as more audio comes.

Source: arXiv 2508.12301, section 3; the packing is ours.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ENCODER_RATE = 50  # encoder frames per second
LONGEST_TOKEN_S = 0.3
PUNCTUATION_S = 0.2  # long enough to hear a pause begin
NOTHING = -100  # target of an entry that is not asked for; what cross-entropy ignores


@dataclass(frozen=True)
class PrefixOptions:
    """Which moments of an utterance are trained."""

    share: float = 0.25  # of the ends of its chunks; the end of the utterance always is one more
    most: int = 12  # moments of an utterance, besides its end
    delay_ms: int = 0  # a token is due so long after it has been said: later text, but with fewer errors

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.most < 1 or self.delay_ms < 0:
            raise ValueError(f"expected share in (0, 1], most >= 1 and delay_ms >= 0, got {self}")


@dataclass(frozen=True)
class Transcript:
    """The tokens of a window and when each has been said.

    control: what precedes the text: a prompt and the start-of-transcript sequence.
    tokens:  text.
    ends:    seconds from the start of the window, one for each of ``tokens``, never decreasing.
    """

    control: list[int]
    tokens: list[int]
    ends: list[float]


@dataclass(frozen=True)
class Prefix:
    """A moment: so many encoder frames have been heard, so many tokens should have been written."""

    heard: int
    written: int


@dataclass(frozen=True)
class PackedPrefixes:
    """The prefixes of each row one after the other, as the decoder reads them.

    tokens:   (B, T) int64.
    position: (B, T) int64, place of each token in its own prefix.
    prefix:   (B, T) int64, number of its prefix in the row; -1 for padding.
    heard:    (B, T) int64, encoder frames that it may attend to.
    targets:  (B, T) int64, the token that should follow; `NOTHING` where any may.
    """

    tokens: Tensor
    position: Tensor
    prefix: Tensor
    heard: Tensor
    targets: Tensor

    @property
    def token_mask(self) -> Tensor:
        """(B, 1, T, T) bool: each token sees itself and what precedes it in its prefix."""
        same = self.prefix[:, :, None] == self.prefix[:, None, :]
        return (same & (self.position[:, None, :] <= self.position[:, :, None]))[:, None]

    def audio_mask(self, frames: int) -> Tensor:
        """(B, 1, T, frames) bool: each token sees the audio up to the end of its prefix."""
        return (torch.arange(frames, device=self.heard.device) < self.heard[:, :, None])[:, None]


def token_ends(words: Sequence[tuple[str, float, float]], counts: Sequence[int]) -> list[float]:
    """When each token of a text has been said: evenly within a word, the last at the word's end. Never decreasing.

    Where alignment gives a pause to the word after it, or the silence at the end to a full stop, that is put right: a
    word's tokens are no longer than `LONGEST_TOKEN_S` each, and punctuation is due `PUNCTUATION_S` after its word.

    Args:
        words: text, start and end in seconds.
        counts: tokens of each word.
    """
    ends: list[float] = []
    for (text, start, end), count in zip(words, counts, strict=True):
        before = ends[-1] if ends else 0.0
        if ends and not any(character.isalnum() for character in text):
            ends += [max(before, min(end, before + PUNCTUATION_S))] * count
            continue
        start = max(start, end - LONGEST_TOKEN_S * count)
        ends += [max(before, start + (end - start) * (index + 1) / count) for index in range(count)]
    return ends


def sample_prefixes(transcript: Transcript, frames: int, block: int, options: PrefixOptions) -> list[Prefix]:
    """Draw moments of a window, in order; its end, where all has been said, is the last. Uses torch's generator.

    Args:
        frames: encoder frames of the window.
        block: encoder frames of a chunk.
    """
    chunks = -(-frames // block) - 1  # that end before the window does
    count = min(math.ceil(options.share * chunks), options.most)
    drawn = (torch.randperm(chunks)[:count] + 1).sort().values.tolist()
    prefixes = []
    for chunk in drawn:
        time_s = chunk * block / ENCODER_RATE - options.delay_ms / 1000
        prefixes.append(Prefix(chunk * block, bisect.bisect_right(transcript.ends, time_s + 1e-6)))
    return [*prefixes, Prefix(frames, len(transcript.tokens))]


def pack(
    transcripts: Sequence[Transcript], prefixes: Sequence[Sequence[Prefix]], eot: int, device: torch.device
) -> PackedPrefixes:
    """Lay prefixes out for the decoder.

    Args:
        transcripts: of the rows.
        prefixes: of each row.
        eot: the token that says "wait".
    """
    rows: list[list[tuple[int, int, int, int, int]]] = []
    for transcript, moments in zip(transcripts, prefixes, strict=True):
        row = []
        first = len(transcript.control) - 1  # from here on the next token is asked for
        for number, moment in enumerate(moments):
            fed = transcript.control + transcript.tokens[: moment.written]
            following = [*fed[1:], eot]
            for place, (token, target) in enumerate(zip(fed, following, strict=True)):
                row.append((token, place, number, moment.heard, target if place >= first else NOTHING))
        rows.append(row)
    longest = max(len(row) for row in rows)
    # Padding attends to the first frame: attention over nothing would not be a number.
    padded = [row + [(eot, 0, -1, 1, NOTHING)] * (longest - len(row)) for row in rows]
    return PackedPrefixes(*torch.tensor(padded, device=device).unbind(-1))
