"""Samples out of one part of an audio file: libsndfile for what it knows, FFmpeg (through PyAV) for everything else."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

import numpy as np
import soundfile

from loquent.speech.audio.lengths import mp3_states_its_length
from loquent.speech.audio.parts import Section

if TYPE_CHECKING:
    from av import AudioFrame, Packet
    from av.audio.stream import AudioStream


class Damaged(Exception):
    """What a decoder says is wrong; the reader adds which file and where."""


class Piece(NamedTuple):
    """Decoded samples, float32 (samples, channels), and their rate in Hz."""

    samples: np.ndarray
    sample_rate: int


class Fault(NamedTuple):
    """A place in a file where something is wrong, and what."""

    at_s: float
    text: str


class _Sequential(soundfile.SoundFile):
    """After each read `soundfile` seeks a seekable file to where it is, which costs time and may lose samples."""

    def seekable(self) -> bool:
        return False


class SndFile:
    """What libsndfile decodes: WAV, FLAC, Ogg Vorbis, Opus, AIFF, ...

    Attributes:
        stated_s: the length that the header states, in seconds; None if it states none.
        faults: what was wrong on the way, and at which second.
    """

    def __init__(self, source: bytes | BinaryIO | Section, size: int) -> None:
        """Open a path, or a part of a file, of ``size`` bytes. Raises `Damaged` if libsndfile cannot read it."""
        try:
            self._file = _Sequential(source)
        except (soundfile.LibsndfileError, TypeError, OSError) as error:  # TypeError: a `.raw` name
            raise Damaged(getattr(error, "error_string", str(error))) from error
        if self._file.frames == 0:
            self._file.close()
            raise Damaged("it contains no samples")
        if self._file.subtype.startswith("MPEG"):  # it believes the frame count of the first part, or an estimate
            self._file.close()
            raise Damaged("MPEG audio is left to FFmpeg")
        self.sample_rate: int = self._file.samplerate
        self.channels: int = self._file.channels
        self.faults: list[Fault] = []
        stated = self._file.frames < min(UNKNOWN_FRAMES, MOST_SAMPLES_PER_BYTE * size)
        self.stated_s: float | None = self._file.frames / self.sample_rate if stated else None
        self.slack_s = 0.0

    def pieces(self, frames: int) -> Iterator[Piece]:
        """Yield pieces of ``frames`` samples, or fewer. Raises `Damaged` where it cannot go on."""
        frames = max(1, min(frames, MOST_VALUES // self.channels))
        try:
            while len(block := self._file.read(frames, dtype="float32", always_2d=True)):
                yield Piece(block, self.sample_rate)
        except soundfile.LibsndfileError as error:
            raise Damaged(error.error_string) from error

    def close(self) -> None:
        self._file.close()


MOST_VALUES = 1 << 23  # in a piece; a header may claim any rate
UNKNOWN_FRAMES = (1 << 36) - 1  # what FLAC's 36 bits hold when nobody knows the length, and more than anything real
MOST_SAMPLES_PER_BYTE = 8192  # digital silence as FLAC has about 6000


class FFmpeg:
    """What FFmpeg decodes, put where its time stamps say: sound that starts late, or was lost, leaves silence.

    Attributes: as those of `SndFile`.
    """

    def __init__(self, source: Section) -> None:
        """Open a part of a file. Raises `Damaged` if FFmpeg finds no sound in it."""
        import av

        # LookupError: PyAV stumbles over a stream that appears on the way.
        self._errors = (av.FFmpegError, ValueError, OSError, LookupError)
        states = mp3_states_its_length(source)
        source.seek(0)
        try:
            # A playlist that is passed off as audio must not open anything else: other files, or addresses.
            self._container = av.open(source, mode="r", options={"protocol_whitelist": "pipe"})
        except self._errors as error:
            raise Damaged(_text(error)) from error
        try:
            # A stream of a codec that FFmpeg does not know has no context, as Apple's spatial sound beside its stereo.
            streams = [one for one in self._container.streams.audio if one.codec_context is not None]
            if not streams:
                raise Damaged("it has no audio stream")
            self._stream = streams[0]
            self.faults: list[Fault] = []
            self._given_s = 0.0
            self._set_clock(av.time_base)
            self.stated_s = self._stated(av.time_base, states)
            self.slack_s = 0.1 if states else 1.0
            pieces = self._decoded()
            first = next(pieces, None)
            if first is None:
                raise Damaged(self.faults[0].text if self.faults else "it contains no samples")
        except Damaged:
            self.close()
            raise
        # Asked of a frame, not of the header: an HE-AAC header tells half of the rate.
        self.sample_rate, self.channels = first.sample_rate, first.samples.shape[1]
        self._pieces = itertools.chain([first], pieces)

    def pieces(self, frames: int) -> Iterator[Piece]:
        """Yield pieces of any length, and of any rate and number of channels."""
        del frames
        return self._pieces

    def close(self) -> None:
        self._container.close()

    def _set_clock(self, ticks_per_s: int) -> None:
        """Which time stamp is second 0, and where sound may begin at the latest; bare frames have no time stamps."""
        container, name = self._container, self._container.format.name
        self._timed = name.partition(",")[0] in TIMED
        self._gapless = name in ("ogg", "flac")
        start_s = (container.start_time or 0) / ticks_per_s
        # The time line of an MP4 file begins at 0, whenever its first stream does; all others are cut out of something.
        self._origin_s = 0.0 if name.startswith("mov") and self._stream.frames else start_s
        end_s = math.inf if not container.duration else start_s - self._origin_s + container.duration / ticks_per_s
        self._end_s = end_s + 1.0
        self._silence_s = 0.0

    def _stated(self, ticks_per_s: int, mp3_states: bool) -> float | None:
        """The length that a header states, from second 0. What FFmpeg works out from a bit rate is none."""
        container, stream = self._container, self._stream
        name = container.format.name.partition(",")[0]
        start_s, length_s = 0.0, None
        if stream.duration is not None and stream.time_base is not None:
            length_s = float(stream.duration * stream.time_base)
            start_s = float((stream.start_time or 0) * stream.time_base) - self._origin_s
        elif container.duration and len(container.streams) == 1:
            # Matroska and WebM tell only the length of the whole, which with a picture may be the picture's.
            length_s = container.duration / ticks_per_s
        rates = sum(one.codec_context.bit_rate or 0 for one in container.streams if one.codec_context is not None)
        if name == "mov":
            return start_s + length_s if length_s is not None and stream.frames else None
        if name == "mp3":
            return length_s if mp3_states else None
        # Where FFmpeg estimates, the bit rate of the whole is the sum of the streams'; else it is size / length.
        return length_s if name in STATING and container.bit_rate != rates else None

    def _decoded(self) -> Iterator[Piece]:
        """Frames joined to pieces of about a second."""
        held: list[np.ndarray] = []
        size, form = 0, (0, 0)
        for samples, rate in self._frames():
            if held and ((rate, samples.shape[1]) != form or size >= rate):
                yield self._checked(np.concatenate(held), form[0])
                held, size = [], 0
            held.append(samples)
            size, form = size + len(samples), (rate, samples.shape[1])
        if held:
            yield self._checked(np.concatenate(held), form[0])

    def _checked(self, samples: np.ndarray, rate: int) -> Piece:
        """Decoders of floating point make infinities and worse of damaged bytes."""
        if not np.isfinite(samples).all():
            self._fault(ValueError("samples that are no numbers"))
            samples = np.nan_to_num(samples, nan=0.0, posinf=0.0, neginf=0.0)
        return Piece(samples, rate)

    def _frames(self) -> Iterator[Piece]:
        for packet in self._packets():
            try:
                frames = [(frame, _as_float(frame)) for frame in packet.decode()]
            except self._errors as error:
                if not bytes(packet)[:8].startswith(TAGS):
                    self._fault(error)
                continue
            for frame, samples in frames:
                yield from self._placed(frame, samples)

    def _packets(self) -> Iterator[Packet[AudioStream]]:
        """Every packet that can be had; the reader of a damaged container may find its way again."""
        failures = 0
        while failures < 16:
            try:
                for packet in self._container.demux(self._stream):
                    failures = 0
                    yield packet
                return
            except self._errors as error:
                failures += 1
                if failures == 1:
                    self._fault(error)

    def _fault(self, error: Exception) -> None:
        self.faults.append(Fault(self._given_s, _text(error)))

    def _placed(self, frame: AudioFrame, samples: np.ndarray) -> Iterator[Piece]:
        """The samples of a frame, after the silence that its time stamp asks for."""
        if self._timed and frame.pts is not None and frame.time_base is not None:
            late_s = float(frame.pts * frame.time_base) - self._origin_s - self._given_s
            if late_s < -1.0:
                self._origin_s += late_s  # the clock was set back
            elif late_s > TOLERANCE_S:
                yield from self._silence(late_s, frame.sample_rate, samples.shape[1])
        self._given_s += len(samples) / frame.sample_rate
        yield Piece(samples, frame.sample_rate)

    def _silence(self, seconds: float, rate: int, channels: int) -> Iterator[Piece]:
        if self._silence_s + seconds > MOST_SILENCE_S or self._given_s + seconds > self._end_s:
            text = f"its time stamps ask for {seconds:.0f} s of silence, which was left out"
            self.faults.append(Fault(self._given_s, text))
            self._origin_s += seconds
            return
        if self._given_s and self._gapless:
            self.faults.append(Fault(self._given_s, f"{seconds:.2f} s are missing, silence takes their place"))
        self._silence_s += seconds
        self._given_s += seconds
        left = round(seconds * rate)
        while left > 0:
            yield Piece(np.zeros((min(left, rate), channels), np.float32), rate)
            left -= rate


# What has time stamps, by the first of FFmpeg's names for it; the rest is bare frames, one after the other.
TIMED = {"mov", "matroska", "asf", "avi", "flv", "mpegts", "mpeg", "ogg", "mxf", "nut", "flac"}
STATING = {"matroska", "asf", "avi", "flv", "flac", "tta", "wv", "ape"}  # their headers have a place for the length
TAGS = (b"ID3", b"TAG", b"APETAGEX", b"LYRICS")  # between joined MP3 files; no damage
TOLERANCE_S = 0.1  # clocks of containers jitter, and the first samples of an encoder are its delay
MOST_SILENCE_S = 2 * 3600.0  # in a file; a forged time stamp may ask for years


def _as_float(frame: AudioFrame) -> np.ndarray:
    """A frame as float32 (samples, channels), full scale at 1."""
    if frame.layout.nb_channels >= 8 or frame.format.name not in SAMPLE_FORMATS:
        from av import AudioResampler

        frame = AudioResampler(format="flt").resample(frame)[0]
    data: np.ndarray = frame.to_ndarray()
    data = data.T if frame.format.is_planar else data.reshape(-1, frame.layout.nb_channels)
    if data.dtype == np.uint8:
        return (data.astype(np.float32) - 128) / 128
    if data.dtype.kind == "i":
        return data.astype(np.float32) / np.float32(-float(np.iinfo(data.dtype).min))
    return data.astype(np.float32)


# What PyAV turns into arrays. Beyond these it crashes: of eight planes, it looks for the ninth.
SAMPLE_FORMATS = {"u8", "u8p", "s16", "s16p", "s32", "s32p", "flt", "fltp", "dbl", "dblp"}


def _text(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)
