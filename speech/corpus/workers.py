"""What is done with the items of a corpus: a model, loaded once, that makes one record of each item."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal

import numpy as np

from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.files import Audio, write_audio
from loquent.speech.corpus.items import Item, Kind
from loquent.speech.corpus.journal import Record, sync_folder
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Failure, Skipped, Speech, Translation
from loquent.speech.runtime.texts import whole_texts
from loquent.speech.tasks import load_task
from loquent.speech.transcript import Segment, SegmentBuilder, Transcript

Work = Literal["transcribe", "speak", "translate"]

SCORES = ("avg_logprob", "compression_ratio", "no_speech_prob")
SAFE = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-_./")


@dataclass(frozen=True)
class Job:
    """What to do with a corpus; a worker of it can be made on any machine that has the model.

    work:    which kind of worker.
    model:   its name.
    output:  folder of the results.
    load:    what else the model is loaded with, that decides what comes out.
    options: of every item, as of the model's recordings or streams.
    source, target: codes of the languages that a translator has to have; None: any.
    ending:  of the files of speech.
    device, threads: where to compute, as of ``from_pretrained``.
    batch:   items, or windows of recordings, that go through the model at once.
    """

    work: Work
    model: str
    output: Path
    load: Mapping[str, Any] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    target: str | None = None
    ending: str = ".wav"
    device: str = "auto"
    threads: int | None = None
    batch: int = 8

    @property
    def kind(self) -> Kind:
        """What it takes of an item."""
        return "audio" if self.work == "transcribe" else "text"

    @property
    def settings(self) -> dict[str, Any]:
        """What decides the results, by name."""
        options = {name: asdict(one) if is_dataclass(one) else one for name, one in self.options.items()}  # type: ignore[arg-type]
        ending = {"ending": self.ending} if self.work == "speak" else {}
        return {"work": self.work, "model": self.model, **self.load, **options, **ending}

    def worker(self) -> Worker:
        """Load the model.

        Raises:
            ValueError: there is none of that name, or the options do not fit it.
        """
        return WORKERS[self.work](self)


class Worker(ABC):
    """Makes records of items. One that cannot be done gets an error for a record, and costs no other its result."""

    def __init__(self, job: Job) -> None:
        self.job = job

    def records(self, items: Sequence[Item], settings: str) -> Iterator[Record]:
        """One record of each item, in any order.

        Args:
            settings: digest of the job's settings, for those of the records.
        """
        left = {item.id: item for item in items}

        def finished(item: Item, values: Mapping[str, Any]) -> Record:
            del left[item.id]
            return {"id": item.id, **values, "digest": item.digest(self.job.kind, settings)}

        for item in items:
            if item.fault is not None:
                yield finished(item, {"error": item.fault})
        try:
            for item, values in self.results([*left.values()]):
                yield finished(item, values)
        except Exception:  # whose fault it is shows when each of the others comes alone
            for item in [*left.values()]:
                try:
                    ((_, values),) = self.results([item])
                except Exception as error:
                    values = {"error": f"{type(error).__name__}: {error}"}
                yield finished(item, values)

    @abstractmethod
    def results(self, items: Sequence[Item]) -> Iterator[tuple[Item, dict[str, Any]]]:
        """Each item with what its record says; what is raised concerns those that have not come yet."""


class Transcriber(Worker):
    """Recordings to text, each with its segments and, if they are timed, its words."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        self.recognizer = load_task("recognizer").from_pretrained(
            job.model, device=job.device, threads=job.threads, **job.load
        )
        if job.load.get("adapter") and self.recognizer.live_adapter:
            raise ValueError(f"the adapter {job.load['adapter']} was trained for live audio, not for recordings")
        self.recognizer.batch = job.batch
        # What does not fit the model is a matter of the job, not of every item.
        self.recognizer.transcribe(np.zeros(1600, np.float32), **job.options)

    def results(self, items: Sequence[Item]) -> Iterator[tuple[Item, dict[str, Any]]]:
        sources: list[str | Audio] = []
        readable: list[Item] = []
        for item in items:
            try:
                sources.append(item.audio())
                readable.append(item)
            except AudioError as error:
                yield item, {"error": str(error)}
        for number, result in self.recognizer.segments(sources, **self.job.options):
            item = readable[number]
            if isinstance(result, AudioError):
                yield item, {"error": str(result)}
            elif isinstance(result, Transcript):
                yield item, {**_place(item), **_transcript(result, item)}


def _place(item: Item) -> dict[str, Any]:
    values = {"path": item.path, "archive": item.archive, "start": item.start, "channel": item.channel}
    return {name: value for name, value in values.items() if value is not None}


def _transcript(result: Transcript, item: Item) -> dict[str, Any]:
    about = {"reference": item.text, "speaker": item.speaker, "warnings": list(result.warnings) or None}
    return {
        "duration": round(result.duration_s, 3),
        "language": result.language,
        "text": result.text.strip(),
        "segments": [_segment(one) for one in result.segments],
        **{name: value for name, value in about.items() if value is not None},
    }


def _segment(segment: Segment) -> dict[str, Any]:
    scores = {name: getattr(segment, name) for name in SCORES}
    words = [{name: value for name, value in asdict(word).items() if value is not None} for word in segment.words]
    values = {"start": segment.start, "end": segment.end, "text": segment.text.strip(), **scores, "words": words}
    return {name: _rounded(value) for name, value in values.items() if value not in (None, [])}


def _rounded(value: Any) -> Any:
    """Times and scores to 0.001."""
    if isinstance(value, float):
        return round(value, 3)
    if isinstance(value, list):
        return [{name: _rounded(one) for name, one in word.items()} for word in value]
    return value


class Speaker(Worker):
    """Texts to files of speech below the folder ``audio``, each with the times of its words if the voice tells them."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        synthesizer = load_task("synthesizer").from_pretrained(job.model, device=job.device, threads=job.threads)
        self.engine = Engine(synthesizer.streaming_task(), capacity=job.batch)
        self.engine.open(**job.options).close()

    def results(self, items: Sequence[Item]) -> Iterator[tuple[Item, dict[str, Any]]]:
        texts = [item.text or "" for item in items]
        for item, events in zip(items, whole_texts(self.engine, texts, **self.job.options), strict=True):
            yield item, _failure(events) or self._spoken(item, events)

    def _spoken(self, item: Item, events: Sequence[Event]) -> dict[str, Any]:
        speech = [event for event in events if isinstance(event, Speech)]
        if not speech:
            return {"error": "there is nothing in the text that can be spoken"}
        builder = SegmentBuilder()
        segments = [segment for event in events if (segment := builder.add(event))]
        skipped = [event.text for event in events if isinstance(event, Skipped)]
        path = Path("audio", file_name(item.id) + self.job.ending)
        target = self.job.output / path
        target.parent.mkdir(parents=True, exist_ok=True)
        samples = np.concatenate([event.samples for event in speech])
        write_audio(target, samples, speech[0].sample_rate)
        with open(target, "rb") as file:  # on the disk before there is a record of it
            os.fsync(file.fileno())
        sync_folder(target.parent)
        about = {"language": item.language, "speaker": item.speaker, "skipped": skipped or None}
        return {
            "path": path.as_posix(),
            "duration": round(len(samples) / speech[0].sample_rate, 3),
            "text": item.text,
            "segments": [_segment(one) for one in segments],
            **{name: value for name, value in about.items() if value is not None},
        }


def file_name(id: str) -> str:
    """A name for files of an item, without an ending: its id, or a digest of one that makes no good name."""
    parts = id.split("/")
    if SAFE.issuperset(id) and len(id) < 200 and not any(part.startswith(".") or not part for part in parts):
        return id
    return sha256(id.encode()).hexdigest()[:32]


class Interpreter(Worker):
    """Texts to texts in another language."""

    def __init__(self, job: Job) -> None:
        super().__init__(job)
        translator = load_task("translator").from_pretrained(job.model, device=job.device, threads=job.threads)
        for asked, has, what in ((job.source, translator.source, "from"), (job.target, translator.target, "to")):
            if asked is not None and asked != has:
                raise ValueError(f"the model {job.model!r} does not translate {what} {asked!r}, but {what} {has!r}")
        self.target = translator.target
        self.engine = Engine(translator.streaming_task(), capacity=job.batch)
        self.engine.open(**job.options).close()

    def results(self, items: Sequence[Item]) -> Iterator[tuple[Item, dict[str, Any]]]:
        texts = [" ".join((item.text or "").split()) for item in items]
        for item, events in zip(items, whole_texts(self.engine, texts, **self.job.options), strict=True):
            said = "".join(event.text for event in events if isinstance(event, Translation)).strip()
            about = {"start": item.start, "duration": item.duration, "speaker": item.speaker}
            known = {name: value for name, value in about.items() if value is not None}
            yield item, _failure(events) or {"source": item.text, "text": said, "language": self.target, **known}


def _failure(events: Sequence[Event]) -> dict[str, Any] | None:
    return next(({"error": event.message} for event in events if isinstance(event, Failure)), None)


WORKERS: dict[Work, type[Worker]] = {"transcribe": Transcriber, "speak": Speaker, "translate": Interpreter}
