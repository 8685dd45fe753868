"""A recording on its way through the model: its passages, and the windows of a passage one after the other."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

from torch import Tensor
from torch.nn import functional as F

from loquent.asr.recordings.recording import FRAME_RATE, NOTHING, Frames, MelRecording, RecordingSource
from loquent.asr.whisper.alignment import AlignedWord, words_of_segments
from loquent.asr.whisper.beam_search import DecodingOptions
from loquent.asr.whisper.offline.decoding import DecodingResult, WindowDecoder
from loquent.asr.whisper.offline.options import TranscribeOptions
from loquent.asr.whisper.tokenizer import TIMESTAMP_STEP_S
from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.vad import SileroVad
from loquent.speech.text.languages import language_code
from loquent.speech.transcript import Segment, TokenLogprob, Transcript, WordTiming

FRAMES_PER_TIMESTAMP = round(TIMESTAMP_STEP_S * FRAME_RATE)


class OpenRecording:
    """One recording, cut into passages where its windows need not know of each other.

    Attributes:
        number: of the recording.
        language: code; None until it is detected.
        done_s: how far into the recording any of its windows has come.
        error: why it could not be read to its end.
        over: whether there will be no more results.
    """

    def __init__(self, number: int, decoder: WindowDecoder, options: TranscribeOptions) -> None:
        self.number, self.decoder, self.options = number, decoder, options
        self.language = "en" if not decoder.tokenizer.is_multilingual else None
        if options.language is not None:
            self.language = language_code(options.language)
        self.language_probability = 1.0
        self.done_s = 0.0
        self.error: AudioError | None = None
        self.over = False
        self._recording: MelRecording | None = None
        self._passages: deque[Passage] = deque()  # in order, those that have segments to give
        self._segments: list[Segment] = []
        self._cut = False  # whether there will be no further passages

    def passages(self, source: RecordingSource, vad: SileroVad | None) -> Iterator[Passage]:
        """Read the recording and cut it as there is room; `results` tells if it cannot be read."""
        independent = vad is not None and not self.options.condition_on_previous_text
        try:
            self._recording = MelRecording(source, self.decoder.model.config.n_mels, vad, self.options.speech)
            for frames in self._recording.passages(self.decoder.window) if independent else [self._recording]:
                self._passages.append(Passage(self, frames))
                yield self._passages[-1]
        except AudioError as error:
            self.error = error
        self._cut = True

    def results(self) -> Iterator[Segment | Transcript | AudioError]:
        """Segments that have become final, and at last the whole or the error that ended it."""
        while self._passages:
            new = self._passages[0].take()
            self._segments += new
            yield from new
            if not self._passages[0].over:
                return
            self._passages.popleft()
        self.over = self._cut
        if self.over:
            if self._recording is not None:
                self._recording.close()
            yield self.error or self._transcript()

    @property
    def duration_s(self) -> float | None:
        """Length of the recording, if known."""
        return None if self._recording is None else self._recording.duration_s

    def _transcript(self) -> Transcript:
        return Transcript(
            text="".join(segment.text for segment in self._segments).strip(),
            segments=tuple(self._segments),
            language=self.language or "en",
            language_probability=self.language_probability,
            duration_s=self.duration_s or 0.0,
            warnings=() if self._recording is None else tuple(self._recording.warnings),
        )


class Passage:
    """A stretch of a recording whose windows depend on each other: each begins where the one before says.

    Attributes:
        window: what goes through the model now.
        over: whether its end was reached.
    """

    window: Frames = NOTHING

    def __init__(self, whole: OpenRecording, frames: MelRecording | Frames) -> None:
        self.whole, self.options, self.tokenizer = whole, whole.options, whole.decoder.tokenizer
        self.longest = whole.decoder.window
        self.frames: MelRecording | Frames = frames
        first = frames.start if isinstance(frames, Frames) else 0
        ends = [round(second * FRAME_RATE) for second in self.options.clip_timestamps] or [first]
        self.clips = list(zip(ends[::2], [*ends[1::2], None], strict=False))
        self.seek = self.clips[0][0]
        self.language: str | None = None  # of the current window, where each has its own
        self.most = whole.decoder.longest_prefix  # tokens of a prompt
        self.context: list[int] = []  # text before the current window
        self.lead: list[int] = []  # what precedes it in the prompt of every window
        if self.options.hotwords is not None:
            self.lead = self._encode(self.options.hotwords)[: self.most]
        if self.options.initial_prompt is not None:
            prompt = self._encode(self.options.initial_prompt)[-self.most :]
            if self.options.carry_initial_prompt:
                self.lead = [*self.lead, *prompt][-self.most :]
            elif first == 0:
                self.context = prompt
        self.prefix: list[int] = []  # text that the current window begins with
        self.prefix_end_s: float | None = None  # of the window, when it was said; known where nothing else was written
        if first == 0 and self.options.prefix is not None:
            self.prefix = self._encode(self.options.prefix)
        self.over = False
        self.last_speech_end = first / FRAME_RATE
        self._new: list[Segment] = []

    def _encode(self, text: str) -> list[int]:
        return self.tokenizer.encode(" " + text.strip()) if text.strip() else []

    def advance(self) -> bool:
        """Take up the next window; False when the passage is over or its recording turns out to be broken."""
        try:
            self.over = not self._next_window()
        except AudioError as error:
            self.whole.error, self.over = error, True
        if self.over:  # it may have to wait for the passages before it
            self.frames = self.window = NOTHING
        return not self.over

    def _next_window(self) -> bool:
        while self.clips:
            start, end = self.clips[0]
            self.seek = max(self.seek, start)
            until = self.frames.size_until(self.seek + self.longest)
            stop = until if end is None else min(until, end)
            if self.seek < stop:
                self.window = self.frames.window(self.seek, stop)
                if self.window.spoken:
                    self.start, self.size = self.seek, stop - self.seek
                    return True
                self.seek = stop
            else:
                self.clips.pop(0)
        return False

    def mel(self) -> Tensor:
        """The current window, padded to 30 s."""
        return F.pad(self.window.mel, (0, 0, 0, self.longest - self.size))

    def decoding(self, temperature: float) -> DecodingOptions:
        """How the current window is decoded."""
        lead = [] if self.prefix and not self.options.carry_initial_prompt else self.lead
        room = self.most - len(lead)
        return replace(
            self.options.decoding(temperature),
            language=self.language or self.whole.language,
            prompt=(*lead, *(self.context[-room:] if room else ())),
            prefix=tuple(self.prefix),
            seed=(self.options.seed << 32) + (self.start << 8) + round(100 * temperature),
        )

    def wrote_nothing(self, result: DecodingResult) -> bool:
        """Whether the model ended at once: with no text, or none behind the prefix."""
        written = [token for token in result.tokens if token < self.tokenizer.eot]
        return written == self.prefix or not result.text

    def settle(self, result: DecodingResult) -> None:
        """Cut the window's tokens into segments and find where the next window begins."""
        self.result = result
        self.pieces: list[_Piece] = []
        self.closed = True  # whether the window's text reaches up to its end
        options = self.options
        silent = options.no_speech_threshold is not None and result.no_speech_prob > options.no_speech_threshold
        probable = options.logprob_threshold is not None and result.avg_logprob > options.logprob_threshold
        if silent and not probable and not self.prefix:
            self.seek = self.start + self.size
        else:
            self.pieces, self.seek, self.closed = self._cut(list(result.tokens))

    def _cut(self, tokens: list[int]) -> tuple[list[_Piece], int, bool]:
        """Segments, the next window's first frame, and whether the text reaches up to the window's end."""
        begin = self.tokenizer.timestamp_begin
        offset, end = self.start / FRAME_RATE, self.start + self.size
        stamped = [self.tokenizer.is_timestamp(token) for token in tokens]
        cuts = [at for at in range(1, len(tokens)) if stamped[at - 1] and stamped[at]]
        closed = stamped[-2:] == [False, True]
        if self.prefix and self.wrote_nothing(self.result):  # what is said after it comes in the next window
            if self.prefix_end_s is not None:
                spoken = self.start + max(round(self.prefix_end_s * FRAME_RATE), 1)
                seek = spoken if end - spoken >= FRAME_RATE else end  # in less there is no more than its last sound
                return [_Piece(offset, min(spoken, end) / FRAME_RATE, tokens)], seek, seek == end
            if closed:
                cuts.append(len(tokens))
                closed = False
        if not cuts:
            stamps = [token for token, is_stamp in zip(tokens, stamped, strict=True) if is_stamp and token > begin]
            last = self.tokenizer.timestamp_s(stamps[-1]) if stamps and stamped.count(True) else self.size / FRAME_RATE
            return [_Piece(offset, offset + last, tokens)], end, closed
        if closed:
            cuts.append(len(tokens))
        pieces: list[_Piece] = []
        done = 0
        for cut in cuts:
            part = tokens[done:cut]
            start_s, end_s = self.tokenizer.timestamp_s(part[0]), self.tokenizer.timestamp_s(part[-1])
            pieces.append(_Piece(offset + start_s, offset + end_s, part, done))
            done = cut
        seek = end if closed else self.start + (tokens[done - 1] - begin) * FRAMES_PER_TIMESTAMP
        return pieces, min(seek, end), closed  # a timestamp may lie in the padding

    def place_words(self, words: list[AlignedWord]) -> None:
        """Give the segments their words, and let word times decide where the next window begins."""
        offset = self.start / FRAME_RATE
        texts = [[token for token in piece.tokens if self.tokenizer.is_text(token)] for piece in self.pieces]
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
        last = self._last_word_end()
        if not self.closed and last is not None and last > offset:
            self.seek = round(last * FRAME_RATE)
        if self.options.hallucination_silence_threshold is not None and not self.prefix:
            self._skip_hallucinations(self.options.hallucination_silence_threshold)
        last = self._last_word_end()
        if last is not None:
            self.last_speech_end = last

    def _last_word_end(self) -> float | None:
        return next((piece.words[-1].end for piece in reversed(self.pieces) if piece.words), None)

    def _skip_hallucinations(self, threshold: float) -> None:
        """Drop improbable segments that stand alone in silence, and begin the next window after the silence."""
        offset, size_s = self.start / FRAME_RATE, self.size / FRAME_RATE
        window_end = offset + self.longest / FRAME_RATE
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
                    total = self.frames.frames
                    if total is not None and total / FRAME_RATE - piece.end < threshold:
                        self.seek = total
                    self.pieces = self.pieces[: self.pieces.index(piece)]
                    return
            before = piece.end

    def emit(self) -> None:
        """Make the window's segments final and decide what prompts the next window."""
        limit = (self.start + self.size) / FRAME_RATE
        self.prefix, self.prefix_end_s = [], None
        for piece in self.pieces:
            text = self.tokenizer.decode(piece.tokens)
            if piece.start == piece.end or not text.strip():
                continue
            self.context += piece.tokens
            # A timestamp may lie in the padding after the recording's end.
            start, end = self.window.original_times(min(piece.start, limit), min(piece.end, limit))
            words = tuple(self._in_recording(word) for word in piece.words)
            if words:
                start, end = words[0].start, words[-1].end
            self._new.append(
                Segment(
                    start,
                    end,
                    text,
                    words,
                    seek=int(self.window.places[0]),
                    tokens=tuple(piece.tokens),
                    temperature=self.result.temperature,
                    avg_logprob=self.result.avg_logprob,
                    compression_ratio=self.result.compression_ratio,
                    no_speech_prob=self.result.no_speech_prob,
                    logprobs=self._logprobs(piece) if self.options.token_logprobs else None,
                )
            )
        if not self.options.condition_on_previous_text or (
            self.result.temperature > self.options.prompt_reset_on_temperature
        ):
            self.context = []
        # No progress would mean the same window for ever.
        self.seek = max(self.seek, self.start + 1)
        _, done_s = self.window.original_times(self.start / FRAME_RATE, self.seek / FRAME_RATE)
        self.whole.done_s = max(self.whole.done_s, done_s)

    def _logprobs(self, piece: _Piece) -> tuple[TokenLogprob, ...]:
        written = zip(piece.tokens, self.result.logprobs[piece.first :], strict=False)
        spelled = [(self.tokenizer.spelled(token), logprob) for token, logprob in written]
        return tuple(
            TokenLogprob(data.decode("utf-8", "replace"), logprob, tuple(data)) for data, logprob in spelled if data
        )

    def _in_recording(self, word: WordTiming) -> WordTiming:
        start, end = self.window.original_times(word.start, word.end)
        return replace(word, start=start, end=end)

    def take(self) -> list[Segment]:
        """Segments that have become final since the last call."""
        new, self._new = self._new, []
        return new


@dataclass
class _Piece:
    """A segment in the making; times from the start of the recording."""

    start: float
    end: float
    tokens: list[int]  # timestamps included
    first: int = 0  # place of the first one among the window's tokens
    words: list[WordTiming] = field(default_factory=list)


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
