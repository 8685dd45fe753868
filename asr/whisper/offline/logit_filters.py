"""What the decoder may write next: filters on its logits, as in openai/whisper `decoding.py` and in CTranslate2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from loquent.asr.whisper.beam_search import DecodingOptions
from loquent.asr.whisper.tokenizer import TIMESTAMP_STEP_S, WhisperTokenizer


class LogitFilter(Protocol):
    """Changes logits (B, V) in place, given what each hypothesis has written so far, its prefix included."""

    def __call__(self, logits: Tensor, sequences: list[list[int]]) -> None:
        """Apply it."""


def logit_filters(tokenizer: WhisperTokenizer, options: DecodingOptions, device: torch.device) -> list[LogitFilter]:
    """The filters that options ask for, in the order in which they are applied.

    Raises:
        ValueError: a token to suppress is none of the vocabulary.
    """
    filters: list[LogitFilter] = []
    if options.repetition_penalty != 1.0:
        filters.append(_RepetitionPenalty(options.repetition_penalty, tokenizer.eot))
    if options.no_repeat_ngram_size:
        filters.append(_NoRepeatedNgrams(options.no_repeat_ngram_size, tokenizer.eot))
    if options.suppress_blank:
        filters.append(_SuppressBlank(tokenizer))
    filters.append(_SuppressTokens(_suppressed(tokenizer, options.suppress_tokens), device))
    if not options.without_timestamps:
        filters.append(_TimestampRules(tokenizer, options.max_initial_timestamp))
    return filters


def _suppressed(tokenizer: WhisperTokenizer, asked: Sequence[int] | None) -> list[int]:
    """The control tokens, always; what -1 stands for; and the tokens named."""
    asked = (-1,) if asked is None else asked
    unknown = [token for token in asked if token >= tokenizer.n_vocab]
    if unknown:
        raise ValueError(f"suppress_tokens: {unknown[0]} is no token of this model, which has {tokenizer.n_vocab}")
    listed = tokenizer.non_speech_tokens if -1 in asked else ()
    return sorted({*tokenizer.control_tokens, *listed, *(token for token in asked if token >= 0)})


class _RepetitionPenalty:
    """What was written before becomes less probable (arXiv 1909.05858); timestamps do not."""

    def __init__(self, penalty: float, eot: int) -> None:
        self.penalty, self.eot = penalty, eot

    def __call__(self, logits: Tensor, sequences: list[list[int]]) -> None:
        for row, sequence in enumerate(sequences):
            if written := sorted({token for token in sequence if token < self.eot}):
                scores = logits[row, written]
                logits[row, written] = torch.where(scores < 0, scores * self.penalty, scores / self.penalty)


class _NoRepeatedNgrams:
    """No sequence of N text tokens is written twice."""

    def __init__(self, size: int, eot: int) -> None:
        self.size, self.eot = size, eot

    def __call__(self, logits: Tensor, sequences: list[list[int]]) -> None:
        before = self.size - 1
        for row, sequence in enumerate(sequences):
            text = [token for token in sequence if token < self.eot]
            newest = text[len(text) - before :]
            repeated = [text[at] for at in range(before, len(text)) if text[at - before : at] == newest]
            logits[row, repeated] = -torch.inf


class _SuppressBlank:
    """No transcript begins with a space or its end."""

    def __init__(self, tokenizer: WhisperTokenizer) -> None:
        self.tokens = list(tokenizer.blank_tokens)

    def __call__(self, logits: Tensor, sequences: list[list[int]]) -> None:
        for row, sequence in enumerate(sequences):
            if not sequence:
                logits[row, self.tokens] = -torch.inf


class _SuppressTokens:
    """Some tokens are never written."""

    def __init__(self, tokens: Sequence[int], device: torch.device) -> None:
        self.tokens = torch.tensor(tokens, dtype=torch.long, device=device)

    def __call__(self, logits: Tensor, sequences: list[list[int]]) -> None:
        logits.index_fill_(1, self.tokens, -torch.inf)


class _TimestampRules:
    """Timestamps come in pairs, do not decrease, open the transcript, and win if they outweigh every text token."""

    def __init__(self, tokenizer: WhisperTokenizer, max_initial_timestamp: float | None) -> None:
        self.tokenizer = tokenizer
        self.last_initial = None if max_initial_timestamp is None else round(max_initial_timestamp / TIMESTAMP_STEP_S)

    def __call__(self, logits: Tensor, sequences: list[list[int]]) -> None:
        begin, end, eot = self.tokenizer.timestamp_begin, self.tokenizer.timestamp_end, self.tokenizer.eot
        is_timestamp = self.tokenizer.is_timestamp
        logits[:, self.tokenizer.no_timestamps] = -torch.inf
        for row, sequence in enumerate(sequences):
            if not sequence:
                last = end if self.last_initial is None else min(begin + self.last_initial + 1, end)
                logits[row, :begin] = -torch.inf
                logits[row, last:] = -torch.inf
                continue
            last_was = is_timestamp(sequence[-1])
            pair_closed = len(sequence) < 2 or is_timestamp(sequence[-2])
            if last_was:
                if pair_closed:
                    logits[row, begin:end] = -torch.inf  # text has to follow
                    continue
                logits[row, :eot] = -torch.inf  # a pair, or the end
                logits[row, end:] = -torch.inf
            newest = next((token for token in reversed(sequence) if is_timestamp(token)), None)
            if newest is not None:
                # A segment has a length: only the second of a pair may repeat the first.
                logits[row, begin : newest if last_was and not pair_closed else newest + 1] = -torch.inf
        others = logits[:, :begin].amax(-1)
        if self.tokenizer.n_vocab > end:
            others = others.maximum(logits[:, end:].amax(-1))
        stamped = logits[:, begin:end].logsumexp(-1) > others
        for row in stamped.nonzero()[:, 0].tolist():
            logits[row, :begin] = -torch.inf
            logits[row, end:] = -torch.inf
