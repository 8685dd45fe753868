"""Makes sure that what is left of a stream by a snapshot, which may come from anywhere, is that of a stream.

After this no step can be led astray by it: to tokens or frames that do not exist, or to more of them than there is room
for. What a stream has said cannot be verified, and need not be.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from loquent.asr.whisper.live.encoding import IncrementalEncoding, IncrementalState
from loquent.asr.whisper.live.memo import AudioWindow, WhisperMemo
from loquent.asr.whisper.tokenizer import WhisperTokenizer

MEL_RATE = 100  # frames per second


def check_memo(
    memo: WhisperMemo,
    tokenizer: WhisperTokenizer,
    *,
    chunk: int,
    longest_window: int,
    capacity: int,
    longest_context: int,
) -> None:
    """Check the values of a memo against each other and the model.

    Args:
        chunk: mel frames of a step.
        longest_window: in mel frames.
        capacity: tokens that the decoder has room for.
        longest_context: most tokens of a prompt, and of what was said before a window.

    Raises:
        ValueError: one is none that a stream can have.
    """
    _expect("steps", _is_count(memo.steps), memo.steps)
    _expect("frames", memo.frames == (memo.steps * chunk + 1 if memo.steps else 0), memo.frames)
    _expect("barrier", _is_count(memo.barrier, memo.frames), memo.barrier)
    spoken = tokenizer.languages if memo.language is not None or not tokenizer.is_multilingual else (None,)
    _expect("language", memo.language in spoken, memo.language)
    tokenizer.sot_sequence(memo.language or "en", memo.options.mode)
    known = [*tokenizer.languages]
    _expect("languages", _are(known.__contains__, memo.languages) and len(memo.languages) <= len(known), memo.languages)
    _expect("adapter", memo.adapter is None or isinstance(memo.adapter, str), memo.adapter)
    _expect("adapter_digest", isinstance(memo.adapter_digest, str), memo.adapter_digest)
    for name in ("prompt", "context"):
        tokens = getattr(memo, name)
        _expect(name, _are_text(tokens, tokenizer) and len(tokens) <= longest_context, tokens)
    if memo.held is not None:
        time_s, rule = memo.held if len(memo.held) == 2 else (None, None)
        _expect("held", _is_number(time_s) and time_s >= 0 and isinstance(rule, str), memo.held)
    if memo.window is not None:
        _check_window(memo.window, memo.frames, tokenizer, capacity)
        _expect("window.start", memo.frames - memo.window.start + chunk + 2 <= longest_window, memo.window.start)


def check_encoding(memo: WhisperMemo, encoding: IncrementalEncoding, state: IncrementalState) -> None:
    """Check that what the encoder has taken in (a slot) is what the memo says.

    Raises:
        ValueError: it is not.
    """
    if memo.window is None or memo.window.encoded == memo.window.start:  # the encoder begins anew
        return
    encoder, frames = encoding.encoder, memo.window.encoded - memo.window.start
    for conv, window in ((state.encoder.conv1, encoder.conv1.window), (state.encoder.conv2, encoder.conv2.window)):
        _expect("encoder's frames", int(conv.received[0]) == frames, int(conv.received[0]))
        frames = int(window.outputs(conv.received, False)[0])
    _expect(
        "encoder's frames", int(state.encoder.waiting.received[0]) == frames, int(state.encoder.waiting.received[0])
    )
    _expect("encoder's position", int(state.encoder.position[0]) == frames - frames % encoding.block, frames)


def _check_window(window: AudioWindow, frames: int, tokenizer: WhisperTokenizer, capacity: int) -> None:
    _expect("window.start", _is_count(window.start, frames), window.start)
    _expect("window.opened", _is_count(window.opened, frames), window.opened)
    _expect("window.encoded", window.encoded in (window.start, frames) and _is_count(window.encoded), window.encoded)
    _expect("window.primed", isinstance(window.primed, bool), window.primed)
    _expect(
        "window.control", _are(lambda token: _is_count(token, tokenizer.n_vocab - 1), window.control), window.control
    )
    for name in ("committed", "open"):
        _expect(f"window.{name}", _are_text(getattr(window, name), tokenizer), getattr(window, name))
    _expect("window.open_scores", _are(_is_number, window.open_scores), window.open_scores)
    _expect("window.open_scores", len(window.open_scores) == len(window.open), window.open_scores)
    _expect("window.control", tokenizer.sot in window.control, window.control)
    total = len(window.control) + len(window.committed) + len(window.open)
    _expect("window's tokens", total < capacity, total)
    end = 0.0
    for word in window.words:
        _expect("window.words", _is_count(word.tokens) and word.tokens > 0, word)
        _expect("window.words", _is_number(word.start) and _is_number(word.end), word)
        _expect("window.words", _is_number(word.earliest) and 0 <= word.earliest <= word.end, word)
        _expect("window.words", 0 <= word.start <= word.end <= frames / MEL_RATE + 1e-6 and word.end >= end, word)
        end = word.end
    _expect("window.words", sum(word.tokens for word in window.words) == len(window.committed), window.words)


def _are(sound: Callable[[Any], bool], values: Any) -> bool:
    return isinstance(values, list) and all(sound(value) for value in values)


def _are_text(tokens: Any, tokenizer: WhisperTokenizer) -> bool:
    return _are(lambda token: type(token) is int and tokenizer.is_text(token), tokens)


def _is_count(value: Any, most: float = math.inf) -> bool:
    return type(value) is int and 0 <= value <= most


def _is_number(value: Any) -> bool:
    return type(value) in (int, float) and abs(value) < 1e30


def _expect(name: str, sound: bool, value: Any) -> None:
    if not sound:
        raise ValueError(f"not the memo of a stream of this Whisper: {name} is out of range: {str(value)[:60]}")
