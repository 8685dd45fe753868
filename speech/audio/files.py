"""Audio files in and out, and packets of samples brought to the one form the models read: mono float32 in [-1, 1].

What libsndfile knows (WAV, FLAC, Ogg Vorbis, Opus, AIFF, ...) goes through `soundfile`; anything else (MP3, M4A, WebM,
the sound of a video, ...) through PyAV, that is FFmpeg. The choice is made by content, not by file name.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import secrets
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

import numpy as np
import soundfile

from loquent.speech.audio.decoders import Damaged, Fault, FFmpeg, Piece, SndFile
from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.inputs import Source, name_of, open_input, printable
from loquent.speech.audio.lengths import stated_bytes
from loquent.speech.audio.parts import Section, find_parts

Packet: TypeAlias = np.ndarray | bytes | bytearray | memoryview

PCM16_SCALE = 32768.0

logger = logging.getLogger(__name__)


@dataclass(frozen=True, eq=False)
class Audio:
    """Mono samples, float32 of shape (N,) nominally in [-1, 1], and their rate in Hz.

    warnings: what is missing of the file that they come from, a sentence each.
    """

    samples: np.ndarray
    sample_rate: int
    warnings: tuple[str, ...] = ()

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.sample_rate


def read_audio(source: Source, sample_rate: int | None = None) -> Audio:
    """Read a whole file, mixed down to mono by the mean of its channels.

    `source` is a path or a binary file object (a pipe too); `sample_rate` in Hz resamples, None keeps the file's own.
    Of a file that is damaged or cut short, what can be decoded is read; `warnings` of the result, and the log, say what
    is missing. Raises `AudioError` when the file is missing, empty, not audio, without a sample that can be decoded, or
    of a rate that cannot be resampled. Formats whose headers state no length (Ogg, a WebM recorded live) cannot be told
    cut from finished.
    """
    if sample_rate is not None and sample_rate <= 0:
        raise AudioError(f"expected a positive sample_rate in Hz, got {sample_rate}")
    with AudioReader(source) as reader:
        native = reader.sample_rate
        samples = np.concatenate([to_mono_float32(block, reader.channels) for block in reader.blocks(1.0)])
    warnings = _logged(reader)
    if sample_rate is None or sample_rate == native:
        return Audio(samples, native, warnings)
    from loquent.speech.audio.resample import resample

    try:
        return Audio(resample(samples, native, sample_rate), sample_rate, warnings)
    except ValueError as error:
        raise AudioError(f"{reader.name} cannot be resampled: {error}") from error


def blocks(source: Source, seconds: float) -> Iterator[Audio]:
    """Read a file of any length in constant memory: mono blocks of `seconds` (the last may be shorter) at its own rate.

    Raises `AudioError` as `read_audio` does. That a file is damaged or cut short shows only at its end, in the log.
    """
    with AudioReader(source) as reader:
        for block in reader.blocks(seconds):
            yield Audio(to_mono_float32(block, reader.channels), reader.sample_rate)
        _logged(reader)


def duration(source: Source) -> float:
    """Length of a file in seconds; it is decoded only if its header does not state it."""
    with AudioReader(source) as reader:
        if reader.duration_s is not None:
            return reader.duration_s
        return sum(len(block) for block in reader.blocks(1.0)) / reader.sample_rate


def _logged(reader: AudioReader) -> tuple[str, ...]:
    for warning in reader.warnings:
        logger.warning("%s", warning)
    return tuple(reader.warnings)


_WRITABLE = {
    ".wav": ("WAV", "PCM_16"),
    ".flac": ("FLAC", "PCM_16"),
    ".mp3": ("MP3", "MPEG_LAYER_III"),
    ".ogg": ("OGG", "VORBIS"),
    ".opus": ("OGG", "OPUS"),
}


def write_audio(path: str | os.PathLike[str], samples: np.ndarray, sample_rate: int) -> None:
    """Write int16 or float32 `samples`, (N,) or (N, channels), at `sample_rate` Hz.

    The name's ending decides: 16-bit `.wav` or `.flac`, `.mp3`, `.ogg` (Vorbis) or `.opus`. Float samples outside
    [-1, 1] are clipped. Raises `AudioError` for an ending, a rate or samples that cannot be written.
    """
    if samples.ndim not in (1, 2):
        raise AudioError(f"expected samples of shape (samples,) or (samples, channels), got {samples.shape}")
    with AudioWriter(path, sample_rate, 1 if samples.ndim == 1 else samples.shape[1]) as writer:
        writer.write(samples)


class AudioWriter:
    """An audio file that is written piece by piece, of the formats of `write_audio`. Use it as a context manager.

    The file has its name once it is whole; one that is given up leaves nothing. `AudioError` says what cannot be
    written.
    """

    def __init__(self, path: str | os.PathLike[str], sample_rate: int, channels: int = 1) -> None:
        ending = Path(path).suffix.lower()
        if ending not in _WRITABLE:
            raise AudioError(f"cannot write {printable(path)!r}: expected a name ending in {', '.join(_WRITABLE)}")
        container, encoding = _WRITABLE[ending]
        self._what = f"{printable(path)!r} ({container} {encoding}, {sample_rate} Hz, {channels} channels)"
        self._path, self._rate = Path(path), sample_rate
        special = self._path.exists() and not self._path.is_file()  # a pipe, say, which cannot be replaced
        self._scratch = self._path if special else self._path.with_name(f".loquent-{secrets.token_hex(8)}{ending}")
        with self._explained():
            self._file = soundfile.SoundFile(
                os.fsencode(self._scratch), "w", sample_rate, channels, encoding, format=container
            )

    def write(self, samples: np.ndarray) -> None:
        """Append int16 or float32 samples, (N,) or (N, channels)."""
        pcm = to_pcm16(samples)
        with self._explained():
            # libsndfile's Vorbis encoder overflows the stack when it is given minutes at once.
            for start in range(0, len(pcm), self._rate):
                self._file.write(pcm[start : start + self._rate])

    def __enter__(self) -> AudioWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        try:
            with self._explained():
                self._file.close()
                if kind is None and self._scratch != self._path:
                    os.replace(self._scratch, self._path)
        finally:
            if self._scratch != self._path:
                self._scratch.unlink(missing_ok=True)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        try:
            yield
        except (soundfile.LibsndfileError, ValueError, OSError) as error:
            raise AudioError(f"cannot write {self._what}: {error}") from error


def to_mono_float32(packet: Packet, channels: int = 1) -> np.ndarray:
    """Bring one packet to float32 (samples,), mixing channels by their mean.

    `packet` is an int16 or float32 array of shape (samples,) or (samples, channels), or interleaved little-endian PCM16
    bytes. Each sample is converted by itself, so the result does not depend on how a stream is cut into packets. The
    result may share memory with the packet. Raises `AudioError` for another type or shape, a cut frame, NaN, infinity.
    """
    if channels < 1:
        raise AudioError(f"expected at least 1 channel, got {channels}")
    if isinstance(packet, bytes | bytearray | memoryview):
        size = packet.nbytes if isinstance(packet, memoryview) else len(packet)
        if size % (2 * channels):
            raise AudioError(
                f"expected PCM16 of {channels} channels, {2 * channels} bytes a frame, got {size} bytes: a frame is cut"
            )
        packet = np.frombuffer(packet, dtype="<i2").reshape(-1, channels)
    elif not isinstance(packet, np.ndarray):
        raise AudioError(f"expected a numpy array or PCM16 bytes, got {type(packet).__name__}; pass numpy.asarray(...)")
    if packet.ndim == 1:
        packet = packet[:, None]
    if packet.ndim != 2 or packet.shape[1] != channels:
        hint = "; transpose it" if packet.ndim == 2 and packet.shape[0] == channels else ""
        expected = "(samples,) or (samples, 1)" if channels == 1 else f"(samples, {channels})"
        shape = tuple(packet.shape) if packet.ndim == 2 and packet.shape[1] != 1 else packet.shape[:1]
        raise AudioError(f"expected samples of shape {expected}, got {shape}{hint}")
    if packet.dtype == np.int16:
        mono = _mean_of_channels(packet.astype(np.float32)) / np.float32(PCM16_SCALE)
    elif packet.dtype == np.float32:
        mono = _mean_of_channels(packet)
        _check_finite(mono)
    else:
        raise AudioError(f"expected int16 or float32 samples, got {packet.dtype}; pass .astype(numpy.float32)")
    return np.ascontiguousarray(mono)


def to_pcm16(samples: np.ndarray) -> np.ndarray:
    """Round float32 samples of any shape to int16, clipping at full scale; int16 passes through.

    It undoes `to_mono_float32` exactly. Raises `AudioError` for another type, NaN or infinity.
    """
    if samples.dtype == np.int16:
        return samples
    if samples.dtype != np.float32:
        raise AudioError(f"expected int16 or float32 samples, got {samples.dtype}")
    _check_finite(samples)
    return np.clip(np.rint(samples * PCM16_SCALE), -PCM16_SCALE, PCM16_SCALE - 1).astype(np.int16)


def _mean_of_channels(frames: np.ndarray) -> np.ndarray:
    """Mean over the second axis. Added channel by channel: numpy's own reduction orders its sums by memory layout."""
    if frames.shape[1] == 1:
        return frames[:, 0]
    total = frames[:, 0].copy()
    for channel in range(1, frames.shape[1]):
        total += frames[:, channel]
    return total / np.float32(frames.shape[1])


def _check_finite(samples: np.ndarray) -> None:
    finite = np.isfinite(samples)
    if not finite.all():
        where = tuple(np.argwhere(~finite)[0].tolist())
        index = where[0] if len(where) == 1 else where
        raise AudioError(f"expected finite samples, got {samples[where]} at sample {index}")


class AudioReader:
    """An open audio file: `sample_rate` (Hz), `channels`, `duration_s` (None if no header states it), and its `blocks`.

    It reads forward, once, all parts of a file whose parts were joined. `warnings` says in sentences what was damaged
    or is missing; they are complete when the last block was read. Use it as a context manager. Opening what is missing,
    empty, not audio or without samples raises `AudioError`.
    """

    def __init__(self, source: Source) -> None:
        self.name = name_of(source)
        self.warnings: list[str] = []
        self._path: bytes | None = None
        if isinstance(source, str | os.PathLike) and os.path.isfile(source):
            self._path = os.fsencode(source)
        self._file = open_input(source)
        self._owned = self._file is not source
        try:
            self._parts = find_parts(self._file)
            ending = os.path.splitext(self._path or b"")[1].decode("ascii", "ignore")
            for part in self._parts:
                part.name += ending
            self._decoder = self._open(0)
        except BaseException:
            self._close_file()
            raise
        self.sample_rate = self._decoder.sample_rate
        self.channels = self._decoder.channels
        self.duration_s = self._decoder.stated_s if len(self._parts) == 1 else None

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self._decoder.close()
        self._close_file()

    def blocks(self, seconds: float) -> Iterator[np.ndarray]:
        """Yield float32 (samples, channels), each `seconds` long but the last.

        What was joined to the file at another rate or with other channels comes at the rate of its beginning, mixed by
        the mean of its channels. Raises `AudioError` if nothing can be decoded.
        """
        frames = round(seconds * self.sample_rate)
        if frames < 1:
            raise AudioError(f"expected blocks of at least one sample, got {seconds} s at {self.sample_rate} Hz")
        return self._some(_framed(self._uniform(frames), frames))

    def _some(self, blocks: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
        first = next(blocks, None)
        if first is None:
            reasons = "; ".join(self.warnings) or "it contains no samples"
            raise AudioError(f"{self.name} cannot be read as audio: {reasons}")
        yield first
        yield from blocks

    def _uniform(self, frames: int) -> Iterator[np.ndarray]:
        """Samples of all parts as (samples, channels) at one rate."""
        own = self.sample_rate, self.channels
        for (rate, channels), run in itertools.groupby(self._pieces(frames), lambda one: (one[1], one[0].shape[1])):
            if (rate, channels) == own:
                yield from (samples for samples, _ in run)
                continue
            mono: Iterable[np.ndarray] = (_mean_of_channels(samples) for samples, _ in run)
            if rate != self.sample_rate:
                from loquent.speech.audio.resample import resample_blocks

                mono = resample_blocks(mono, rate, self.sample_rate, self.name)
            try:
                yield from (np.repeat(samples[:, None], self.channels, 1) for samples in mono)
            except AudioError as error:
                self.warnings.append(f"a part was left out: {error}")

    def _pieces(self, frames: int) -> Iterator[Piece]:
        """What can be decoded, part by part, with a warning for each part that lacks something."""
        before_s = 0.0
        for number, part in enumerate(self._parts):
            if number:
                try:
                    self._decoder.close()
                    self._decoder = self._open(number)
                except AudioError as error:
                    self.warnings.append(f"part {number + 1} of {len(self._parts)} was left out: {error}")
                    continue
            part_s = 0.0
            for piece in self._decoded(number, frames):
                part_s += len(piece.samples) / piece.sample_rate
                yield piece
            self._warn(part, before_s, part_s)
            before_s += part_s

    def _warn(self, part: Section, before_s: float, read_s: float) -> None:
        """Say what is wrong with a part of which `read_s` seconds were read, after `before_s` of others."""
        place = f" from {before_s:.2f} s on" if before_s else ""
        faults = self._decoder.faults
        if faults:
            at_s, text = faults[0]
            more = f"; {len(faults) - 1} more faults follow" if len(faults) > 1 else ""
            self.warnings.append(f"{self.name} is damaged at {before_s + at_s:.2f} s ({text}){more}")
        stated_s = self._decoder.stated_s or 0.0
        part.seek(0)
        size, there = stated_bytes(part)
        # Rounding is no lack, and containers state their lengths in frames, or of another stream.
        if stated_s > read_s + max(self._decoder.slack_s, 0.001):
            lack = f"{read_s:.2f} s could be read of the {stated_s:.2f} s that its header states"
        elif size > there:
            lack = f"{read_s:.2f} s could be read, from {there} of the {size} bytes that its header states"
        elif part.cut:
            lack = f"{read_s:.2f} s could be read, and it ends within a page"
        elif part.damaged and not faults:
            lack = f"{read_s:.2f} s could be read, without some pages that are damaged or missing"
        else:
            return
        self.warnings.append(f"{self.name} is damaged or cut short{place}: {lack}")

    def _decoded(self, number: int, frames: int) -> Iterator[Piece]:
        """A part through the decoder that it was opened with; where that gives up, FFmpeg goes on from there."""
        done = 0
        try:
            for piece in self._decoder.pieces(frames):
                done += len(piece.samples)
                yield piece
            return
        except Damaged as error:
            reason = str(error)
        at_s = done / self._decoder.sample_rate
        try:
            other = FFmpeg(self._section(number))
        except Damaged:
            self._decoder.faults.append(Fault(at_s, reason))
            return
        other.faults.append(Fault(at_s, reason))
        other.stated_s, other.slack_s = self._decoder.stated_s, self._decoder.slack_s
        self._decoder.close()
        self._decoder = other
        for samples, rate in other.pieces(frames):
            if len(samples) > done:
                yield Piece(samples[done:], rate)
            done = max(0, done - len(samples))

    def _section(self, number: int) -> Section:
        section = self._parts[number]
        section.seek(0)
        return section

    def _open(self, number: int) -> SndFile | FFmpeg:
        section = self._section(number)
        if section.damaged:
            with contextlib.suppress(Damaged):
                return FFmpeg(section)
        file: bytes | BinaryIO | Section = section
        if len(self._parts) == 1 and section.is_whole:  # without a detour through Python
            self._file.seek(0)
            file = self._path or self._file
        try:
            return SndFile(file, section.size)
        except Damaged as error:
            first = error
        section.seek(0)
        try:
            return FFmpeg(section)
        except Damaged as error:
            section.seek(4)
            hint = "; it is cut short, or its recording was not finished" if section.read(4) == b"ftyp" else ""
            raise AudioError(
                f"{self.name} cannot be read as audio (libsndfile: {first}; FFmpeg: {error}){hint}"
            ) from error

    def _close_file(self) -> None:
        if self._owned:
            self._file.close()


def _framed(pieces: Iterable[np.ndarray], frames: int) -> Iterator[np.ndarray]:
    """The same samples in blocks of ``frames``; the last may be shorter."""
    held: list[np.ndarray] = []
    size = 0
    for piece in pieces:
        if not held and len(piece) == frames:
            yield piece
            continue
        held.append(piece)
        size += len(piece)
        if size >= frames:
            joined = np.concatenate(held)
            whole = size - size % frames
            yield from joined[:whole].reshape(-1, frames, joined.shape[1])
            held, size = ([joined[whole:]], size - whole) if size > whole else ([], 0)
    if size:
        yield np.concatenate(held)
