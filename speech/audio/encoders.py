"""Files that are written while their sound is still being made: samples in, the bytes of a WAV, MP3, Opus … file out.

What comes out can be played as it comes. Nothing that was put out is changed afterwards, so no header tells the length.
FFmpeg does the work but for WAV and PCM; it is imported (0.3 s) with the first encoder that needs it.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, cast

import numpy as np

from loquent.speech.audio.codecs import OPUS_BIT_RATES, OPUS_OPTIONS, as_frames
from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.files import to_pcm16

_MP3_RATES = (8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000)
UNKNOWN_BYTES = 0xFFFFFFFF  # what stands for the length in the header of a WAV that is a stream


@dataclass(frozen=True)
class FileFormat:
    """What there is to know of a format.

    media_type: for HTTP.
    rates:      in Hz; None: any.
    """

    media_type: str
    rates: tuple[int, ...] | None = None
    muxer: str | None = None  # FFmpeg's names
    codec: str | None = None
    muxer_options: Mapping[str, str] = field(default_factory=dict)


FILE_FORMATS: Mapping[str, FileFormat] = {
    # Without Xing's header, which would have to be filled in at the end.
    "mp3": FileFormat("audio/mpeg", _MP3_RATES, "mp3", "libmp3lame", {"write_xing": "0", "id3v2_version": "0"}),
    "opus": FileFormat("audio/ogg; codecs=opus", tuple(OPUS_BIT_RATES), "ogg", "libopus", {"page_duration": "100000"}),
    "aac": FileFormat("audio/aac", (*_MP3_RATES, 64000, 88200, 96000), "adts", "aac"),
    "flac": FileFormat("audio/flac", None, "flac", "flac", {"metadata_header_padding": "0"}),
    "wav": FileFormat("audio/wav"),
    "pcm": FileFormat("audio/pcm"),  # 16 bits, little-endian, no header
}


class FileEncoder(Protocol):
    """Turns the mono samples of one stream into a file, piece by piece."""

    def encode(self, samples: np.ndarray) -> bytes:
        """The next bytes of the file, empty where more samples are needed first.

        The file is the same however the samples are cut. Values outside [-1, 1] are clipped.

        Args:
            samples: (N,) float32.

        Raises:
            AudioError: another type or shape, NaN, a magnitude beyond 10000, or samples after `finish`.
        """

    def finish(self) -> bytes:
        """The rest of the file. MP3 and AAC end with the silence that fills their last frame."""


def file_encoder(format: str, sample_rate: int) -> FileEncoder:
    """An encoder for one file.

    Args:
        format: one of `FILE_FORMATS`.
        sample_rate: in Hz, one of the format's.

    Raises:
        AudioError: there is no such format, or it cannot have that rate.
    """
    known = FILE_FORMATS.get(format)
    if known is None:
        raise AudioError(f"unknown format {format!r}; expected {', '.join(FILE_FORMATS)}")
    if sample_rate < 1 or (known.rates is not None and sample_rate not in known.rates):
        expected = "a positive rate" if known.rates is None else f"one of {', '.join(map(str, known.rates))}"
        raise AudioError(f"{format} cannot have {sample_rate} Hz; expected {expected}: resample first")
    if known.muxer is not None:
        return _Muxed(known, sample_rate)
    return _Raw(_wav_header(sample_rate) if format == "wav" else b"")


class _Raw:
    """PCM, behind a header or not."""

    def __init__(self, header: bytes) -> None:
        self._header, self._finished = header, False

    def encode(self, samples: np.ndarray) -> bytes:
        _check_open(self._finished)
        header, self._header = self._header, b""
        return header + to_pcm16(as_frames(samples, 1)).astype("<i2", copy=False).tobytes()

    def finish(self) -> bytes:
        header, self._header, self._finished = self._header, b"", True
        return header


class _Sink:
    """A file for FFmpeg that can only be written to: without `seek`, nothing is gone back to."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def write(self, data: bytes) -> int:
        self._parts.append(bytes(data))
        return len(data)

    def take(self) -> bytes:
        data = b"".join(self._parts)
        self._parts.clear()
        return data


class _Muxed:
    def __init__(self, format: FileFormat, sample_rate: int) -> None:
        import av

        self._frame, self._rate = av.AudioFrame, sample_rate
        self._sink, self._position, self._finished = _Sink(), 0, False
        # Every packet at once; and the same samples give the same bytes.
        options = {"flush_packets": "1", "fflags": "+bitexact", **format.muxer_options}
        container = cast(Any, av.open(self._sink, "w", format=format.muxer, options=options))
        self._container, self._stream = container, container.add_stream(format.codec, rate=sample_rate, layout="mono")
        if format.codec == "libopus":
            self._stream.bit_rate = OPUS_BIT_RATES[sample_rate]
            self._stream.codec_context.options = OPUS_OPTIONS
        elif format.codec != "flac":
            self._stream.bit_rate = min(4 * sample_rate, 96_000)
        self._container.start_encoding()

    def encode(self, samples: np.ndarray) -> bytes:
        _check_open(self._finished)
        pcm = to_pcm16(as_frames(samples, 1))
        if len(pcm):
            frame = self._frame.from_ndarray(np.ascontiguousarray(pcm).reshape(1, -1), format="s16", layout="mono")
            frame.sample_rate, frame.pts = self._rate, self._position
            self._position += len(pcm)
            self._mux(frame)
        return self._sink.take()

    def finish(self) -> bytes:
        if self._finished:
            return b""
        self._finished = True
        if self._position:  # else some codecs would write a frame of nothing
            self._mux(None)
        self._container.close()
        return self._sink.take()

    def _mux(self, frame: Any) -> None:
        for packet in self._stream.encode(frame):
            self._container.mux(packet)


def _check_open(finished: bool) -> None:
    if finished:
        raise AudioError("the file has been finished; make another encoder for another one")


def _wav_header(sample_rate: int) -> bytes:
    """Of mono PCM16 of unknown length (as FFmpeg and others write to pipes)."""
    layout = struct.pack("<HHIIHH", 1, 1, sample_rate, 2 * sample_rate, 2, 16)
    chunks = b"WAVEfmt " + struct.pack("<I", len(layout)) + layout + b"data" + struct.pack("<I", UNKNOWN_BYTES)
    return b"RIFF" + struct.pack("<I", UNKNOWN_BYTES) + chunks
