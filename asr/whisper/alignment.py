"""When each word was said: the decoder's cross-attention follows the audio, and a path through it times the tokens.

As in openai/whisper `timing.py`: attention of the alignment heads, normalised over tokens, smoothed over time, averaged
over heads, then dynamic time warping; and the corrections of words that come out too long at pauses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from loquent.asr.options import Mode
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.states import AudioMemory
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.kernels.dtw import dtw
from loquent.speech.nn.streaming import Chunk

ENCODER_RATE = 50  # encoder frames per second
MEDIAN_WIDTH = 7  # encoder frames
LONGEST_MEDIAN_S = 0.7  # of the words' lengths, so that twice that is the longest word at a pause
SENTENCE_ENDS = ".。!！?？"


@dataclass(frozen=True)
class AlignedWord:
    """A word with its tokens; times in seconds from the start of the window."""

    text: str
    tokens: tuple[int, ...]
    start: float
    end: float
    probability: float  # mean over its tokens

    @property
    def length(self) -> float:
        """Duration in seconds."""
        return self.end - self.start


def align(
    model: Whisper,
    tokenizer: WhisperTokenizer,
    memory: AudioMemory,
    rows: Sequence[int],
    texts: Sequence[Sequence[int]],
    languages: Sequence[str],
    frames: Sequence[int],
    mode: Mode = "transcribe",
) -> list[list[AlignedWord]]:
    """Time the words of windows, all in one batch.

    Args:
        memory: the windows' audio.
        rows: the windows' slots in ``memory``.
        texts: tokens of each window; timestamps among them are left out.
        languages: spoken in each window, as codes.
        frames: encoder frames (20 ms) of each window that hold audio, not padding.

    Raises:
        ValueError: the model's alignment heads are not known.
    """
    heads = model.config.alignment_heads
    if not heads:
        raise ValueError("the model has no alignment_heads; set them with WhisperConfig.with_known_alignment_heads")
    texts = [[token for token in text if tokenizer.is_text(token)] for text in texts]
    found: list[list[AlignedWord]] = [[] for _ in texts]
    asked = [index for index, text in enumerate(texts) if text and frames[index] > 0]
    if not asked:
        return found
    starts = [tokenizer.sot_sequence(languages[index], mode, timestamps=False) for index in asked]
    sequences = [[*start, *texts[index], tokenizer.eot] for start, index in zip(starts, asked, strict=True)]
    hidden, weights = _teach(model, sequences, memory, [rows[index] for index in asked], heads, tokenizer.eot)
    for row, (index, start) in enumerate(zip(asked, starts, strict=True)):
        text, first = texts[index], len(start) - 1  # the state at `first` predicts the first text token
        logits = model.decoder.logits(hidden[row, first : first + len(text)])
        logits[:, tokenizer.eot : tokenizer.timestamp_end] = -torch.inf
        scores = logits[:, : tokenizer.text_end].softmax(-1)
        probabilities = scores.gather(1, torch.tensor(text, device=scores.device)[:, None])[:, 0].tolist()
        attention = _normalized(weights[row, :, : len(sequences[row]), : frames[index]])
        times = [frame / ENCODER_RATE for frame in dtw(-attention[first:-1].cpu().float()).tolist()]
        language = "en" if mode == "translate" else languages[index]
        at = 0
        for word, tokens in tokenizer.split_to_word_tokens(text, language):
            end = at + len(tokens)
            mean = sum(probabilities[at:end]) / len(tokens)
            found[index].append(AlignedWord(word, tuple(tokens), times[at], times[end], mean))
            at = end
    return found


def words_of_segments(
    words: list[AlignedWord],
    lengths: Sequence[int],
    spans: Sequence[tuple[float, float]],
    last_speech_end: float,
    prepended: str,
    appended: str,
) -> list[tuple[float, float, list[AlignedWord]]]:
    """Deal a window's words out to its segments, correcting words and segments that reach into pauses.

    Args:
        words: of the window, in order.
        lengths: text tokens of each segment.
        spans: (start, end) of each segment by its timestamps; all times are from the start of the window.
        last_speech_end: where the speech before this window ended; negative.
        prepended, appended: punctuation that belongs to the word after or before it.

    Returns:
        Start, end and words of each segment.
    """
    median = _median_length(words)
    words = merge_punctuation(_shorten_at_sentence_ends(words, 2 * median), prepended, appended)
    placed, at = [], 0
    for length, (start, end) in zip(lengths, spans, strict=True):
        mine: list[AlignedWord] = []
        count = 0
        while at < len(words) and count < length:
            mine.append(words[at])
            count += len(words[at].tokens)
            at += 1
        if mine:
            mine = _shorten_after_pause(mine, median, last_speech_end)
            first, last = mine[0], mine[-1]
            # A first or last word that is far too long yields to the segment's timestamp, else the timestamp to it.
            if start < first.end and start - 0.5 > first.start:
                mine[0] = replace(first, start=max(0.0, min(first.end - median, start)))
            start = mine[0].start
            last = mine[-1]
            if end > last.start and end + 0.5 < last.end:
                mine[-1] = replace(last, end=max(last.start + median, end))
            end = mine[-1].end
            last_speech_end = end
        placed.append((start, max(start, end), mine))
    return placed


def merge_punctuation(words: Sequence[AlignedWord], prepended: str, appended: str) -> list[AlignedWord]:
    """Join punctuation to the word it belongs to; the word keeps its times."""
    joined: list[AlignedWord] = []
    for word in reversed(words):
        if joined and word.text.startswith(" ") and word.text.strip() in prepended:
            after = joined[-1]
            joined[-1] = replace(after, text=word.text + after.text, tokens=word.tokens + after.tokens)
        else:
            joined.append(word)
    result: list[AlignedWord] = []
    for word in reversed(joined):
        if result and not result[-1].text.endswith(" ") and word.text in appended:
            before = result[-1]
            result[-1] = replace(before, text=before.text + word.text, tokens=before.tokens + word.tokens)
        else:
            result.append(word)
    return result


def _teach(
    model: Whisper,
    sequences: Sequence[Sequence[int]],
    memory: AudioMemory,
    rows: Sequence[int],
    heads: tuple[tuple[int, int], ...],
    padding: int,
) -> tuple[Tensor, Tensor]:
    """Feed whole token sequences: hidden states (B, T, C) and the heads' attention (B, N, T, frames)."""
    decoder, device = model.decoder, memory.frames.device
    lengths = torch.tensor([len(one) for one in sequences], device=device)
    longest = int(lengths.max())
    tokens = torch.tensor([[*one, *[padding] * (longest - len(one))] for one in sequences], device=device)
    chunk = Chunk(tokens, lengths, torch.ones_like(lengths, dtype=torch.bool))
    state = decoder.initial_state(len(sequences), longest)
    slots, audio = torch.arange(len(sequences), device=device), torch.tensor(rows, device=device)
    hidden, weights = decoder.attend(chunk, state, slots, memory, audio, heads)
    assert weights is not None
    return hidden, weights


def _normalized(weights: Tensor) -> Tensor:
    """Attention (N, T, frames) to one matrix (T, frames) that is high where a token was said."""
    weights = weights / weights.sum(-1, keepdim=True)  # as if the padding had not been there
    deviation, mean = torch.std_mean(weights, dim=1, keepdim=True, correction=0)
    return smooth((weights - mean) / deviation)


def smooth(weights: Tensor) -> Tensor:
    """Normalised attention (N, T, frames) of N heads to their mean (T, frames), each a running median over time."""
    half = MEDIAN_WIDTH // 2
    if weights.shape[-1] > half:
        padded = F.pad(weights, (half, half), mode="reflect")
        weights = padded.unfold(-1, MEDIAN_WIDTH, 1).median(-1).values
    return weights.mean(0)


def _median_length(words: Sequence[AlignedWord]) -> float:
    lengths = sorted(word.length for word in words if word.length > 0)
    if not lengths:
        return 0.0
    half = len(lengths) // 2
    median = lengths[half] if len(lengths) % 2 else (lengths[half - 1] + lengths[half]) / 2
    return min(LONGEST_MEDIAN_S, median)


def _shorten_at_sentence_ends(words: Sequence[AlignedWord], longest: float) -> list[AlignedWord]:
    result = list(words)
    if longest == 0:
        return result
    for at in range(1, len(result)):
        word = result[at]
        if word.length > longest:
            if word.text in SENTENCE_ENDS:
                result[at] = replace(word, end=word.start + longest)
            elif result[at - 1].text in SENTENCE_ENDS:
                result[at] = replace(word, start=word.end - longest)
    return result


def _shorten_after_pause(words: list[AlignedWord], median: float, last_speech_end: float) -> list[AlignedWord]:
    """The first two words after a pause must not be longer than twice the median: they would begin in the pause."""
    first, longest = words[0], 2 * median
    second = words[1] if len(words) > 1 else None
    too_long = first.length > longest or (second is not None and second.end - first.start > 2 * longest)
    if first.end - last_speech_end <= 4 * median or not too_long:
        return words
    if second is not None and second.length > longest:
        boundary = max(second.end / 2, second.end - longest)
        first, second = replace(first, end=boundary), replace(second, start=boundary)
        words = [first, second, *words[2:]]
    return [replace(first, start=max(0.0, first.end - longest)), *words[1:]]
