"""What a corpus consists of: recordings, stretches of recordings, and texts."""

from __future__ import annotations

import functools
import hashlib
import io
import json
import os
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import soundfile

from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.files import Audio, AudioReader, read_audio, to_mono_float32

Kind = Literal["audio", "text"]

CHARACTERS_PER_S = 15.0  # of speech, to compare the lengths of texts with those of recordings
SEEKABLE = frozenset(("WAV", "WAVEX", "RF64", "W64", "AIFF", "FLAC"))  # formats in which libsndfile seeks exactly


@dataclass(frozen=True)
class Item:
    """One recording, or a stretch of one, or a text, as a manifest lists it.

    id:        unique in the corpus.
    text:      what is said in the recording, or what is to be spoken or translated.
    path:      of the recording, or of a member of ``archive``.
    written:   the path as the manifest has it.
    archive:   zip file that holds ``path``.
    start:     s into the recording; None if the item is all of it.
    duration:  s; None if the manifest does not tell.
    channel:   number of the only one to read; None mixes them.
    recording: id that lhotse knows the recording by.
    fault:     what is wrong with the item's row of the manifest; the rest is then unknown.
    """

    id: str
    text: str | None = None
    path: str | None = None
    written: str | None = None
    archive: str | None = None
    start: float | None = None
    duration: float | None = None
    channel: int | None = None
    language: str | None = None
    speaker: str | None = None
    recording: str | None = None
    fault: str | None = None

    def digest(self, kind: Kind, settings: str) -> str:
        """What tells whether a result is of this item and of these settings, 16 hexadecimal digits."""
        content: list[Any] = [self.written, self.start, self.duration, self.channel] if kind == "audio" else [self.text]
        value = json.dumps([settings, self.id, self.fault, *content])
        return hashlib.sha256(value.encode()).hexdigest()[:16]

    def length_s(self, kind: Kind) -> float:
        """How much work it is, in seconds of speech: exact for recordings, as far as a header tells."""
        if kind == "text":
            return len(self.text or "") / CHARACTERS_PER_S
        if self.duration is not None:
            return self.duration
        if self.fault is not None:
            return 0.0
        try:
            with AudioReader(self._source()) as reader:
                return reader.duration_s or 0.0
        except (AudioError, OSError):
            return 0.0  # told when its turn comes

    def audio(self) -> str | Audio:
        """Where the recording is if the item is all of a file; else its samples.

        Raises:
            AudioError: it cannot be read, or the stretch is not in it.
        """
        if self.path is None:
            raise AudioError("the item has no recording")
        if self.start is None and self.channel is None:
            return self.path if self.archive is None else read_audio(self._source())
        return _stretch(self._source(), self.path, self.start or 0.0, self.duration, self.channel)

    def _source(self) -> str | io.BytesIO:
        assert self.path is not None
        if self.archive is None:
            return self.path
        try:
            return io.BytesIO(open_archive(self.archive, os.getpid()).read(self.path))
        except (KeyError, OSError, zipfile.BadZipFile) as error:
            raise AudioError(f"cannot read {self.path!r} in {self.archive!r}: {error}") from error


@functools.lru_cache(maxsize=64)
def open_archive(path: str, process: int) -> zipfile.ZipFile:
    """An open archive; every process has its own, for they would share the position in the file."""
    return zipfile.ZipFile(path)


def _stretch(
    source: str | io.BytesIO, name: str, start_s: float, duration_s: float | None, channel: int | None
) -> Audio:
    """A part of a recording, in one channel; of one that is shorter, what there is."""
    frames, rate = _sought(source, start_s, duration_s)
    if frames is None:
        frames, rate = _read_up_to(source, start_s, duration_s)
    if not len(frames):
        raise AudioError(f"{name!r} ends before {start_s:g} s, where the stretch begins")
    if channel is not None:
        if channel >= frames.shape[1]:
            raise AudioError(f"{name!r} has {frames.shape[1]} channels, none with the number {channel}")
        frames = frames[:, channel : channel + 1]
    return Audio(to_mono_float32(frames, frames.shape[1]), rate)


def _sought(source: str | io.BytesIO, start_s: float, duration_s: float | None) -> tuple[np.ndarray | None, int]:
    """The frames (N, channels) of a stretch that the file can seek to; None if it cannot, or holds less."""
    if duration_s is None:
        return None, 0
    try:
        with soundfile.SoundFile(os.fsencode(source) if isinstance(source, str) else source) as file:
            rate = int(file.samplerate)
            count = round((start_s + duration_s) * rate) - round(start_s * rate)
            if file.format in SEEKABLE and file.seekable():
                file.seek(round(start_s * rate))
                frames: np.ndarray = file.read(count, dtype="float32", always_2d=True)
                return (frames if len(frames) == count else None), rate
    except (soundfile.LibsndfileError, OSError):
        pass  # another decoder may know what to do, or tells what is wrong
    if not isinstance(source, str):
        source.seek(0)
    return None, 0


def _read_up_to(source: str | io.BytesIO, start_s: float, duration_s: float | None) -> tuple[np.ndarray, int]:
    """The frames (N, channels) of a stretch, found by reading everything before it."""
    if not isinstance(source, str):
        source.seek(0)
    with AudioReader(source) as reader:
        first = round(start_s * reader.sample_rate)
        end = None if duration_s is None else round((start_s + duration_s) * reader.sample_rate)
        kept: list[np.ndarray] = []
        at = 0
        for block in reader.blocks(1.0):
            kept.append(block[max(first - at, 0) : None if end is None else max(end - at, 0)])
            at += len(block)
            if end is not None and at >= end:
                break
        return np.concatenate(kept), reader.sample_rate


def packed(items: Sequence[Item], lengths: Sequence[float], seconds: float, least: int, most: int) -> list[list[Item]]:
    """Batches of items of like length, the longest first.

    Args:
        lengths: of the items, in seconds.
        seconds: of a batch, unless ``least`` items are longer.
        least, most: items of a batch.
    """
    batches: list[list[Item]] = []
    total = 0.0
    for at in sorted(range(len(items)), key=lambda at: -lengths[at]):
        size = len(batches[-1]) if batches else most
        if size >= most or (size >= least and total + lengths[at] > seconds):
            batches.append([])
            total = 0.0
        batches[-1].append(items[at])
        total += lengths[at]
    return batches
