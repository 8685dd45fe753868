"""The forms in which samples travel over a socket: PCM, mu-law, Opus. Sans-I/O: messages in, samples out, and back.

The raw forms are interleaved samples, little-endian, a message being any number of whole frames: ``pcm16``, ``float32``
(nominally in [-1, 1]) and ``mulaw`` (ITU-T G.711, 8 bits a sample, what telephones send, mostly at 8 kHz). A message of
``opus`` is one packet (RFC 6716) without Ogg or WebM around it, as the browser's ``AudioEncoder`` gives it. FFmpeg's
libopus does the work; it is imported (0.3 s) with the first Opus decoder or encoder of a process.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.files import to_pcm16

OPUS_BIT_RATES = {  # by sample rate, above RFC 6716, 2.1.1: speech
    8000: 16_000,
    12000: 20_000,
    16000: 24_000,
    24000: 32_000,
    48000: 40_000,
}
OPUS_OPTIONS = {"application": "voip", "frame_duration": "20", "vbr": "on"}
LOUDEST = 1e4  # a magnitude beyond this is not audio, and its power would overflow


@dataclass(frozen=True)
class Encoding:
    """What there is to know of an encoding before any samples come."""

    name: str
    sample_bytes: int | None  # bytes a sample; None: packets of varying size
    rates: tuple[int, ...] | None = None  # Hz; None: any
    most_channels: int | None = None  # None: any number


ENCODINGS: Mapping[str, Encoding] = {
    "pcm16": Encoding("pcm16", sample_bytes=2),
    "float32": Encoding("float32", sample_bytes=4),
    "mulaw": Encoding("mulaw", sample_bytes=1),
    "opus": Encoding("opus", sample_bytes=None, rates=tuple(OPUS_BIT_RATES), most_channels=2),
}


def nearest_rate(sample_rate: int, rates: Collection[int] | None) -> int:
    """The rate among ``rates`` (None: any) to resample to: the same, the next higher one, or else the highest."""
    return sample_rate if rates is None else min(rates, key=lambda rate: (rate < sample_rate, abs(rate - sample_rate)))


class Decoder(Protocol):
    """Turns the messages of one stream into samples.

    Only Opus keeps a state: what its next packet builds on. It cannot be saved, but a new decoder may begin at any
    packet (as after a move to another machine) and agrees with the old one after about 0.2 s.

    `sample_rate` in Hz and `channels` are those of the samples that `decode` returns. Opus is decoded at 48000 Hz
    whatever the sender's rate, since a packet does not tell it and FFmpeg offers no other.
    """

    sample_rate: int
    channels: int

    def decode(self, data: bytes) -> np.ndarray:
        """The samples of one message: int16 or float32 of shape (frames, channels), to be read only.

        Raises `AudioError` for a cut frame, NaN, a magnitude beyond 10000, or bytes that are not an Opus packet of at
        most 120 ms. A message that fails gives no samples; the decoder can take the next one.
        """


class Encoder(Protocol):
    """Turns the samples of one stream into messages.

    `delay` is the number of frames, at the rate of the encoder, by which the decoded stream is late: it begins with as
    many of near silence. 0 except for Opus, where it is 6.5 ms.
    """

    delay: int

    def encode(self, samples: np.ndarray) -> list[bytes]:
        """The messages that float32 `samples`, (N,) or (N, channels), complete.

        The raw encodings give one message, or none for no samples. Opus gives a packet for every 20 ms, holds back what
        does not fill one, and gives the same packets however the samples are cut. Except in float32, values outside
        [-1, 1] are clipped. Raises `AudioError` for another type or shape, NaN, a magnitude beyond 10000, or samples
        after `finish`.
        """

    def finish(self) -> list[bytes]:
        """What is held back, padded with silence: after its delay the decoded stream has all samples, if not more."""


def decoder(encoding: str, sample_rate: int, channels: int = 1) -> Decoder:
    """A decoder for one stream of `channels` channels at `sample_rate` Hz.

    An Opus packet of one channel is doubled where two are asked for, one of two is mixed down for one. Raises
    `AudioError` for an unknown encoding, or a rate or number of channels that it cannot have.
    """
    _check(encoding, sample_rate, channels)
    return _OpusDecoder(channels) if encoding == "opus" else _RawDecoder(encoding, sample_rate, channels)


def encoder(encoding: str, sample_rate: int, channels: int = 1) -> Encoder:
    """An encoder for one stream of `channels` channels at `sample_rate` Hz.

    Raises `AudioError` for an unknown encoding, or a rate or number of channels that it cannot have.
    """
    _check(encoding, sample_rate, channels)
    return _OpusEncoder(sample_rate, channels) if encoding == "opus" else _RawEncoder(encoding, channels)


def _check(encoding: str, sample_rate: int, channels: int) -> None:
    known = ENCODINGS.get(encoding)
    if known is None:
        raise AudioError(f"unknown encoding {encoding!r}; expected {', '.join(ENCODINGS)}")
    if sample_rate < 1:
        raise AudioError(f"expected a positive sample_rate in Hz, got {sample_rate}")
    if known.rates is not None and sample_rate not in known.rates:
        rates = ", ".join(map(str, known.rates))
        raise AudioError(f"{encoding} cannot have {sample_rate} Hz; expected one of {rates} Hz: resample, or use pcm16")
    if channels < 1 or (known.most_channels is not None and channels > known.most_channels):
        expected = "at least 1 channel" if known.most_channels is None else f"1 to {known.most_channels} channels"
        raise AudioError(f"expected {expected} of {encoding}, got {channels}")


_DTYPES: dict[str, np.dtype[Any]] = {"pcm16": np.dtype("<i2"), "float32": np.dtype("<f4"), "mulaw": np.dtype("u1")}


class _RawDecoder:
    def __init__(self, encoding: str, sample_rate: int, channels: int) -> None:
        self.encoding, self.sample_rate, self.channels = encoding, sample_rate, channels

    def decode(self, data: bytes) -> np.ndarray:
        dtype = _DTYPES[self.encoding]
        frame = dtype.itemsize * self.channels
        if len(data) % frame:
            raise AudioError(
                f"got an audio message of {len(data)} bytes; expected a multiple of {frame} "
                f"({self.encoding}, {self.channels} channels): send whole frames, without a file header"
            )
        samples = np.frombuffer(data, dtype).reshape(-1, self.channels)
        if self.encoding == "float32":
            _check_magnitude(samples)
        return _MULAW[samples] if self.encoding == "mulaw" else samples


class _RawEncoder:
    delay = 0

    def __init__(self, encoding: str, channels: int) -> None:
        self.encoding, self.channels = encoding, channels

    def encode(self, samples: np.ndarray) -> list[bytes]:
        frames = as_frames(samples, self.channels)
        if not len(frames):
            return []
        if self.encoding != "float32":
            frames = to_pcm16(frames)
        if self.encoding == "mulaw":
            frames = _to_mulaw(frames)
        return [frames.astype(_DTYPES[self.encoding], copy=False).tobytes()]

    def finish(self) -> list[bytes]:
        return []


def as_frames(samples: np.ndarray, channels: int) -> np.ndarray:
    """Samples for an encoder, checked: float32 (frames, channels).

    Raises `AudioError` for another type or shape, NaN, or a magnitude beyond 10000.
    """
    if samples.dtype != np.float32:
        raise AudioError(f"expected float32 samples, got {samples.dtype}; pass int16 as samples / numpy.float32(32768)")
    frames = samples[:, None] if samples.ndim == 1 else samples
    if frames.ndim != 2 or frames.shape[1] != channels:
        expected = "(samples,) or (samples, 1)" if channels == 1 else f"(samples, {channels})"
        raise AudioError(f"expected samples of shape {expected}, got {samples.shape}")
    _check_magnitude(frames)
    return frames


def _check_magnitude(samples: np.ndarray) -> None:
    good = np.abs(samples) <= LOUDEST  # not so for NaN
    if not good.all():
        raise AudioError(
            f"expected float32 samples in about [-1, 1], got {samples[~good][0]}; divide int16 by 32768, send no NaN"
        )


# G.711, table 2: level n = 16 s + k of segment s is 2^s (2k + 33) - 33, and stands for the magnitudes from
# 2^s (2k + 32) - 33 to the next level's, in units of 1/8192 of full scale, that is four steps of int16.
_LEVELS = np.array([4 * (2**s * (2 * k + 33) - 33) for s in range(8) for k in range(16)])
_BOUNDS = np.array([4 * (2**s * (2 * k + 32) - 33) for s in range(8) for k in range(16)])
# Positive values are 255 - n on the wire, negative ones 127 - n.
_MULAW = np.concatenate([-_LEVELS[::-1], _LEVELS[::-1]]).astype(np.int16)


def _to_mulaw(pcm: np.ndarray) -> np.ndarray:
    level = np.searchsorted(_BOUNDS[1:], np.abs(pcm.astype(np.int32)), side="right")
    return (np.where(pcm < 0, 127, 255) - level).astype(np.uint8)


_LAYOUTS = {1: "mono", 2: "stereo"}


class _OpusDecoder:
    sample_rate = 48_000

    def __init__(self, channels: int) -> None:
        import av

        self.channels = channels
        self._packet, self._error = av.Packet, av.FFmpegError
        # Not FFmpeg's own decoder "opus", which drops the first half millisecond at some rates.
        self._codec = av.CodecContext.create("libopus", "r")
        self._codec.layout = _LAYOUTS[channels]

    def decode(self, data: bytes) -> np.ndarray:
        if not data:  # FFmpeg would take it for the end of the stream
            raise AudioError("expected an Opus packet, got an empty message; send nothing where there is no sound")
        try:
            (frame,) = self._codec.decode(self._packet(data))
        except self._error as error:
            raise AudioError(
                f"got a message of {len(data)} bytes that is not an Opus packet of at most 120 ms; "
                "send one packet a message, without Ogg or WebM around it"
            ) from error
        return frame.to_ndarray().reshape(-1, self.channels)


class _OpusEncoder:
    def __init__(self, sample_rate: int, channels: int) -> None:
        import av

        self.sample_rate, self.channels = sample_rate, channels
        self._frame = av.AudioFrame
        self._codec = av.CodecContext.create("libopus", "w")
        self._codec.sample_rate, self._codec.layout, self._codec.format = sample_rate, _LAYOUTS[channels], "s16"
        self._codec.bit_rate = OPUS_BIT_RATES[sample_rate] * channels
        self._codec.options = OPUS_OPTIONS
        self._codec.open()
        # The pre-skip of the stream's header (RFC 7845, 5.1), in frames at 48 kHz.
        header = self._codec.extradata
        assert header is not None
        self.delay = int.from_bytes(header[10:12], "little") * sample_rate // 48_000
        self._finished = False

    def encode(self, samples: np.ndarray) -> list[bytes]:
        if self._finished:
            raise AudioError("the stream has been finished; make another encoder for another stream")
        pcm = to_pcm16(as_frames(samples, self.channels))
        if not len(pcm):
            return []
        frame = self._frame.from_ndarray(
            np.ascontiguousarray(pcm).reshape(1, -1), format="s16", layout=_LAYOUTS[self.channels]
        )
        frame.sample_rate = self.sample_rate
        return [bytes(packet) for packet in self._codec.encode(frame)]

    def finish(self) -> list[bytes]:
        if self._finished:
            return []
        self._finished = True
        return [bytes(packet) for packet in self._codec.encode(None)]
