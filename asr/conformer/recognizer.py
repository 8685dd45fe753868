"""The recogniser whose model is a Conformer: files go through the same stream as a microphone, in longer steps."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from loquent.asr.conformer.memo import ConformerMemo
from loquent.asr.conformer.model import MODEL_TYPE, ConformerModel
from loquent.asr.conformer.options import ConformerOptions, ConformerStreamOptions, ConformerTranscribeOptions
from loquent.asr.conformer.task import ConformerStreamingTask, offered_lookaheads
from loquent.asr.conformer.tokenizer import SubwordTokenizer
from loquent.asr.families import model_type
from loquent.asr.options import checked_options
from loquent.asr.recognizer import ComputeType, Recognizer
from loquent.asr.recordings.recording import SAMPLE_RATE, OpenBlocks, RecordingSource, open_blocks
from loquent.speech.audio.errors import AudioError
from loquent.speech.nn.streaming import Chunk
from loquent.speech.runtime.events import Event
from loquent.speech.transcript import Progress, Segment, SegmentBuilder, Transcript

log = logging.getLogger(__name__)


class ConformerRecognizer(Recognizer):
    """Transcribes with a Conformer.

    Attributes:
        model, tokenizer: what it was built from.
    """

    Settings = ConformerOptions
    Options = ConformerStreamOptions

    def __init__(self, model: ConformerModel, tokenizer: SubwordTokenizer, *, batch: int = 8) -> None:
        super().__init__(batch)
        self.model, self.tokenizer = model, tokenizer

    @classmethod
    def load(cls, path: Path, device: torch.device, compute_type: ComputeType) -> ConformerRecognizer:
        """Read a folder, or a `.nemo` file; see `Recognizer.from_pretrained`."""
        if compute_type == "int8":
            raise ValueError("a Conformer has no 'int8' weights; use compute_type 'float32' or 'auto'")
        if model_type(path) == MODEL_TYPE:  # even beside a `.nemo`: it may have been converted from that one
            model, tokenizer = ConformerModel.from_pretrained(path)
            return cls(model.to(device), tokenizer)
        from loquent.asr.conformer.nemo_checkpoint import load_nemo

        archives = [path] if path.is_file() else sorted(path.glob("*.nemo"))
        if len(archives) > 1:
            names = ", ".join(archive.name for archive in archives)
            raise ValueError(f"{path} holds several models: {names}; pass the path of one of them")
        checkpoint = load_nemo(archives[0])
        for warning in checkpoint.warnings:
            log.warning("%s: %s", archives[0], warning)
        return cls(checkpoint.build().to(device), checkpoint.tokenizer)

    def streaming_task(self, **options: Any) -> ConformerStreamingTask:
        """What an `Engine` runs; options are the fields of `ConformerOptions`."""
        chosen = checked_options(ConformerOptions, options)
        return ConformerStreamingTask(self.model, self.tokenizer, chosen)

    def detect_language(self, source: RecordingSource, language: str | None = None) -> dict[str, float]:
        """The model's language, whatever the recording is: it knows no other (see `Recognizer.detect_language`)."""
        self.streaming_task().start(ConformerStreamOptions(language))
        return {self.model.config.language: 1.0}

    def segments(
        self, sources: Iterable[RecordingSource], *, progress: Progress | None = None, **options: Any
    ) -> Iterator[tuple[int, Segment | Transcript | AudioError]]:
        """Transcribe recordings, a segment for every utterance; options: `ConformerTranscribeOptions`."""
        wanted = checked_options(ConformerTranscribeOptions, options)
        latencies = offered_lookaheads(self.model)
        task = self.streaming_task(
            head=wanted.head, beam_size=wanted.beam_size, chunk_ms=wanted.chunk_ms or 80 * (max(latencies) + 1)
        )
        stream = ConformerStreamOptions(wanted.language, wanted.mode, None, wanted.phrases, wanted.phrase_boost)
        state = task.initial_state(self.batch)
        free = list(range(self.batch))
        waiting, reading = enumerate(sources), list[_Reading]()
        while True:
            while free and (one := next(waiting, None)) is not None:
                memo = task.start(stream)
                try:
                    opened = open_blocks(one[1])
                except AudioError as error:
                    yield one[0], error
                    continue
                reading.append(_Reading(one[0], free.pop(), memo, opened))
                state.reset([reading[-1].slot])
            if not reading:
                return
            for item in reading:
                item.read()
            sound = [item for item in reading if item.error is None]
            if sound:
                with torch.inference_mode():
                    samples, rows = _batch(sound), torch.tensor([item.slot for item in sound])
                    turns = task.read(task.launch(samples, state, rows, [item.memo for item in sound]))
                for item, turn in zip(sound, turns, strict=True):
                    if turn.error is not None:
                        raise turn.error
                    yield from ((item.number, segment) for segment in item.take(turn.events, wanted.word_timestamps))
                    if progress is not None:
                        progress(item.number, item.samples / SAMPLE_RATE, item.opened.duration_s)
            for item in [item for item in reading if item.over]:
                yield item.number, item.error or item.transcript(self.model.config.language)
                free.append(item.slot)
                reading.remove(item)


@dataclass
class _Reading:
    """A recording on its way through the model."""

    number: int
    slot: int
    memo: ConformerMemo
    opened: OpenBlocks
    block: Tensor = field(default_factory=lambda: torch.zeros(0))
    samples: int = 0
    over: bool = False
    error: AudioError | None = None
    segments: list[Segment] = field(default_factory=list)
    builder: SegmentBuilder = field(default_factory=SegmentBuilder)

    def read(self) -> None:
        """Take the next block; an empty one is the last."""
        try:
            block = next(self.opened.blocks, None)
        except AudioError as error:
            self.error, self.over = error, True
            return
        self.over = block is None
        self.block = torch.zeros(0) if block is None else block[0]
        self.samples += len(self.block)

    def take(self, events: list[Event], word_timestamps: bool) -> list[Segment]:
        """Segments of the utterances that have ended."""
        segments = [segment for event in events if (segment := self.builder.add(event))]
        if not word_timestamps:
            segments = [replace(segment, words=()) for segment in segments]
        self.segments += segments
        return segments

    def transcript(self, language: str) -> Transcript:
        text = " ".join(segment.text for segment in self.segments)
        duration_s, warnings = self.samples / SAMPLE_RATE, tuple(self.opened.warnings)
        return Transcript(text, tuple(self.segments), language, 1.0, duration_s, warnings)


def _batch(reading: list[_Reading]) -> Chunk:
    lengths = torch.tensor([len(item.block) for item in reading])
    data = torch.zeros(len(reading), int(lengths.max()))
    for row, item in zip(data, reading, strict=True):
        row[: len(item.block)] = item.block
    return Chunk(data, lengths, torch.tensor([item.over for item in reading]))
