"""Transcribe recordings of any length: windows of 30 s, each beginning where the timestamps of the last one say.

Many recordings go through the model in one batch, a window each, and every recording gives what it gives alone. A
single long one fills the batch too if its windows are not to know of each other: it is then cut at pauses. The rules
that keep Whisper from looping and from writing words in silence are those of openai/whisper `transcribe.py` and of
faster-whisper.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

import torch

from loquent.asr.recordings.recording import RecordingSource
from loquent.asr.whisper.alignment import align
from loquent.asr.whisper.beam_search import DecodingOptions
from loquent.asr.whisper.offline.decoding import DecodingResult, WindowDecoder
from loquent.asr.whisper.offline.options import TranscribeOptions
from loquent.asr.whisper.offline.passage import OpenRecording, Passage
from loquent.asr.whisper.states import AudioMemory
from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.vad import SileroVad
from loquent.speech.text.languages import language_code
from loquent.speech.transcript import Progress, Segment, Transcript


def transcribe(
    decoder: WindowDecoder,
    sources: Iterable[RecordingSource],
    options: TranscribeOptions | None = None,
    *,
    batch: int = 8,
    progress: Progress | None = None,
) -> Iterator[tuple[int, Segment | Transcript | AudioError]]:
    """Transcribe recordings, ``batch`` windows at a time.

    Args:
        sources: files, or mono samples; taken one by one as there is room.
        batch: windows in the model at once; it bounds memory, and changes no result beyond float rounding.
        progress: called after every window.

    Yields:
        The number of a recording with each of its segments as soon as it is final, then with its whole transcript. A
        recording that cannot be read ends with its `AudioError`, and the others go on.

    Raises:
        ValueError: an option does not fit the model.
        FileNotFoundError: ``vad_filter`` needs a package that is not installed.
    """
    options = options or TranscribeOptions()
    if not decoder.tokenizer.is_multilingual:
        _check_english(options)
    vad = SileroVad.from_pretrained() if options.vad_filter else None
    begun: list[OpenRecording] = []  # and not over

    def passages() -> Iterator[Passage]:
        for number, source in enumerate(sources):
            begun.append(OpenRecording(number, decoder, options))
            yield from begun[-1].passages(source, vad)

    def results() -> Iterator[tuple[int, Segment | Transcript | AudioError]]:
        for whole in begun:
            yield from ((whole.number, item) for item in whole.results())
        begun[:] = [whole for whole in begun if not whole.over]

    waiting = passages()
    ready: list[Passage] = []
    while True:
        ready = [one for one in ready if one.advance()]
        while len(ready) < batch and (one := next(waiting, None)) is not None:
            if one.advance():
                ready.append(one)
            else:  # no speech in it
                yield from results()
        yield from results()
        if not ready:
            return
        with torch.inference_mode():
            _transcribe_windows(decoder, ready, options)
        if progress is not None:
            for one in ready:
                progress(one.whole.number, one.whole.done_s, one.whole.duration_s)


def _check_english(options: TranscribeOptions) -> None:
    """Refuse what an English-only model cannot do."""
    problem = ""
    if options.multilingual:
        problem = "multilingual: this model knows English only"
    elif options.mode == "translate":
        problem = "task: this model knows English only and cannot translate"
    elif options.language is not None and language_code(options.language) != "en":
        problem = f"language: this model knows English only, got {options.language!r}"
    if problem:
        raise ValueError(f"{problem}; use a multilingual one, such as base")


def _transcribe_windows(decoder: WindowDecoder, ready: Sequence[Passage], options: TranscribeOptions) -> None:
    """Decode the current window of each passage, and time its words."""
    memory = decoder.encode([one.mel() for one in ready])
    unknown = [row for row, one in enumerate(ready) if one.whole.language is None or options.multilingual]
    if unknown:
        for row, table in zip(unknown, decoder.detect_language(memory, unknown), strict=True):
            whole = ready[row].whole
            ready[row].language, probability = next(iter(table.items()))
            if whole.language is None:  # its earliest passage decides
                whole.language, whole.language_probability = ready[row].language, probability
            if not options.multilingual:
                ready[row].language = whole.language
    results = _decode_with_fallback(decoder, memory, ready, options)
    _time_prefixes(decoder, memory, ready, results, options)
    for one, result in zip(ready, results, strict=True):
        one.settle(result)
    if options.word_timestamps:
        rows = [row for row, one in enumerate(ready) if one.pieces]
        tokens = [[token for piece in ready[row].pieces for token in piece.tokens] for row in rows]
        languages = [ready[row].language or ready[row].whole.language or "en" for row in rows]
        frames = [ready[row].size // 2 for row in rows]
        found = align(decoder.model, decoder.tokenizer, memory, rows, tokens, languages, frames, options.mode)
        for row, words in zip(rows, found, strict=True):
            ready[row].place_words(words)
    for one in ready:
        one.emit()


def _time_prefixes(
    decoder: WindowDecoder,
    memory: AudioMemory,
    ready: Sequence[Passage],
    results: Sequence[DecodingResult],
    options: TranscribeOptions,
) -> None:
    """Find when the prefix ends in windows in which the model wrote nothing behind it: they end there."""
    rows = [row for row, one in enumerate(ready) if one.prefix and one.wrote_nothing(results[row])]
    if not rows or not decoder.model.config.alignment_heads:
        return
    texts, frames = [ready[row].prefix for row in rows], [ready[row].size // 2 for row in rows]
    languages = [ready[row].language or ready[row].whole.language or "en" for row in rows]
    found = align(decoder.model, decoder.tokenizer, memory, rows, texts, languages, frames, options.mode)
    for row, words in zip(rows, found, strict=True):
        ready[row].prefix_end_s = words[-1].end if words else None


def _decode_with_fallback(
    decoder: WindowDecoder, memory: AudioMemory, ready: Sequence[Passage], options: TranscribeOptions
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
    for row, one in enumerate(ready):
        if (again := _without_what_ended_it(one, attempts[row][-1], options)) is not None:
            attempts[row] += decoder.decode(memory, [row], [again])
    return [results[-1] for results in attempts]


def _without_what_ended_it(
    window: Passage, result: DecodingResult, options: TranscribeOptions
) -> DecodingOptions | None:
    """How to decode a window again whose text ended at once because of text that the caller gave; None if none did.

    A prompt that reads like the text itself makes the model write nothing: it is left out then. A prefix that ends the
    text is decoded with timestamps where these have to say when it ends.
    """
    silence = options.no_speech_threshold is not None and result.no_speech_prob > options.no_speech_threshold
    if silence or not window.wrote_nothing(result):
        return None
    asked = window.decoding(options.temperatures[0])
    if window.prefix:
        timed = bool(window.whole.decoder.model.config.alignment_heads) or not options.without_timestamps
        return None if timed else replace(asked, without_timestamps=False)
    given = options.hotwords is not None or options.initial_prompt is not None
    return replace(asked, prompt=()) if given and asked.prompt else None


def _looks_wrong(result: DecodingResult, options: TranscribeOptions) -> bool:
    improbable = options.logprob_threshold is not None and result.avg_logprob < options.logprob_threshold
    if improbable and options.no_speech_threshold is not None and result.no_speech_prob > options.no_speech_threshold:
        return False  # silence
    limit = options.compression_ratio_threshold
    return improbable or (limit is not None and result.compression_ratio > limit)
