"""Emission delay: how long after a word was said does a streaming recogniser say it, in audio time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import numpy as np
import torch
from torch import Tensor

from loquent.asr.emission.align_with_purpose import likeliest_path, token_spans
from loquent.asr.emission.edit_distance import align_sequences


@dataclass(frozen=True)
class WordTime:
    """A word and a moment in seconds of audio: when it ended, or how much audio had come when it was emitted."""

    text: str
    time_s: float


@dataclass(frozen=True)
class EmissionDelay:
    """Summary of the delays of ``words`` words, in milliseconds."""

    words: int
    mean_ms: float
    median_ms: float
    p95_ms: float

    @classmethod
    def of(cls, delays_ms: Sequence[float]) -> Self:
        """Summarise; without any word the figures are not-a-number."""
        if not delays_ms:
            return cls(0, float("nan"), float("nan"), float("nan"))
        delays = np.asarray(delays_ms)
        return cls(len(delays), float(delays.mean()), float(np.median(delays)), float(np.percentile(delays, 95)))

    def figures(self, name: str) -> dict[str, float]:
        """The summary under names such as ``{name}/delay_mean_ms``."""
        return {
            f"{name}/delay_mean_ms": self.mean_ms,
            f"{name}/delay_p50_ms": self.median_ms,
            f"{name}/delay_p95_ms": self.p95_ms,
        }

    def __str__(self) -> str:
        return f"median {self.median_ms:.0f} ms, 95th percentile {self.p95_ms:.0f} ms over {self.words} words"


def word_delays(emitted: Sequence[WordTime], spoken: Sequence[WordTime]) -> list[float]:
    """Delay in milliseconds of each word that was recognised correctly; wrong words have no time to compare with.

    Negative where a word was emitted before its end, as a model may do that recognises it early.
    """
    pairs = align_sequences([word.text for word in emitted], [word.text for word in spoken])
    return [
        1000 * (emitted[i].time_s - spoken[j].time_s)
        for i, j in pairs
        if i is not None and j is not None and emitted[i].text == spoken[j].text
    ]


def token_ends(log_probs: Tensor, tokens: Sequence[int]) -> list[int] | None:
    """Frames that have come when each token of a known text ends, by forced alignment.

    Use the log-probabilities of a model that sees the future (offline, or the largest look-ahead), and the same for all
    systems that are compared: the peaks of a causal model trail the sound.

    Args:
        log_probs: (T, V + 1) float, blank last.
        tokens: the text.

    Returns:
        One past the last frame of each token; None where the text does not fit into T frames.
    """
    path = likeliest_path(log_probs, tokens)
    return None if path is None else [end for _, _, end in token_spans(path, log_probs.shape[1] - 1)]


def frames_needed(frame: Tensor, lookahead: int, total: Tensor | int) -> Tensor:
    """Frames that have come when a chunked encoder puts out ``frame``: the whole chunk of lookahead + 1 frames.

    Args:
        frame: int64, any shape: index of encoder frames.
        lookahead: R, frames; 0 for a causal encoder.
        total: frames of the stream: its end completes the last chunk.
    """
    chunk = lookahead + 1
    return torch.minimum((frame.div(chunk, rounding_mode="floor") + 1) * chunk, torch.as_tensor(total))
