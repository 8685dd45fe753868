"""A recording as log-mel frames, read as far as needed and dropped once used: constant memory for any length."""

from __future__ import annotations

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeAlias

import numpy as np
import torch
from torch import Tensor

from loquent.asr.recordings.speech_filter import SpeechFilter
from loquent.speech.audio.endpoint import FILTERED_SPEECH, SpeechOptions
from loquent.speech.audio.features import WhisperLogMel
from loquent.speech.audio.files import Audio, AudioReader, to_mono_float32
from loquent.speech.audio.resample import resample_blocks
from loquent.speech.audio.vad import SileroVad

SAMPLE_RATE = 16_000
FRAME_RATE = 100  # log-mel frames per second
BLOCK_S = 10.0
SHORTEST = 20  # frames of speech that are worth another look

RecordingSource: TypeAlias = str | os.PathLike[str] | np.ndarray | Audio


@dataclass(frozen=True)
class Frames:
    """Consecutive frames of a recording.

    Attributes:
        start: number of the first one, not counting frames that were left out.
        mel: normalised log-mel, (T, F).
        places: number of each, counting all, (T,).
        speech: probability of speech in each, (T,); 1 where it is not known.
        kept: what was taken for speech when frames were left out.
    """

    start: int
    mel: Tensor
    places: Tensor
    speech: Tensor
    kept: SpeechOptions = FILTERED_SPEECH

    @property
    def frames(self) -> int:
        """The number after the last one's."""
        return self.start + len(self.mel)

    @property
    def spoken(self) -> bool:
        """Whether there may be a word in them."""
        return int((self.speech >= self.kept.start_threshold).sum()) >= min(SHORTEST, len(self.speech))

    def size_until(self, frame: int) -> int:
        """The lesser of ``frame`` and the number after the last one's."""
        return min(frame, self.frames)

    def window(self, start: int, end: int) -> Frames:
        """Frames start … end - 1."""
        part = slice(start - self.start, end - self.start)
        return Frames(start, self.mel[part], self.places[part], self.speech[part], self.kept)

    def original_times(self, start_s: float, end_s: float) -> tuple[float, float]:
        """Two times in these frames, counted in seconds of the whole recording.

        A segment or word that reaches across a cut by less than a second does so because its times are not exact: it
        belongs to the side of its longer part.
        """
        margin = round(self.kept.padding_s * FRAME_RATE) * 3 // 4
        first, after = (min(max(round(t * FRAME_RATE) - self.start, 0), len(self.mel)) for t in (start_s, end_s))
        for cut in (torch.nonzero(self.places.diff() > 1)[:, 0] + 1).tolist():
            begin = max(first, cut + margin) if first > cut - FRAME_RATE else first
            end = min(after, cut - margin) if after < cut + FRAME_RATE else after
            if begin <= end:
                first, after = begin, end
            elif first < cut < after:
                first, after = (first, cut) if cut - first >= after - cut else (cut, after)
        begin = int(self.places[first] if first < len(self.mel) else self.places[-1] + 1)
        return begin / FRAME_RATE, (int(self.places[after - 1]) + 1 if after > first else begin) / FRAME_RATE


NOTHING = Frames(0, torch.zeros(0, 0), torch.zeros(0, dtype=torch.long), torch.zeros(0))


class MelRecording:
    """Normalised log-mel windows of a file, or of mono float32 samples at 16 kHz or of `Audio` at any rate.

    Values are floored 8 decades below the loudest so far, the end of the window asked for included. For recordings of
    up to 30 s that is Whisper's own normalisation; for longer ones it does without a second pass over the file, and a
    silent stretch after speech is not blown up to full scale.

    Attributes:
        duration_s: length in seconds, None where the file's header does not tell and the end was not reached.
        frames: log-mel frames of the whole recording, None before its end was reached.
        warnings: what is damaged in it, or missing; complete when its end was reached.
    """

    def __init__(
        self,
        source: RecordingSource,
        n_mels: int = 80,
        vad: SileroVad | None = None,
        speech: SpeechOptions = FILTERED_SPEECH,
    ) -> None:
        """Open a recording.

        Args:
            vad: leaves out frames without speech; all others are then counted as if those had never been.
            speech: what it takes for speech.

        Raises:
            AudioError: it cannot be read.
        """
        self._extract = WhisperLogMel(n_mels)
        self._state = self._extract.initial_state(1)
        self._filter = None if vad is None else SpeechFilter(vad, speech)
        self.duration_s, self._blocks, self.warnings = open_blocks(source)
        # As extracted, before normalisation.
        self._held = Frames(0, torch.zeros(0, n_mels), torch.zeros(0, dtype=torch.long), torch.zeros(0), speech)
        self._peak = -10.0
        self._received = 0
        self.frames: int | None = None

    def size_until(self, frame: int) -> int:
        """The lesser of ``frame`` and the number of frames there are; reads no further than that."""
        while self.frames is None and self._held.frames < frame:
            self._read()
        return frame if self.frames is None else min(frame, self.frames)

    def window(self, start: int, end: int) -> Frames:
        """Frames start … end - 1. Those before ``start`` are gone then."""
        if start < self._held.start or self.size_until(end) != end:
            raise ValueError(f"frames {start} … {end} are gone or do not exist: the recording has {self.frames}")
        held = self._held
        left = held.window(start, held.frames)
        self._held = Frames(start, left.mel.clone(), left.places.clone(), left.speech.clone(), held.kept)
        window = self._held.window(start, end)
        if end > start:
            self._peak = max(self._peak, float(window.mel.max()))
        mel = (window.mel.clamp_min(self._peak - 8) + 4) / 4
        return Frames(start, mel, window.places, window.speech, held.kept)

    def passages(self, longest: int) -> Iterator[Frames]:
        """Cut the recording into stretches of up to ``longest`` frames, where speech is least likely."""
        start = 0
        while self.size_until(start + 1) > start:
            end = self.size_until(start + longest)
            if self.size_until(end + 1) > end:
                end = self._pause(start + longest * 2 // 3, end)
            yield self.window(start, end)
            start = end

    def close(self) -> None:
        """Close the file; the frames read stay available."""
        self._blocks.close()

    def _pause(self, start: int, end: int) -> int:
        """The middle of the 0.3 s within frames start … end - 1 in which speech is least likely."""
        width = FRAME_RATE * 3 // 10
        speech = self._held.window(start, end).speech.unfold(0, width, 1).mean(-1)
        return start + int(speech.argmin()) + width // 2

    def _read(self) -> None:
        block = next(self._blocks, None)
        last = block is None
        samples = torch.zeros(1, 0) if block is None else block
        mel = self._extract.step(samples, self._state, last=last).data[0]
        if self._filter is None:
            places, speech = torch.arange(self._held.frames, self._held.frames + len(mel)), torch.ones(len(mel))
        else:
            mel, places, speech = self._filter.step(samples, mel, last)
        held = self._held
        self._held = Frames(
            held.start,
            torch.cat([held.mel, mel]),
            torch.cat([held.places, places]),
            torch.cat([held.speech, speech]),
            held.kept,
        )
        self._received += samples.shape[1]
        if last:
            self.frames = self._held.frames
            self.duration_s = self._received / SAMPLE_RATE


class OpenBlocks(NamedTuple):
    """An open recording.

    duration_s: its length in seconds, None if its header does not tell.
    blocks:     its samples (1, N) at 16 kHz.
    warnings:   what is damaged in it, or missing, a sentence each; complete after the last block.
    """

    duration_s: float | None
    blocks: Generator[Tensor, None, None]
    warnings: Sequence[str]


def open_blocks(source: RecordingSource) -> OpenBlocks:
    """Open a recording.

    Raises:
        AudioError: it cannot be read; now, or at a later block.
    """
    if isinstance(source, np.ndarray):
        source = Audio(to_mono_float32(source), SAMPLE_RATE)
    if isinstance(source, Audio):
        step = round(BLOCK_S * source.sample_rate)
        parts = (source.samples[at : at + step] for at in range(0, len(source.samples), step))
        blocks = _resampled(parts, source.sample_rate, "the recording", lambda: None)
        return OpenBlocks(source.duration_s, blocks, source.warnings)
    reader = AudioReader(source)
    parts = (to_mono_float32(block, reader.channels) for block in reader.blocks(BLOCK_S))
    blocks = _resampled(parts, reader.sample_rate, reader.name, reader.close)
    return OpenBlocks(reader.duration_s, blocks, reader.warnings)


def _resampled(
    parts: Iterator[np.ndarray], rate: int, name: str, close: Callable[[], None]
) -> Generator[Tensor, None, None]:
    """The parts at 16 kHz; closes their source at the end, or when it is closed itself."""
    try:
        for samples in resample_blocks(parts, rate, SAMPLE_RATE, name):
            yield torch.from_numpy(samples)[None]
    finally:
        close()
