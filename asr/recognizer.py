"""The speech recogniser: one model, loaded once, for files and live audio."""

from __future__ import annotations

import dataclasses
import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal, get_args

import torch

from loquent.asr.families import family_of
from loquent.asr.recordings.recording import RecordingSource
from loquent.speech.audio.errors import AudioError
from loquent.speech.devices import compute_device, use_threads
from loquent.speech.hub import resolve
from loquent.speech.transcript import Progress, Segment, Transcript

if TYPE_CHECKING:
    from loquent.speech.runtime.session import Session
    from loquent.speech.runtime.task import Task

ComputeType = Literal["auto", "float32", "int8"]


class Recognizer(ABC):
    """Transcribes recordings and live audio with one model.

    Attributes:
        Settings: options of `streaming_task`, a dataclass.
        Options: options of one stream, a dataclass.
        batch: recordings, or windows of up to 30 s of them, that go through the model at once.
    """

    Settings: ClassVar[type[Any]]
    Options: ClassVar[type[Any]]

    def __init__(self, batch: int) -> None:
        self.batch = batch

    @staticmethod
    def from_pretrained(
        name_or_path: str | os.PathLike[str] = "tiny.en",
        *,
        device: str | torch.device = "auto",
        compute_type: ComputeType = "auto",
        threads: int | None = None,
        adapter: str | os.PathLike[str] | None = None,
    ) -> Recognizer:
        """Load a model by name, from a folder or a file; see `speech.hub.resolve`. What it is decides the class.

        Args:
            device: "auto" takes a GPU if there is one.
            compute_type: "float32", or for Whisper "int8" weights, which a CPU with torch's "fbgemm" engine (x86)
                computes faster; "auto" is int8 there and float32 elsewhere.
            threads: CPU threads of the whole process; None and 0 leave torch's setting, which is all cores.
            adapter: folder or hub id of one that everything goes through, see `adapt`.

        Raises:
            CheckpointError: there is no such model or adapter.
            ValueError: the checkpoint is damaged or cannot be streamed, the device is not there, or an argument is
                wrong.
        """
        if compute_type not in get_args(ComputeType):
            raise ValueError(f"compute_type: expected one of {', '.join(get_args(ComputeType))}, got {compute_type!r}")
        use_threads(threads)
        device = compute_device(device)
        checkpoint = resolve(name_or_path)
        if checkpoint.task != "recognizer":
            kind = {"synthesizer": "a voice, which speaks", "translator": "a translator"}[checkpoint.task]
            raise ValueError(f"{checkpoint.name!r} is {kind}; to recognise speech, take another model")
        path = checkpoint.path
        if compute_type == "int8" and device.type != "cpu":
            raise ValueError(f"compute_type: 'int8' is for the CPU; use 'float32' or 'auto' on {device}")
        recognizer: Recognizer = family_of(path).load().load(path, device, compute_type)
        if adapter is not None:
            recognizer.adapt(adapter)
        return recognizer

    @property
    def live_adapter(self) -> str | None:
        """Name of the adapter that streams go through by default, and recordings do not."""
        return None

    def adapt(self, adapter: str | os.PathLike[str]) -> None:
        """Put everything that is recognised from now on through an adapter.

        Args:
            adapter: folder or hub id, in PEFT's format.

        Raises:
            CheckpointError: there is no such adapter.
            ValueError: the model takes none, or not this one.
        """
        raise ValueError(f"adapters are for Whisper; a {type(self).__name__} takes none")

    def add_adapter(self, name: str, adapter: str | os.PathLike[str], *, default: bool = False) -> None:
        """Offer an adapter to streams, which choose it by name.

        Args:
            adapter: folder or hub id, in PEFT's format.
            default: whether it is for streams that choose none.

        Raises:
            CheckpointError: there is no such adapter.
            ValueError: the model takes none, or not this one, or the name is taken.
        """
        raise ValueError(f"adapters are for Whisper; a {type(self).__name__} takes none")

    def transcribe(
        self,
        source: RecordingSource,
        *,
        progress: Progress | None = None,
        on_segment: Callable[[Segment], None] | None = None,
        **options: Any,
    ) -> Transcript:
        """Transcribe one recording: a file, mono float32 or int16 samples at 16 kHz, or `Audio` of any rate.

        Args:
            progress: called now and then; what it raises ends the work.
            on_segment: called with each segment as soon as it is final.
            options: those of `segments`.

        Raises:
            AudioError: the recording cannot be read.
            ValueError: the model has no such option, or cannot do what is asked.
        """
        for _, item in self.segments([source], progress=progress, **options):
            if isinstance(item, Transcript):
                return item
            if isinstance(item, AudioError):
                raise item
            if on_segment is not None:
                on_segment(item)
        raise AssertionError("a recording ends with its transcript, or an error")

    def transcribe_files(
        self, sources: Iterable[RecordingSource], *, progress: Progress | None = None, **options: Any
    ) -> list[Transcript | AudioError]:
        """Transcribe recordings in batches; one that cannot be read gives its `AudioError` in place of a transcript."""
        results = {
            number: item
            for number, item in self.segments(sources, progress=progress, **options)
            if not isinstance(item, Segment)
        }
        return [results[number] for number in sorted(results)]

    @abstractmethod
    def segments(
        self, sources: Iterable[RecordingSource], *, progress: Progress | None = None, **options: Any
    ) -> Iterator[tuple[int, Segment | Transcript | AudioError]]:
        """Transcribe recordings, yielding each segment as it becomes final and each transcript at its end.

        Options are the fields of the model's own class: `TranscribeOptions` or `ConformerTranscribeOptions`.
        """

    @abstractmethod
    def streaming_task(self, **options: Any) -> Task:
        """What an `Engine` runs; options are the fields of `StreamingOptions` or `ConformerOptions`."""

    def session(self, *, sample_rate: int = 16_000, channels: int = 1, **options: Any) -> Session:
        """Open a stream of live audio: ``push`` packets of any size, then ``finish``.

        Each such session has a model state of its own. To run many streams in one batch, open them on one
        ``Engine(recognizer.streaming_task(...), capacity=...)``.

        Args:
            sample_rate: of the packets, in Hz.
            channels: of the packets.
            options: the fields of ``Options`` and of ``Settings``; what both have, such as ``language``, is for both.

        Raises:
            ValueError: an option is wrong, or the model does not know the language.
        """
        from loquent.speech.runtime.engine import Engine  # which recordings do without

        aliases: Mapping[str, str] = getattr(self.Options, "aliases", {})
        of_stream = {field.name for field in dataclasses.fields(self.Options)} | aliases.keys()
        of_task = {field.name for field in dataclasses.fields(self.Settings)}
        task = self.streaming_task(
            **{name: value for name, value in options.items() if name in of_task or name not in of_stream}
        )
        chosen = {name: value for name, value in options.items() if name in of_stream}
        return Engine(task).open(sample_rate=sample_rate, channels=channels, **chosen)
