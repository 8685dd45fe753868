"""Transcribe recordings of any length: windows of 30 s, each beginning where the timestamps of the last one say.

Many recordings go through the model in one batch, a window each, and every recording gives what it gives alone. The
rules that keep Whisper from looping and from hearing words in silence are those of openai/whisper `transcribe.py` and
of faster-whisper.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from loquent.asr.alignment import AlignedWord, align, words_of_segments
from loquent.asr.decoding import DecodingOptions, DecodingResult, WindowDecoder
from loquent.asr.recording import FRAME_RATE, Recording, Source
from loquent.asr.whisper import AudioMemory
from loquent.asr.whisper_languages import language_code
from loquent.asr.whisper_tokenizer import TIMESTAMP_STEP_S, Task
from loquent.speech.audio import AudioError
from loquent.speech.captions import Segment, WordTiming

FRAMES_PER_TIMESTAMP = round(TIMESTAMP_STEP_S * FRAME_RATE)


@dataclass(frozen=True)
class TranscribeOptions:
    """How recordings are transcribed. Times are in seconds."""

    task: Task = "transcribe"  # or "translate": into English, whatever is spoken
    language: str | None = None  # spoken, as code or English name; None: detect it in the first window
    temperatures: tuple[float, ...] = (0.0, 0.2, 0.4, 0.6, 0.8, 1.0)  # tried in turn while the result looks wrong
    beam_size: int = 5  # at temperature 0; 1 is greedy
    patience: float = 1.0  # a beam ends once beam_size · patience hypotheses have
    length_penalty: float = 1.0  # hypotheses are ranked by log-probability / length ** length_penalty
    best_of: int = 5  # samples drawn at temperatures above 0
    compression_ratio_threshold: float | None = 2.4  # a text that compresses better repeats itself: try again
    logprob_threshold: float | None = -1.0  # an average log-probability below it: try again
    no_speech_threshold: float | None = 0.6  # silence if no speech is likelier than this and the text is improbable
    condition_on_previous_text: bool = True  # prompt each window with the text before it
    prompt_reset_on_temperature: float = 0.5  # text found at a higher temperature prompts no window
    initial_prompt: str | None = None  # text before the first window: names, spelling, style
    prefix: str | None = None  # text that the first window begins with
    suppress_tokens: tuple[int, ...] | None = None  # never written; None: what is written but not said
    suppress_blank: bool = True  # no window begins with a space
    without_timestamps: bool = False  # no timestamps; windows are then 30 s apart
    max_initial_timestamp: float | None = 1.0  # latest first timestamp in a window
    sample_len: int | None = None  # most tokens of a window; None: half of the decoder's context
    word_timestamps: bool = False  # time every word
    prepend_punctuations: str = "\"'“¿([{-"  # belong to the word after
    append_punctuations: str = "\"'.。,，!！?？:：”)]}、"  # belong to the word before
    hallucination_silence_threshold: float | None = None  # with word times: skip silences longer than this
    clip_timestamps: tuple[float, ...] = ()  # start, end, start, … of what to transcribe; the last end may be left out
    seed: int = 0  # of sampling

    def __post_init__(self) -> None:
        if not self.temperatures:
            raise ValueError("temperatures is empty; expected at least one, such as (0.0,)")
        if self.hallucination_silence_threshold is not None and not self.word_timestamps:
            raise ValueError("hallucination_silence_threshold needs word_timestamps=True")
        if any(later < earlier for earlier, later in itertools.pairwise(self.clip_timestamps)):
            raise ValueError(f"clip_timestamps must not decrease, got {self.clip_timestamps}")

    def decoding(self, temperature: float) -> DecodingOptions:
        """The options of a window at one temperature, before what is particular to that window."""
        return DecodingOptions(
            task=self.task,
            temperature=temperature,
            beam_size=self.beam_size,
            patience=self.patience,
            length_penalty=self.length_penalty,
            best_of=self.best_of,
            suppress_tokens=self.suppress_tokens,
            suppress_blank=self.suppress_blank,
            without_timestamps=self.without_timestamps,
            max_initial_timestamp=self.max_initial_timestamp,
            sample_len=self.sample_len,
        )


@dataclass(frozen=True)
class Transcript:
    """The text of a recording."""

    text: str
    segments: tuple[Segment, ...]
    language: str  # code
    language_probability: float  # 1.0 if it was given
    duration_s: float


Progress = Callable[[int, float, float | None], None]  # recording, seconds done, seconds in all if known


def transcribe(
    decoder: WindowDecoder,
    sources: Iterable[Source],
    options: TranscribeOptions | None = None,
    *,
    batch: int = 8,
    progress: Progress | None = None,
) -> Iterator[tuple[int, Segment | Transcript | AudioError]]:
    """Transcribe recordings, ``batch`` of them at a time.

    Args:
        sources: files, or mono samples; taken one by one as there is room.
        batch: windows in the model at once; it bounds memory, and changes no result.
        progress: called after every window.

    Yields:
        The number of a recording with each of its segments as soon as it is final, then with its whole transcript. A
        recording that cannot be read ends with its `AudioError`, and the others go on.

    Raises:
        ValueError: an option does not fit the model.
    """
    options = options or TranscribeOptions()
    waiting = enumerate(sources)
    running: list[_Transcription] = []
    while True:
        while len(running) < batch and (following := next(waiting, None)) is not None:
            try:
                running.append(_Transcription(*following, decoder, options))
            except AudioError as error:
                yield following[0], error
        if not running:
            return
        ready: list[_Transcription] = []
        for one in tuple(running):
            try:
                if one.advance():
                    ready.append(one)
                    continue
                yield one.number, one.transcript()
            except AudioError as error:
                yield one.number, error
            one.recording.close()
            running.remove(one)
        if ready:
            with torch.inference_mode():
                _transcribe_windows(decoder, ready, options)
        for one in ready:
            yield from ((one.number, segment) for segment in one.take())
            if progress is not None:
                progress(one.number, one.seek / FRAME_RATE, one.recording.duration_s)


def _transcribe_windows(decoder: WindowDecoder, ready: Sequence[_Transcription], options: TranscribeOptions) -> None:
    """Decode the current window of each recording, and time its words."""
    memory = decoder.encode([one.mel for one in ready])
    unknown = [row for row, one in enumerate(ready) if one.language is None]
    if unknown:
        for row, table in zip(unknown, decoder.detect_language(memory, unknown), strict=True):
            ready[row].language, ready[row].language_probability = next(iter(table.items()))
    for one, result in zip(ready, _decode_with_fallback(decoder, memory, ready, options), strict=True):
        one.settle(result)
    if options.word_timestamps:
        rows = [row for row, one in enumerate(ready) if one.pieces]
        tokens = [[token for piece in ready[row].pieces for token in piece.tokens] for row in rows]
        languages = [ready[row].language or "en" for row in rows]
        frames = [ready[row].size // 2 for row in rows]
        found = align(decoder.model, decoder.tokenizer, memory, rows, tokens, languages, frames, options.task)
        for row, words in zip(rows, found, strict=True):
            ready[row].place_words(words)
    for one in ready:
        one.emit()


def _decode_with_fallback(
    decoder: WindowDecoder, memory: AudioMemory, ready: Sequence[_Transcription], options: TranscribeOptions
) -> list[DecodingResult]:
    """Decode each window at rising temperatures until its result looks right."""
    attempts: list[list[DecodingResult]] = [[] for _ in ready]
    pending = list(range(len(ready)))
    for temperature in options.temperatures:
        asked = [ready[row].decoding(temperature) for row in pending]
        for row, result in zip(pending, decoder.decode(memory, pending, asked), strict=True):
            attempts[row].append(result)
        pending = [row for row in pending if _looks_wrong(attempts[row][-1], options)]
        if not pending:
            break
    for row in pending:  # none looked right: the most probable one that does not repeat itself
        limit = options.compression_ratio_threshold
        fair = [one for one in attempts[row] if limit is None or one.compression_ratio <= limit] or attempts[row]
        best = max(fair, key=lambda one: one.avg_logprob)
        attempts[row].append(replace(best, temperature=options.temperatures[-1]))
    return [results[-1] for results in attempts]


def _looks_wrong(result: DecodingResult, options: TranscribeOptions) -> bool:
    improbable = options.logprob_threshold is not None and result.avg_logprob < options.logprob_threshold
    if improbable and options.no_speech_threshold is not None and result.no_speech_prob > options.no_speech_threshold:
        return False  # silence
    limit = options.compression_ratio_threshold
    return improbable or (limit is not None and result.compression_ratio > limit)


@dataclass
class _Piece:
    """A segment in the making; times from the start of the recording."""

    start: float
    end: float
    tokens: list[int]  # timestamps included
    words: list[WordTiming] = field(default_factory=list)


class _Transcription:
    """One recording on its way through the model."""

    def __init__(self, number: int, source: Source, decoder: WindowDecoder, options: TranscribeOptions) -> None:
        config = decoder.model.config
        self.number, self.options, self.tokenizer = number, options, decoder.tokenizer
        self.window = decoder.window
        self.recording = Recording(source, config.n_mels)
        self.language = "en" if not config.is_multilingual else None
        if options.language is not None:
            self.language = language_code(options.language)
        self.language_probability = 1.0
        ends = [round(second * FRAME_RATE) for second in options.clip_timestamps] or [0]
        self.clips = list(zip(ends[::2], [*ends[1::2], None], strict=False))
        self.seek = self.clips[0][0]
        self.context = [] if options.initial_prompt is None else self._encode(options.initial_prompt)
        self.segments: list[Segment] = []
        self.taken = 0
        self.last_speech_end = 0.0

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(" " + text.strip())

    def advance(self) -> bool:
        """Take up the next window; False when the recording is over."""
        while self.clips:
            start, end = self.clips[0]
            self.seek = max(self.seek, start)
            until = self.recording.size_until(self.seek + self.window)
            stop = until if end is None else min(until, end)
            if self.seek < stop:
                self.start, self.size = self.seek, stop - self.seek
                mel = self.recording.window(self.seek, stop)
                self.mel: Tensor = F.pad(mel, (0, 0, 0, self.window - self.size))
                return True
            self.clips.pop(0)
        return False

    def decoding(self, temperature: float) -> DecodingOptions:
        """How the current window is decoded."""
        first = self.start == 0 and self.options.prefix is not None
        return replace(
            self.options.decoding(temperature),
            language=self.language,
            prompt=tuple(self.context),
            prefix=tuple(self._encode(self.options.prefix)) if first and self.options.prefix else (),
            seed=(self.options.seed << 32) + (self.start << 8) + round(100 * temperature),
        )

    def settle(self, result: DecodingResult) -> None:
        """Cut the window's tokens into segments and find where the next window begins."""
        self.result, self.pieces = result, []
        self.closed = True  # whether the window's text reaches up to its end
        options = self.options
        silent = options.no_speech_threshold is not None and result.no_speech_prob > options.no_speech_threshold
        probable = options.logprob_threshold is not None and result.avg_logprob > options.logprob_threshold
        if silent and not probable:
            self.seek = self.start + self.size
        else:
            self.pieces, self.seek, self.closed = self._cut(list(result.tokens))

    def _cut(self, tokens: list[int]) -> tuple[list[_Piece], int, bool]:
        """Segments, the next window's first frame, and whether the text reaches up to the window's end."""
        begin = self.tokenizer.timestamp_begin
        offset, end = self.start / FRAME_RATE, self.start + self.size
        stamped = [token >= begin for token in tokens]
        cuts = [at for at in range(1, len(tokens)) if stamped[at - 1] and stamped[at]]
        closed = stamped[-2:] == [False, True]
        if not cuts:
            stamps = [token for token in tokens if token > begin]
            last = self.tokenizer.timestamp_s(stamps[-1]) if stamps and stamped.count(True) else self.size / FRAME_RATE
            return [_Piece(offset, offset + last, tokens)], end, closed
        if closed:
            cuts.append(len(tokens))
        pieces, done = [], 0
        for cut in cuts:
            part = tokens[done:cut]
            start_s, end_s = self.tokenizer.timestamp_s(part[0]), self.tokenizer.timestamp_s(part[-1])
            pieces.append(_Piece(offset + start_s, offset + end_s, part))
            done = cut
        seek = end if closed else self.start + (tokens[done - 1] - begin) * FRAMES_PER_TIMESTAMP
        return pieces, seek, closed

    def place_words(self, words: list[AlignedWord]) -> None:
        """Give the segments their words, and let word times decide where the next window begins."""
        offset = self.start / FRAME_RATE
        texts = [[token for token in piece.tokens if token < self.tokenizer.eot] for piece in self.pieces]
        spans = [(piece.start - offset, piece.end - offset) for piece in self.pieces]
        placed = words_of_segments(
            words,
            [len(text) for text in texts],
            spans,
            self.last_speech_end - offset,
            self.options.prepend_punctuations,
            self.options.append_punctuations,
        )
        for piece, (start, end, timed) in zip(self.pieces, placed, strict=True):
            piece.start, piece.end = offset + start, offset + end
            piece.words = [
                WordTiming(word.text, round(offset + word.start, 2), round(offset + word.end, 2), word.probability)
                for word in timed
            ]
        end = self._last_word_end()
        if not self.closed and end is not None and end > offset:
            self.seek = round(end * FRAME_RATE)
        if self.options.hallucination_silence_threshold is not None:
            self._skip_hallucinations(self.options.hallucination_silence_threshold)
        end = self._last_word_end()
        if end is not None:
            self.last_speech_end = end

    def _last_word_end(self) -> float | None:
        return next((piece.words[-1].end for piece in reversed(self.pieces) if piece.words), None)

    def _skip_hallucinations(self, threshold: float) -> None:
        """Drop improbable segments that stand alone in silence, and begin the next window after the silence."""
        offset, size_s = self.start / FRAME_RATE, self.size / FRAME_RATE
        window_end = offset + self.window / FRAME_RATE
        spoken = [piece for piece in self.pieces if piece.words]
        if spoken and _is_anomalous(spoken[0]) and spoken[0].start - offset > threshold:
            self.seek = self.start + round((spoken[0].start - offset) * FRAME_RATE)
            self.pieces = []
            return
        before = self.last_speech_end
        for index, piece in enumerate(spoken):
            following = spoken[index + 1] if index + 1 < len(spoken) else None
            if _is_anomalous(piece):
                next_start = offset + size_s if following is None else following.words[0].start
                silence_before = (
                    piece.start - before > threshold or piece.start < threshold or piece.start - offset < 2.0
                )
                silence_after = (
                    next_start - piece.end > threshold
                    or (following is not None and _is_anomalous(following))
                    or window_end - piece.end < 2.0
                )
                if silence_before and silence_after:
                    self.seek = round(max(offset + 1, piece.start) * FRAME_RATE)
                    total = self.recording.frames
                    if total is not None and total / FRAME_RATE - piece.end < threshold:
                        self.seek = total
                    self.pieces = self.pieces[: self.pieces.index(piece)]
                    return
            before = piece.end

    def emit(self) -> None:
        """Make the window's segments final and decide what prompts the next window."""
        limit = (self.start + self.size) / FRAME_RATE
        for piece in self.pieces:
            text = self.tokenizer.decode(piece.tokens)
            if piece.start == piece.end or not text.strip():
                continue
            self.context += piece.tokens
            # A timestamp may lie in the padding after the recording's end.
            start, end = min(piece.start, limit), min(piece.end, limit)
            self.segments.append(Segment(round(start, 2), round(end, 2), text, tuple(piece.words)))
        if not self.options.condition_on_previous_text or (
            self.result.temperature > self.options.prompt_reset_on_temperature
        ):
            self.context = []
        # No progress would mean the same window for ever.
        self.seek = max(self.seek, self.start + 1)

    def take(self) -> list[Segment]:
        """Segments that have become final since the last call."""
        new = self.segments[self.taken :]
        self.taken = len(self.segments)
        return new

    def transcript(self) -> Transcript:
        """The whole, once the recording is over."""
        return Transcript(
            text="".join(segment.text for segment in self.segments).strip(),
            segments=tuple(self.segments),
            language=self.language or "en",
            language_probability=self.language_probability,
            duration_s=self.recording.duration_s or 0.0,
        )


def _is_anomalous(piece: _Piece) -> bool:
    """Whether its first words are very long, very short or improbable, as hallucinated ones are."""
    words = [word for word in piece.words if word.text.strip() not in _PUNCTUATION][:8]
    score = 0.0
    for word in words:
        length = word.end - word.start
        score += (word.confidence or 0.0) < 0.15
        score += max(0.0, 0.133 - length) * 15 + max(0.0, length - 2.0)
    return score >= 3 or score + 0.01 >= len(words)


_PUNCTUATION = "\"'“¿([{-\"'.。,，!！?？:：”)]}、"
