"""The speech recogniser: one model, loaded once, for files and live audio."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import torch

from loquent.asr.decoding import WindowDecoder
from loquent.asr.quantization import quantize_int8
from loquent.asr.recording import Recording, Source
from loquent.asr.streaming import StreamingOptions, WhisperStreamingTask
from loquent.asr.transcribe import Progress, TranscribeOptions, Transcript, transcribe
from loquent.asr.whisper import Whisper
from loquent.asr.whisper_checkpoint import load_whisper
from loquent.asr.whisper_tokenizer import Task, WhisperTokenizer
from loquent.speech.audio import AudioError
from loquent.speech.captions import Segment
from loquent.speech.engine import Engine
from loquent.speech.hub import resolve
from loquent.speech.session import Session

ComputeType = Literal["auto", "float32", "int8"]


class Recognizer:
    """Transcribes recordings and live audio with one model.

    Attributes:
        model, tokenizer: what it was built from.
        batch: windows of up to 30 s that go through the model at once.
    """

    def __init__(self, model: Whisper, tokenizer: WhisperTokenizer, *, batch: int = 8) -> None:
        self.model, self.tokenizer, self.batch = model, tokenizer, batch
        self._decoder = WindowDecoder(model, tokenizer)

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] = "tiny.en",
        *,
        device: str | torch.device = "auto",
        compute_type: ComputeType = "auto",
        threads: int | None = None,
    ) -> Recognizer:
        """Load a model by name, from a folder or a file; see `speech.hub.resolve`.

        Args:
            device: "auto" takes a GPU if there is one.
            compute_type: "float32", or "int8" weights, which a CPU with torch's "fbgemm" engine (x86) computes faster;
                "auto" is int8 there and float32 elsewhere.
            threads: CPU threads of the whole process; None leaves torch's setting.

        Raises:
            CheckpointError: there is no such model.
            ValueError: the checkpoint is damaged, or int8 is asked for on a GPU.
        """
        checkpoint = resolve(name_or_path)
        loaded = load_whisper(checkpoint.path)
        model = Whisper.from_weights(loaded.config, loaded.weights)
        tokenizer = WhisperTokenizer.load(checkpoint.path if checkpoint.path.is_dir() else checkpoint.path.parent)
        if device == "auto":
            device = "cuda" if torch.cuda.is_available() else "cpu"
        if threads is not None:
            torch.set_num_threads(threads)
        on_cpu = torch.device(device).type == "cpu"
        if compute_type == "int8" and not on_cpu:
            raise ValueError(f"compute_type 'int8' is for the CPU; use 'float32' or 'auto' on {device}")
        if compute_type == "auto":  # without the engine int8 is emulated, exactly but slowly
            fast = on_cpu and "fbgemm" in torch.backends.quantized.supported_engines
            compute_type = "int8" if fast else "float32"
        if compute_type == "int8":
            quantize_int8(model)
        return cls(model.to(device), tokenizer)

    def transcribe(self, source: Source, *, progress: Progress | None = None, **options: Any) -> Transcript:
        """Transcribe one recording: a file, mono float32 or int16 samples at 16 kHz, or `Audio` of any rate.

        Args:
            progress: called after every window; what it raises ends the work.
            options: fields of `TranscribeOptions`.

        Raises:
            AudioError: the recording cannot be read.
        """
        (result,) = self.transcribe_files([source], progress=progress, **options)
        if isinstance(result, AudioError):
            raise result
        return result

    def transcribe_files(
        self, sources: Iterable[Source], *, progress: Progress | None = None, **options: Any
    ) -> list[Transcript | AudioError]:
        """Transcribe recordings in batches; one that cannot be read gives its `AudioError` in place of a transcript."""
        results = {
            number: item
            for number, item in self.segments(sources, progress=progress, **options)
            if not isinstance(item, Segment)
        }
        return [results[number] for number in sorted(results)]

    def segments(
        self, sources: Iterable[Source], *, progress: Progress | None = None, **options: Any
    ) -> Iterator[tuple[int, Segment | Transcript | AudioError]]:
        """Transcribe recordings, yielding each segment as it becomes final; see `transcribe`."""
        return transcribe(self._decoder, sources, TranscribeOptions(**options), batch=self.batch, progress=progress)

    def session(
        self,
        *,
        sample_rate: int = 16_000,
        channels: int = 1,
        language: str | None = None,
        task: Task = "transcribe",
        prompt: str = "",
        **options: Any,
    ) -> Session:
        """Open a stream of live audio: ``push`` packets of any size, then ``finish``.

        Each such session has a model state of its own. To run many streams in one batch, open them on one
        ``Engine(recognizer.streaming_task(...), capacity=...)``.

        Args:
            sample_rate: of the packets, in Hz.
            channels: of the packets.
            language: code or English name; detected by default.
            task: "transcribe", or "translate" into English.
            prompt: text that precedes the speech: names and spellings to expect.
            options: fields of `StreamingOptions`, such as ``policy`` and ``chunk_ms``.

        Raises:
            ValueError: an option is wrong, or the model does not know the language.
        """
        engine = Engine(self.streaming_task(**options))
        return engine.open(sample_rate=sample_rate, channels=channels, language=language, task=task, prompt=prompt)

    def streaming_task(self, **options: Any) -> WhisperStreamingTask:
        """What an `Engine` runs; options are the fields of `StreamingOptions`."""
        return WhisperStreamingTask(self.model, self.tokenizer, StreamingOptions(**options))

    def detect_language(self, source: Source) -> dict[str, float]:
        """Probability of each language, by code and most probable first, in the first 30 s of a recording."""
        recording = Recording(source, self.model.config.n_mels)
        mel = recording.window(0, recording.size_until(self._decoder.window)).mel
        recording.close()
        with torch.inference_mode():
            memory = self._decoder.encode([torch.nn.functional.pad(mel, (0, 0, 0, self._decoder.window - len(mel)))])
            return self._decoder.detect_language(memory, [0])[0]
