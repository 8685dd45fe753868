"""A recording as log-mel frames, read as far as needed and forgotten behind: constant memory for any length."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator
from typing import TypeAlias

import numpy as np
import torch
from torch import Tensor

from loquent.speech.audio import Audio, AudioReader, to_mono_float32
from loquent.speech.features import WhisperLogMel
from loquent.speech.resample import Resampler

SAMPLE_RATE = 16_000
FRAME_RATE = 100  # log-mel frames per second
BLOCK_S = 10.0

Source: TypeAlias = str | os.PathLike[str] | np.ndarray | Audio


class Recording:
    """Normalised log-mel windows of a file, or of mono float32 samples at 16 kHz or of `Audio` at any rate.

    Values are floored 8 decades below the loudest so far, the end of the window asked for included. For recordings of
    up to 30 s that is Whisper's own normalisation; for longer ones it does without a second pass over the file, and a
    silent stretch after speech is not blown up to full scale.

    Attributes:
        duration_s: length in seconds, None where the file's header does not tell and the end was not reached.
        frames: log-mel frames of the whole recording, None before its end was reached.
    """

    def __init__(self, source: Source, n_mels: int = 80) -> None:
        """Open a recording; raises `AudioError` if it cannot be read."""
        self._extract = WhisperLogMel(n_mels)
        self._state = self._extract.initial_state(1)
        self._blocks = self._open(source)
        self._held = torch.zeros(0, n_mels)  # frames from `_first` on, not normalised
        self._first = 0
        self._peak = -10.0
        self._received = 0
        self.frames: int | None = None

    def size_until(self, frame: int) -> int:
        """The lesser of ``frame`` and the number of frames there are; reads no further than that."""
        while self.frames is None and self._first + len(self._held) < frame:
            self._read()
        return frame if self.frames is None else min(frame, self.frames)

    def window(self, start: int, end: int) -> Tensor:
        """Frames start … end - 1, (end - start, F) and normalised. Those before ``start`` are gone then."""
        if start < self._first or self.size_until(end) != end:
            raise ValueError(f"frames {start} … {end} are gone or do not exist: the recording has {self.frames}")
        self._held, self._first = self._held[start - self._first :].clone(), start
        frames = self._held[: end - start]
        if end > start:
            self._peak = max(self._peak, float(frames.max()))
        return (frames.clamp_min(self._peak - 8) + 4) / 4

    def close(self) -> None:
        """Close the file; the frames read stay available."""
        self._blocks.close()

    def _read(self) -> None:
        block = next(self._blocks, None)
        samples = torch.zeros(1, 0) if block is None else block
        new = self._extract.step(samples, self._state, last=block is None).data[0]
        self._held = torch.cat([self._held, new])
        self._received += samples.shape[1]
        if block is None:
            self.frames = self._first + len(self._held)
            self.duration_s = self._received / SAMPLE_RATE

    def _open(self, source: Source) -> Generator[Tensor, None, None]:
        """Blocks of 16 kHz samples, (1, N)."""
        if isinstance(source, np.ndarray):
            source = Audio(to_mono_float32(source), SAMPLE_RATE)
        if isinstance(source, Audio):
            self.duration_s: float | None = source.duration_s
            step = round(BLOCK_S * source.sample_rate)
            parts = (source.samples[at : at + step] for at in range(0, len(source.samples), step))
            return _resampled(parts, source.sample_rate, lambda: None)
        reader = AudioReader(source)
        self.duration_s = reader.duration_s
        parts = (to_mono_float32(block, reader.channels) for block in reader.blocks(BLOCK_S))
        return _resampled(parts, reader.sample_rate, reader.close)


def _resampled(parts: Iterator[np.ndarray], rate: int, close: Callable[[], None]) -> Generator[Tensor, None, None]:
    """The parts at 16 kHz; closes their source at the end, or when it is closed itself."""
    try:
        resampler = Resampler(rate, SAMPLE_RATE)
        state = resampler.initial_state(1)
        for part in parts:
            yield resampler.step(torch.from_numpy(part)[None], state).data
        yield resampler.step(torch.zeros(1, 0), state, last=True).data
    finally:
        close()
