"""The public face of synthesis: a voice that speaks texts, and streams of text."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from loquent.speech.audio.files import Audio
from loquent.speech.devices import compute_device, use_threads
from loquent.speech.hub import resolve
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Skipped, Speech
from loquent.speech.runtime.session import Session
from loquent.speech.transcript import Segment, SegmentBuilder
from loquent.tts.voices import SpeakingTask, family_of

DEFAULT_VOICE = "loquent/hibari"


@dataclass(frozen=True)
class Synthesis(Audio):
    """The speech of a text.

    segments: its utterances, with the times of their words.
    skipped:  text that is not spoken, and why.
    """

    segments: tuple[Segment, ...] = ()
    skipped: tuple[Skipped, ...] = ()


class Synthesizer:
    """A voice, offline and streaming: the same samples.

    Args:
        task: what speaks: `SpeechTask` with a voice that speaks word by word, or `CosyVoiceTask`.

    Attributes:
        sample_rate: of its speech, in Hz.
    """

    def __init__(self, task: SpeakingTask) -> None:
        self.task = task
        assert task.gives.sample_rate is not None
        self.sample_rate = task.gives.sample_rate

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | os.PathLike[str] = DEFAULT_VOICE,
        *,
        device: str | torch.device = "auto",
        threads: int | None = None,
        chunk_ms: int | None = None,
    ) -> Synthesizer:
        """Load a voice by name: one that is installed, a folder, or one of the Hugging Face hub (see `resolve`).

        Args:
            chunk_ms: speech that is rendered at a time, 200 unless given. Shorter is sooner, longer takes less time in
                all. CosyVoice has chunks of its own.

        Raises:
            CheckpointError: there is no such voice, or it cannot be fetched.
            ValueError: the checkpoint is damaged or no voice, or an argument is wrong.
        """
        path = resolve(name_or_path).path
        chosen = compute_device(device)
        use_threads(threads)
        return cls(family_of(path).task(path, chosen, chunk_ms))

    @property
    def voices(self) -> tuple[str, ...]:
        """Names of its speakers; the first is the default."""
        return self.task.voice.speakers

    def synthesize(self, text: str, **options: Any) -> Synthesis:
        """Speak a whole text.

        Args:
            options: those of `SpeechOptions`: voice, speed, context, seed, ssml, lexicon; or of `CosyVoiceOptions`:
                voice, context, seed.

        Raises:
            ValueError: an option is wrong.
        """
        session = self.session(**options)
        return collected(session.push(text) + session.finish(), self.sample_rate)

    def session(self, *, stream: str | None = None, **options: Any) -> Session:
        """Speak a text that comes in pieces: ``push(text)`` gives events, `Speech` among them.

        Args:
            stream: id of its events.
            options: as of `synthesize`.
        """
        return Engine(self.task).open(stream=stream, **options)

    def streaming_task(self) -> SpeakingTask:
        """The same voice for an `Engine` of many streams."""
        return self.task


def collected(events: list[Event], sample_rate: int) -> Synthesis:
    """The speech that the events of a stream bring, with silence where they leave a gap."""
    builder = SegmentBuilder()
    segments = tuple(segment for event in events if (segment := builder.add(event)))
    speech = [event for event in events if isinstance(event, Speech)]
    samples = np.zeros(max((round(event.end * sample_rate) for event in speech), default=0), np.float32)
    for event in speech:
        first = round(event.start * sample_rate)
        samples[first : first + len(event.samples)] = event.samples
    skipped = tuple(event for event in events if isinstance(event, Skipped))
    return Synthesis(samples, sample_rate, (), segments, skipped)
