"""What `prerecorded` answers: the channels of a recording, and its utterances."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from loquent.speech.net.dialects.deepgram import model_description, told_word
from loquent.speech.net.recordings import Heard
from loquent.speech.transcript import WordTiming

_SENTENCE_ENDS = (".", "?", "!", "。", "？", "！")


@dataclass(frozen=True)
class Heading:
    """What the metadata tell of a request; ``sha256`` is that of the recording."""

    request_id: str
    created: str
    sha256: str
    model: str


@dataclass(frozen=True)
class Shape:
    """What is in an answer besides the text and its words; ``pause_s`` parts two utterances."""

    utterances: bool
    paragraphs: bool
    language: bool
    pause_s: float


def transcription(heading: Heading, channels: Sequence[Heard], shape: Shape) -> dict[str, Any]:
    """The whole answer."""
    results: dict[str, Any] = {"channels": [_channel(heard, shape) for heard in channels]}
    if shape.utterances:
        spoken = [_utterance(run, at) for at, heard in enumerate(channels) for run in _runs(heard, shape.pause_s)]
        results["utterances"] = sorted(spoken, key=lambda one: one["start"])
    metadata = {
        "transaction_key": "deprecated",
        "request_id": heading.request_id,
        "sha256": heading.sha256,
        "created": heading.created,
        "duration": round(channels[0].duration_s, 4),
        "channels": len(channels),
        "models": [heading.request_id],
        "model_info": {heading.request_id: model_description(heading.model)},
    }
    return {"metadata": metadata, "results": results}


def _channel(heard: Heard, shape: Shape) -> dict[str, Any]:
    words = _words(heard)
    best: dict[str, Any] = {
        "transcript": heard.result.text.strip(),
        "confidence": _confidence(words),
        "words": [told_word(word) for word in words],
    }
    if shape.paragraphs:
        best["paragraphs"] = _paragraphs(_runs(heard, shape.pause_s))
    channel: dict[str, Any] = {"alternatives": [best]}
    if shape.language:
        channel["detected_language"] = heard.result.language
    return channel


def _utterance(words: Sequence[WordTiming], channel: int) -> dict[str, Any]:
    return {
        **_times(words),
        "confidence": _confidence(words),
        "channel": channel,
        "transcript": _text(words),
        "words": [told_word(word) for word in words],
        "id": str(uuid.uuid4()),
    }


def _paragraphs(runs: Sequence[Sequence[WordTiming]]) -> dict[str, Any]:
    """A paragraph for every utterance, cut into sentences."""
    told = []
    for run in runs:
        sentences = _cut(run, lambda before, _: before.text.strip().endswith(_SENTENCE_ENDS))
        described = [{"text": _text(sentence), **_times(sentence)} for sentence in sentences]
        told.append({"sentences": described, "num_words": len(run), **_times(run)})
    return {"transcript": "\n\n".join(_text(run) for run in runs), "paragraphs": told}


def _runs(heard: Heard, pause_s: float) -> list[list[WordTiming]]:
    """Words between which nobody is silent for longer than ``pause_s``."""
    return _cut(_words(heard), lambda before, after: after.start - before.end > pause_s)


def _cut(words: Sequence[WordTiming], between: Callable[[WordTiming, WordTiming], bool]) -> list[list[WordTiming]]:
    parts: list[list[WordTiming]] = []
    for word in words:
        if not parts or between(parts[-1][-1], word):
            parts.append([])
        parts[-1].append(word)
    return parts


def _words(heard: Heard) -> list[WordTiming]:
    return [word for segment in heard.result.segments for word in segment.words]


def _text(words: Sequence[WordTiming]) -> str:
    return "".join(word.text for word in words).strip()


def _times(words: Sequence[WordTiming]) -> dict[str, float]:
    return {"start": round(words[0].start, 3), "end": round(words[-1].end, 3)}


def _confidence(words: Sequence[WordTiming]) -> float:
    return round(sum(word.confidence or 0.0 for word in words) / max(len(words), 1), 4)
