"""How well a model does: error rates on recordings, and error rates and delays as a streaming recogniser."""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from tqdm import tqdm

from loquent.asr.emission.delay import EmissionDelay, WordTime, word_delays
from loquent.asr.recognizer import Recognizer
from loquent.asr.whisper.live.options import StreamingOptions
from loquent.asr.whisper.live.task import WhisperStreamingTask
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.tokenizer import WhisperTokenizer
from loquent.recipes.data.manifest import SAMPLE_RATE, Utterance
from loquent.recipes.loop.error_rate import ErrorTally
from loquent.recipes.whisper.windows import TimedUtterance
from loquent.recipes.whisper.word_times import TimedText
from loquent.speech.audio.files import Audio
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Final, Word
from loquent.speech.runtime.task import Task
from loquent.speech.text.languages import SPACELESS_LANGUAGES
from loquent.speech.transcript import Transcript

STREAMS = 8  # at once


def evaluate_streaming(
    model: Whisper,
    tokenizer: WhisperTokenizer,
    sources: Mapping[str, Sequence[TimedUtterance]],
    chunk_ms: Sequence[int],
    block_ms: int | None = None,
) -> dict[str, float]:
    """Figures of the policy "incremental", voice activity detection and all, each recording a stream.

    Args:
        model: in evaluation mode, with its adapter on.
        sources: recordings with their words, by name.
        chunk_ms: the chunk sizes.
        block_ms: see `StreamingOptions`.

    Returns:
        Word error rates in per cent under names such as ``300ms/books/wer`` and ``300ms/wer`` (the mean over sources),
        "wer" the mean over chunk sizes; and the delays from the end of a word to its being committed, as
        ``300ms/delay_p50_ms``.
    """
    figures: dict[str, float] = {}
    for size in chunk_ms:
        options = StreamingOptions(policy="incremental", chunk_ms=size, block_ms=block_ms)
        task = WhisperStreamingTask(model, tokenizer, options)
        delays: list[float] = []
        rates: dict[str, float] = {}
        for name, utterances in sources.items():
            tally = ErrorTally()
            for number, events in streamed(task, [one.row for one in utterances]):
                utterance = utterances[number]
                tally.add(plain_words(utterance.row.text), plain_words(final_text(events)))
                delays += commit_delays(events, utterance.timed)
            rates[f"{size}ms/{name}/wer"] = tally.rate
        figures |= rates | {f"{size}ms/wer": statistics.fmean(rates.values())}
        if delays:
            figures |= EmissionDelay.of(delays).figures(f"{size}ms")
    return {"wer": statistics.fmean(figures[f"{size}ms/wer"] for size in chunk_ms), **figures}


def recordings_error_rate(
    recognizer: Recognizer, rows: Sequence[Utterance], language: str, what: str, **options: Any
) -> float:
    """Word error rate in per cent of whole recordings, with a progress bar.

    Args:
        language: of all of them.
        what: name of the progress bar.
        options: as `Recognizer.segments` takes them.
    """
    tally = ErrorTally()
    sources = (Audio(row.samples(), SAMPLE_RATE) for row in rows)
    with _bar(len(rows), what) as progress:
        for number, item in recognizer.segments(sources, language=language, **options):
            if isinstance(item, Transcript):
                tally.add(scored(rows[number].text, language), scored(item.text, language))
                progress.update()
    return tally.rate


def live_error_rate(recognizer: Recognizer, rows: Sequence[Utterance], language: str, what: str) -> float:
    """Word error rate in per cent of live recognition with its default policy, with a progress bar.

    Each recording is a stream, as `loquent listen` would hear it. Arguments are those of `recordings_error_rate`.
    """
    tally = ErrorTally()
    with _bar(len(rows), what) as progress:
        for number, events in streamed(recognizer.streaming_task(language=language), rows):
            tally.add(scored(rows[number].text, language), scored(final_text(events), language))
            progress.update()
    return tally.rate


def scored(text: str, language: str) -> str:
    """`plain_words`; in languages that are written without spaces every character is a word."""
    words = plain_words(text)
    return " ".join(words.replace(" ", "")) if language in SPACELESS_LANGUAGES else words


def _bar(total: int, what: str) -> Any:
    return tqdm(total=total, desc=what, unit="rec", file=sys.stderr, mininterval=1, leave=False)


def plain_words(text: str) -> str:
    """Lower case, no punctuation: errors that remain are of words (or of how numbers are written)."""
    return re.sub(r"[^\w' ]+", " ", text.lower().replace("’", "'"))


def streamed(task: Task, rows: Sequence[Utterance], **options: Any) -> Iterator[tuple[int, list[Event]]]:
    """Every recording's number and events, with ``options`` of a stream; those of similar length share a batch."""
    engine = Engine(task, STREAMS)
    ordered = sorted(range(len(rows)), key=lambda number: (rows[number].duration, rows[number].id))
    for first in range(0, len(ordered), STREAMS):
        group = ordered[first : first + STREAMS]
        sessions = [engine.open(language=rows[number].language, **options) for number in group]
        for session, number in zip(sessions, group, strict=True):
            session.feed(rows[number].samples())
            session.end()
        while engine.step():
            pass
        yield from zip(group, (session.drain() for session in sessions), strict=True)


def final_text(events: Iterable[Event]) -> str:
    """All that was said in a stream."""
    return " ".join(event.text for event in events if isinstance(event, Final))


def commit_delays(events: Iterable[Event], said: TimedText) -> list[float]:
    """Milliseconds from the end of each word that was recognised to its being committed."""
    committed = [(event.text, event.emission_time) for event in events if isinstance(event, Word)]
    return word_delays(_timed(committed), _timed([(word, end) for word, _, end in said.spoken]))


def _timed(words: Sequence[tuple[str, float]]) -> list[WordTime]:
    plain = ((plain_words(text).strip(), time) for text, time in words)
    return [WordTime(text, time) for text, time in plain if text]
