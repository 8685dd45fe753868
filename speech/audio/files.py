"""Audio files in and out, and packets of samples brought to the one form the models read: mono float32 in [-1, 1].

What libsndfile knows (WAV, FLAC, MP3, Ogg Vorbis, Opus, AIFF, ...) goes through `soundfile`; anything else (M4A, WebM,
the sound of a video, ...) through PyAV, that is FFmpeg. The choice is made by content, not by file name.
"""

from __future__ import annotations

import io
import os
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, TypeAlias

import numpy as np
import soundfile

from loquent.speech.audio.errors import AudioError

if TYPE_CHECKING:
    from av import AudioFrame, AudioResampler
    from av.audio.stream import AudioStream

Source: TypeAlias = str | os.PathLike[str] | BinaryIO
Packet: TypeAlias = np.ndarray | bytes | bytearray | memoryview

PCM16_SCALE = 32768.0


@dataclass(frozen=True, eq=False)
class Audio:
    """Mono samples, float32 of shape (N,) nominally in [-1, 1], and their rate in Hz."""

    samples: np.ndarray
    sample_rate: int

    @property
    def duration_s(self) -> float:
        return len(self.samples) / self.sample_rate


def read_audio(source: Source, sample_rate: int | None = None) -> Audio:
    """Read a whole file, mixed down to mono by the mean of its channels.

    `source` is a path or a binary file object (a pipe too); `sample_rate` in Hz resamples, None keeps the file's own.
    Raises `AudioError` when the file is missing, empty, not audio, without samples, damaged, cut short, or of a rate
    that cannot be resampled. Formats whose headers promise no length (Ogg, a WebM recorded live) cannot be told cut
    from finished, and give what is there.
    """
    if sample_rate is not None and sample_rate <= 0:
        raise AudioError(f"expected a positive sample_rate in Hz, got {sample_rate}")
    with AudioReader(source) as reader:
        native = reader.sample_rate
        samples = np.concatenate([to_mono_float32(block, reader.channels) for block in reader.blocks(1.0)])
    if sample_rate is None or sample_rate == native:
        return Audio(samples, native)
    from loquent.speech.audio.resample import resample

    try:
        return Audio(resample(samples, native, sample_rate), sample_rate)
    except ValueError as error:
        raise AudioError(f"{reader.name} cannot be resampled: {error}") from error


def blocks(source: Source, seconds: float) -> Iterator[Audio]:
    """Read a file of any length in constant memory: mono blocks of `seconds` (the last may be shorter) at its own rate.

    Raises `AudioError` as `read_audio` does; that a file is cut short shows only at its end.
    """
    with AudioReader(source) as reader:
        for block in reader.blocks(seconds):
            yield Audio(to_mono_float32(block, reader.channels), reader.sample_rate)


def duration(source: Source) -> float:
    """Length of a file in seconds; it is decoded only if its header does not tell."""
    with AudioReader(source) as reader:
        if reader.duration_s is not None:
            return reader.duration_s
        return sum(len(block) for block in reader.blocks(1.0)) / reader.sample_rate


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
    ending = Path(path).suffix.lower()
    if ending not in _WRITABLE:
        raise AudioError(f"cannot write {os.fspath(path)!r}: expected a name ending in {', '.join(_WRITABLE)}")
    if samples.ndim not in (1, 2):
        raise AudioError(f"expected samples of shape (samples,) or (samples, channels), got {samples.shape}")
    pcm = to_pcm16(samples)
    container, encoding = _WRITABLE[ending]
    channels = 1 if pcm.ndim == 1 else pcm.shape[1]
    try:
        with soundfile.SoundFile(path, "w", sample_rate, channels, encoding, format=container) as file:
            # libsndfile's Vorbis encoder overflows the stack when it is given minutes at once.
            for start in range(0, len(pcm), sample_rate):
                file.write(pcm[start : start + sample_rate])
    except (soundfile.LibsndfileError, ValueError, OSError) as error:
        raise AudioError(
            f"cannot write {os.fspath(path)!r} ({container} {encoding}, {sample_rate} Hz, {channels} channels): {error}"
        ) from error


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
    """An open audio file: `sample_rate` (Hz), `channels`, `duration_s` (None if no header tells), and its `blocks`.

    It reads forward, once. Use it as a context manager. Opening what is missing, empty, not audio or without samples
    raises `AudioError`.
    """

    def __init__(self, source: Source) -> None:
        named = os.fspath(source) if isinstance(source, str | os.PathLike) else getattr(source, "name", None)
        self.name = repr(named) if isinstance(named, str) else "the audio stream"
        self._decoder = self._open(self._checked(source))
        self.sample_rate = self._decoder.sample_rate
        self.channels = self._decoder.channels
        self.duration_s = self._decoder.duration_s

    def __enter__(self) -> AudioReader:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def close(self) -> None:
        self._decoder.close()

    def blocks(self, seconds: float) -> Iterator[np.ndarray]:
        """Yield float32 (samples, channels), each `seconds` long but the last.

        Raises `AudioError` where the file turns out to be damaged or cut short.
        """
        frames = round(seconds * self.sample_rate)
        if frames < 1:
            raise AudioError(f"expected blocks of at least one sample, got {seconds} s at {self.sample_rate} Hz")
        decoded = 0
        try:
            for block in self._decoder.blocks(frames):
                decoded += len(block)
                yield block
        except _Damaged as error:
            after_s = decoded / self.sample_rate
            raise AudioError(f"{self.name} is damaged or cut short after {after_s:.2f} s: {error}") from error

    def _checked(self, source: Source) -> str | BinaryIO:
        """A path that exists and has bytes, or a seekable file at its start."""
        if not isinstance(source, str | os.PathLike):
            if not source.seekable():
                source = io.BytesIO(source.read())
            start = source.tell()
            if not source.read(1):
                raise AudioError(f"{self.name} is empty")
            source.seek(start)
            return source
        path = Path(source)
        if not path.exists():
            raise AudioError(f"no such audio file: {self.name}")
        if path.is_dir():
            raise AudioError(f"expected an audio file, got the folder {self.name}")
        if path.is_file() and path.stat().st_size == 0:
            raise AudioError(f"{self.name} is empty (0 bytes)")
        return os.fspath(path)

    def _open(self, source: str | BinaryIO) -> _SoundFile | _PyAV:
        start = 0 if isinstance(source, str) else source.tell()
        try:
            return _SoundFile(source)
        except _Damaged as error:
            first = error
        if not isinstance(source, str):
            source.seek(start)
        try:
            return _PyAV(source)
        except _Damaged as error:
            raise AudioError(f"{self.name} cannot be read as audio (libsndfile: {first}; FFmpeg: {error})") from error


class _Damaged(Exception):
    """What a decoder says is wrong; the reader adds which file and where."""


class _Sequential(soundfile.SoundFile):
    """After each read `soundfile` seeks a seekable file to where it is; an MP3 then loses the bits its frames share."""

    def seekable(self) -> bool:
        return False


class _SoundFile:
    def __init__(self, source: str | BinaryIO) -> None:
        self._missing = _riff_data_shortfall(source)
        try:
            self._file = _Sequential(source)
        except (soundfile.LibsndfileError, TypeError, OSError) as error:  # TypeError: a `.raw` name
            raise _Damaged(getattr(error, "error_string", str(error))) from error
        if self._file.frames == 0:
            self._file.close()
            raise _Damaged("it contains no samples")
        self.sample_rate = self._file.samplerate
        self.channels = self._file.channels
        self.duration_s: float | None = self._file.frames / self.sample_rate

    def blocks(self, frames: int) -> Iterator[np.ndarray]:
        decoded = 0
        try:
            while len(block := self._file.read(frames, dtype="float32", always_2d=True)):
                decoded += len(block)
                yield block
        except soundfile.LibsndfileError as error:
            raise _Damaged(error.error_string) from error
        if decoded < self._file.frames:
            raise _Damaged(f"its header promises {self._file.frames / self.sample_rate:.2f} s")
        if self._missing:
            raise _Damaged(f"its header promises {self._missing} more bytes")

    def close(self) -> None:
        self._file.close()


def _riff_data_shortfall(source: str | BinaryIO) -> int:
    """Bytes that a WAV header promises and the file lacks, which libsndfile passes over; 0 for any other file.

    A size of 2 GiB or more is what programs that write to a pipe leave there: it means "to the end".
    """
    file = open(source, "rb") if isinstance(source, str) else source  # noqa: SIM115 (closed only if opened here)
    start = file.tell()
    try:
        header = file.read(12)
        if header[:4] != b"RIFF" or header[8:] != b"WAVE":
            return 0
        while len(chunk := file.read(8)) == 8:
            name, size = struct.unpack("<4sI", chunk)
            if name == b"data":
                here = file.tell()
                return max(0, size - (file.seek(0, os.SEEK_END) - here)) if size < 0x7FFF0000 else 0
            file.seek(size + size % 2, os.SEEK_CUR)
        return 0
    finally:
        file.seek(start)
        if file is not source:
            file.close()


class _PyAV:
    def __init__(self, source: str | BinaryIO) -> None:
        import av

        self._errors = (av.FFmpegError, ValueError)
        try:
            # A playlist that is passed off as audio must not open anything else: other files, or addresses.
            allowed = "file" if isinstance(source, str) else "pipe"
            self._container = av.open(source, mode="r", options={"protocol_whitelist": allowed})
        except self._errors as error:
            raise _Damaged(getattr(error, "strerror", None) or str(error)) from error
        try:
            if not self._container.streams.audio:
                raise _Damaged("it has no audio stream")
            self._stream = self._container.streams.audio[0]
            self._parts = self._decoded(av.AudioResampler(format="fltp"))
            self._first = next(self._parts, None)
            if self._first is None:
                raise _Damaged("it contains no samples")
        except _Damaged:
            self.close()
            raise
        self.channels = self._first.shape[1]
        self.duration_s = _seconds(self._stream.duration, self._stream)
        if self.duration_s is None and self._container.duration and len(self._container.streams) == 1:
            # Matroska and WebM tell only the length of the whole, which with a picture may be the picture's.
            self.duration_s = self._container.duration / av.time_base

    def blocks(self, frames: int) -> Iterator[np.ndarray]:
        assert self._first is not None
        held, size = [self._first], len(self._first)
        while True:
            if size >= frames:
                joined = np.concatenate(held)
                whole = size - size % frames
                yield from joined[:whole].reshape(-1, frames, self.channels)
                held, size = [joined[whole:]], size - whole
            part = next(self._parts, None)
            if part is None:
                break
            held.append(part)
            size += len(part)
        if size:
            yield np.concatenate(held)
        if self.duration_s is not None and self._end_s < self.duration_s - 1.0:
            raise _Damaged(f"its header promises {self.duration_s:.2f} s")

    def _decoded(self, to_float: AudioResampler) -> Iterator[np.ndarray]:
        """Decoded frames as (samples, channels). Keeps the rate, and where the last one ends by the file's clock."""
        start_s = _seconds(self._stream.start_time, self._stream) or 0.0
        try:
            for frame in self._container.decode(self._stream):
                # Asked of a frame, not of the header: an HE-AAC header tells half of the rate.
                self.sample_rate = frame.sample_rate
                if frame.pts is not None:
                    self._end_s = (_seconds(frame.pts, frame) or 0.0) - start_s + frame.samples / frame.sample_rate
                for part in to_float.resample(frame):
                    yield part.to_ndarray().T
        except self._errors as error:
            raise _Damaged(getattr(error, "strerror", None) or str(error)) from error

    def close(self) -> None:
        self._container.close()


def _seconds(ticks: int | None, clock: AudioStream | AudioFrame) -> float | None:
    return None if ticks is None or clock.time_base is None else float(ticks * clock.time_base)
