"""Training targets of a streaming decoder: moments (chunk ends) of an utterance, packed for one forward pass.

At a moment the decoder attends to the audio so far. It reads its latest tokens again, then predicts the tokens spoken
since the last moment, then end-of-text, which means "wait". Earlier tokens are not read again: their keys and values
are those of the moment at which they were last read. One pass over encoder and decoder trains many moments of an
utterance: the frames of a block-causal encoder do not change as more audio comes, and the layout gives each moment
the keys and values that it would have in streaming.

Source: arXiv 2508.12301, section 3, which reads every prefix from its start; reading as streaming does is ours.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

ENCODER_RATE = 50  # encoder frames per second
PUNCTUATION_S = 0.2  # long enough to recognise a pause
NOTHING = -100  # target of an entry without a loss; the value that cross-entropy ignores


@dataclass(frozen=True)
class MomentOptions:
    """Which moments of an utterance are trained, and what is due."""

    share: float = 0.5  # of the ends of its chunks; the end of the utterance always is one more
    most: int = 40  # moments of an utterance, besides its end
    delay_ms: int = 0  # a token is due so long after it has been said: later text, but with fewer errors
    reread: int = 3  # of the latest tokens, up to so many are read again; how many is drawn for each moment

    def __post_init__(self) -> None:
        if not 0 < self.share <= 1 or self.most < 1 or self.delay_ms < 0 or self.reread < 0:
            raise ValueError(f"expected share in (0, 1], most >= 1, delay_ms and reread >= 0, got {self}")


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
class Moment:
    """Counts at one chunk end: encoder frames heard, tokens that are not read again, tokens written by then."""

    heard: int
    kept: int
    written: int


@dataclass(frozen=True)
class PackedMoments:
    """The moments of each row one after the other, as the decoder reads them.

    tokens:   (B, T) int64.
    position: (B, T) int64, place of each token in its row's text.
    moment:   (B, T) int64, number of its moment in the row; -1 for padding.
    until:    (B, T) int64, the moment at which the token is read again, so that this reading of it counts no more.
    heard:    (B, T) int64, encoder frames that it may attend to.
    targets:  (B, T) int64, the token that should follow; `NOTHING` where any may.
    """

    tokens: Tensor
    position: Tensor
    moment: Tensor
    until: Tensor
    heard: Tensor
    targets: Tensor

    @property
    def token_mask(self) -> Tensor:
        """(B, 1, T, T) bool: each token sees the latest reading of itself and of what precedes it."""
        now, time = self.moment[:, :, None], self.moment[:, None, :]
        latest = (time <= now) & (now < self.until[:, None, :])
        return (latest & (self.position[:, None, :] <= self.position[:, :, None]))[:, None]

    def audio_mask(self, frames: int) -> Tensor:
        """(B, 1, T, frames) bool: each token sees the audio up to its moment."""
        return (torch.arange(frames, device=self.heard.device) < self.heard[:, :, None])[:, None]


def token_ends(words: Sequence[tuple[str, float, float]], counts: Sequence[int]) -> list[float]:
    """When each token of a text is due: at the end of its word, never in the middle of one. Never decreasing.

    Alignment gives the silence after a sentence to its full stop; punctuation is due `PUNCTUATION_S` after its word.

    Args:
        words: text, start and end in seconds.
        counts: tokens of each word.
    """
    ends: list[float] = []
    for (text, _, end), count in zip(words, counts, strict=True):
        before = ends[-1] if ends else 0.0
        if ends and not any(character.isalnum() for character in text):
            end = min(end, before + PUNCTUATION_S)
        ends += [max(before, end)] * count
    return ends


def sample_moments(transcript: Transcript, frames: int, ends: Sequence[int], options: MomentOptions) -> list[Moment]:
    """Draw moments of a window, in order; its end, where all has been said, is the last. Uses torch's generator.

    Args:
        frames: encoder frames of the window.
        ends: encoder frames at which chunks end, rising.
    """
    ends = [end for end in ends if end < frames]
    count = min(math.ceil(options.share * len(ends)), options.most)
    drawn = torch.randperm(len(ends))[:count].sort().values.tolist()
    dues = []
    for heard in (ends[number] for number in drawn):
        time_s = heard / ENCODER_RATE - options.delay_ms / 1000
        dues.append((heard, bisect.bisect_right(transcript.ends, time_s + 1e-6)))
    dues.append((frames, len(transcript.tokens)))
    moments, kept, before = [], 0, 0
    for (heard, written), again in zip(dues, torch.randint(options.reread + 1, (len(dues),)).tolist(), strict=True):
        kept = max(kept, before - again)
        moments.append(Moment(heard, kept, written))
        before = written
    return moments


def pack(
    transcripts: Sequence[Transcript], moments: Sequence[Sequence[Moment]], eot: int, device: torch.device
) -> PackedMoments:
    """Lay moments out for the decoder.

    Args:
        transcripts: of the rows.
        moments: of each row.
        eot: the token that ends a moment's text.
    """
    rows: list[list[tuple[int, int, int, int, int, int]]] = []
    for transcript, of_row in zip(transcripts, moments, strict=True):
        text = transcript.control + transcript.tokens
        first = len(transcript.control) - 1  # from here on the next token is predicted
        begins = [0, *(first + moment.kept for moment in of_row[1:]), len(text)]  # the last token kept is read again
        row = []
        for number, moment in enumerate(of_row):
            end = first + 1 + moment.written
            for place in range(begins[number], end):
                target = text[place + 1] if place + 1 < end else eot
                until = number + 1 if place >= begins[number + 1] else len(of_row)
                trained = target if place >= first else NOTHING
                row.append((text[place], place, number, until, moment.heard, trained))
        rows.append(row)
    longest = max(len(row) for row in rows)
    # Padding attends to the first frame and to itself: attention over nothing would not be a number.
    padded = [row + [(eot, 0, -1, 0, 1, NOTHING)] * (longest - len(row)) for row in rows]
    return PackedMoments(*torch.tensor(padded, device=device).unbind(-1))
