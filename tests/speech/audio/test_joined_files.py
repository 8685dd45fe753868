"""All of a file is read: joined parts, also of other rates and channels; and only what a header states is believed."""

import io
import struct
from fractions import Fraction

import av
import numpy as np
import pytest
import soundfile

from loquent.speech.audio.files import AudioReader, duration, read_audio, to_pcm16, write_audio


def tones(seconds: float, rate: int, *frequencies: float) -> np.ndarray:
    """One channel for each frequency."""
    phases = 2 * np.pi * np.arange(round(seconds * rate))[:, None] / rate * np.array(frequencies)
    return (0.4 * np.sin(phases)).astype(np.float32)


def written(samples: np.ndarray, rate: int, container: str, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format=container, subtype=subtype)
    return file.getvalue()


def encoded(samples: np.ndarray, rate: int, codec: str, container: str) -> bytes:
    """What FFmpeg's encoders and muxers make of it."""
    file, layout = io.BytesIO(), "stereo" if samples.shape[1] == 2 else "mono"
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=rate, layout=layout)
        frame = av.AudioFrame.from_ndarray(to_pcm16(samples).reshape(1, -1), format="s16", layout=layout)
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    return file.getvalue()


def bare_frames(mp3: bytes) -> bytes:
    """Without the frame that counts the others."""
    with av.open(io.BytesIO(mp3)) as container:
        return b"".join(bytes(packet) for packet in container.demux(audio=0))


def pitch(samples: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * rate / len(samples)


def check_two_parts(data: bytes, rate: int = 16000, tolerance_s: float = 0.25) -> None:
    """Two seconds of 440 Hz, then two of 880 Hz."""
    got = read_audio(io.BytesIO(data))
    assert got.sample_rate == rate
    assert got.warnings == ()
    assert got.duration_s == pytest.approx(4.0, abs=tolerance_s)
    assert pitch(got.samples[: 19 * rate // 10], rate) == pytest.approx(440, abs=2)
    assert pitch(got.samples[22 * rate // 10 :], rate) == pytest.approx(880, abs=2)
    with AudioReader(io.BytesIO(data)) as reader:
        assert reader.duration_s is None or abs(reader.duration_s - got.duration_s) < 0.1
    assert duration(io.BytesIO(data)) == pytest.approx(got.duration_s, abs=0.1)


@pytest.mark.parametrize("rate", [16000, 44100])
@pytest.mark.parametrize("mode", ["CONSTANT", "VARIABLE"])
def test_mp3_without_a_frame_count(rate, mode):
    file = io.BytesIO()
    # Loud, then nearly silent: an estimate from the bit rate of the beginning is far off.
    samples = np.concatenate([tones(1, rate, 440), tones(5, rate, 440) * 1e-4])
    samples[:rate] += np.random.default_rng(0).normal(0, 0.1, (rate, 1)).astype(np.float32)
    soundfile.write(file, samples, rate, format="MP3", bitrate_mode=mode, compression_level=0.5)
    frames = bare_frames(file.getvalue())
    for data in (frames, b"ID3\x04\0\0\0\0\0\x0a" + bytes(10) + frames):
        got = read_audio(io.BytesIO(data))
        assert got.warnings == ()
        assert got.duration_s == pytest.approx(6.0, abs=0.15)
        assert duration(io.BytesIO(data)) == pytest.approx(got.duration_s)


def test_mp3_with_a_frame_count_has_a_length_and_no_delay():
    samples = tones(3, 44100, 440)
    data = written(samples, 44100, "MP3")
    with AudioReader(io.BytesIO(data)) as reader:
        assert reader.duration_s == pytest.approx(3.0, abs=0.03)
    got = read_audio(io.BytesIO(data)).samples
    assert np.corrcoef(got[:100_000], samples[:100_000, 0])[0, 1] > 0.99


def test_mp3_inside_wav():
    got = read_audio(io.BytesIO(encoded(tones(3, 44100, 440, 440), 44100, "libmp3lame", "wav")))
    assert got.warnings == ()
    assert got.duration_s == pytest.approx(3.0, abs=0.1)


@pytest.mark.parametrize("counted", [True, False])
def test_joined_mp3(counted):
    first = written(tones(2, 16000, 440), 16000, "MP3")
    second = written(tones(2, 44100, 880, 880), 44100, "MP3")
    if not counted:
        first, second = bare_frames(first), bare_frames(second)
    tag = b"ID3\x04\0\0\0\0\0\x0a" + bytes(10)
    check_two_parts(tag + first + tag + second)
    check_two_parts(first + b"TAG" + bytes(125) + written(tones(2, 16000, 880), 16000, "MP3"))


OGG = ("OGG", "VORBIS", 1), ("OGG", "VORBIS", 2), ("OGG", "OPUS", 1)


@pytest.mark.parametrize("second", OGG)
@pytest.mark.parametrize("rate", [16000, 24000, 48000])
@pytest.mark.parametrize("kind", ["VORBIS", "OPUS"])
def test_chained_ogg(kind, second, rate):
    container, subtype, channels = second
    first = written(tones(2, 16000, 440), 16000, "OGG", kind)
    check_two_parts(first + written(tones(2, rate, *[880] * channels), rate, container, subtype))


def test_a_chain_is_its_parts():
    parts = [written(tones(1, 16000, pitch), 16000, "OGG", "VORBIS") for pitch in (300, 500, 700)]
    alone = [read_audio(io.BytesIO(part)).samples for part in parts]
    np.testing.assert_array_equal(read_audio(io.BytesIO(b"".join(parts))).samples, np.concatenate(alone))


@pytest.mark.parametrize("container", ["FLAC", "WAV"])
def test_joined_lossless_files_of_one_form_are_exact(container):
    rng = np.random.default_rng(0)
    pcm = [rng.integers(-3000, 3000, (7000, 1), dtype=np.int16) for _ in range(3)]
    data = b"".join(written(part, 16000, container) for part in pcm)
    np.testing.assert_array_equal(to_pcm16(read_audio(io.BytesIO(data)).samples), np.concatenate(pcm)[:, 0])
    assert duration(io.BytesIO(data)) == 21000 / 16000


@pytest.mark.parametrize("container", ["FLAC", "WAV"])
def test_joined_lossless_files_of_two_forms(container):
    first, second = written(tones(2, 16000, 440), 16000, container), tones(2, 44100, 880, 880)
    check_two_parts(first + written(second, 44100, container, "PCM_24"), tolerance_s=0.001)


def test_a_part_that_cannot_be_resampled_costs_no_other_part():
    odd = written(np.zeros((30000, 1), np.float32), 300, "WAV")
    data = written(tones(1, 16000, 440), 16000, "WAV")
    got = read_audio(io.BytesIO(data + odd + data))
    assert got.duration_s == 2.0
    assert "300" in got.warnings[0]


def piped_flac(data: bytes) -> bytes:
    """Its header has 36 bits for the number of samples; who writes to a pipe cannot fill them in."""
    head = bytearray(data)
    head[21] &= 0xF0
    head[22:26] = bytes(4)
    return bytes(head)


def test_piped_flac_states_no_length():
    samples = tones(2, 16000, 440)
    data = written(samples, 16000, "FLAC")
    for unknown in (piped_flac(data), data[:21] + bytes([data[21] | 0x0F]) + b"\xff" * 4 + data[26:]):
        with AudioReader(io.BytesIO(unknown)) as reader:
            assert reader.duration_s is None
        np.testing.assert_array_equal(read_audio(io.BytesIO(unknown)).samples, read_audio(io.BytesIO(data)).samples)
        assert read_audio(io.BytesIO(unknown)).warnings == ()
        assert duration(io.BytesIO(unknown)) == 2.0
    check_two_parts(piped_flac(data) + piped_flac(written(tones(2, 44100, 880), 44100, "FLAC")), tolerance_s=0.001)


@pytest.mark.parametrize("size", [0, 0xFFFFFFFFFFFFFFFF])
def test_piped_rf64_is_read_to_its_end(size):
    data = written(tones(1, 16000, 440), 16000, "WAV")
    long = struct.pack("<4sI4s4sIQQQI", b"RF64", 0xFFFFFFFF, b"WAVE", b"ds64", 28, size, size, size, 0)
    at = data.index(b"data")
    got = read_audio(io.BytesIO(long + data[12:at] + b"data\xff\xff\xff\xff" + data[at + 8 :]))
    assert (got.duration_s, got.warnings) == (1.0, ())


def adts(samples: np.ndarray, rate: int) -> bytes:
    return encoded(samples, rate, "aac", "adts")


def test_raw_aac_states_no_length():
    # A second of noise, and much silence: the bit rate of the beginning says nothing of the rest.
    samples = np.zeros((20 * 16000, 1), np.float32)
    samples[-16000:] = np.random.default_rng(0).normal(0, 0.2, (16000, 1))
    with AudioReader(io.BytesIO(adts(samples, 16000))) as reader:
        assert reader.duration_s is None
    got = read_audio(io.BytesIO(adts(samples, 16000)))
    assert got.warnings == ()
    assert got.duration_s == pytest.approx(20, abs=0.2)


@pytest.mark.parametrize(("rate", "channels"), [(16000, 2), (44100, 1), (48000, 2)])
def test_raw_aac_may_change_its_channels_and_rate(rate, channels):
    check_two_parts(adts(tones(2, 16000, 440), 16000) + adts(tones(2, rate, *[880] * channels), rate))


def test_later_channels_are_mixed_by_their_mean():
    first, left = tones(1, 16000, 440), tones(1, 16000, 880)
    data = written(first, 16000, "FLAC") + written(np.hstack([left, 0 * left]), 16000, "FLAC")
    np.testing.assert_allclose(read_audio(io.BytesIO(data)).samples[16000:], left[:, 0] / 2, atol=1e-4)
    stereo = written(np.hstack([left, 0 * left]), 16000, "FLAC") + written(first, 16000, "FLAC")
    with AudioReader(io.BytesIO(stereo)) as reader:
        blocks = list(reader.blocks(0.7))
        assert {block.shape[1] for block in blocks} == {2}
    np.testing.assert_allclose(np.concatenate(blocks)[16000:], np.hstack([first, first]), atol=1e-4)


def test_blocks_have_one_length_across_parts():
    data = written(tones(1, 16000, 440), 16000, "OGG") + written(tones(1, 44100, 880), 44100, "OGG")
    with AudioReader(io.BytesIO(data)) as reader:
        blocks = list(reader.blocks(0.3))
    assert [len(block) for block in blocks[:-1]] == [4800] * (len(blocks) - 1)
    whole = read_audio(io.BytesIO(data)).samples
    np.testing.assert_allclose(np.concatenate(blocks)[:, 0], whole, atol=1e-6)  # resampled in blocks of another size


@pytest.mark.parametrize(("codec", "container"), [("aac", "adts"), ("flac", "matroska")])
def test_eight_channels(codec, container):
    samples, file = tones(1, 48000, *range(300, 1100, 100)), io.BytesIO()
    with av.open(file, "w", format=container) as output:
        stream = output.add_stream(codec, rate=48000, layout="7.1")
        frame = av.AudioFrame.from_ndarray(to_pcm16(samples).reshape(1, -1), format="s16", layout="7.1")
        frame.sample_rate, frame.time_base, frame.pts = 48000, Fraction(1, 48000), 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode())
    with AudioReader(io.BytesIO(file.getvalue())) as reader:
        assert reader.channels == 8
        got = np.concatenate(list(reader.blocks(1)))
    pitches = sorted(round(pitch(got[:, channel], 48000), -1) for channel in range(8))
    assert len(set(pitches)) >= 7  # the codec may leave the lowest tone out of the channel for the deepest


def test_samples_of_every_width(tmp_path):
    samples = tones(0.5, 96000, 300, 400, 500, 600, 700, 800)
    for subtype in ("PCM_U8", "PCM_16", "PCM_24", "PCM_32", "FLOAT", "DOUBLE", "ULAW", "ALAW"):
        soundfile.write(tmp_path / "a.wav", samples, 96000, subtype=subtype)
        np.testing.assert_allclose(read_audio(tmp_path / "a.wav").samples, samples.mean(1), atol=0.01)
    write_audio(tmp_path / "a.flac", samples, 96000)
    for container in ("matroska", "mov"):
        for codec in ("pcm_u8", "pcm_s24le", "pcm_f32le"):
            got = read_audio(io.BytesIO(encoded(samples[:, :2], 96000, codec, container)))
            np.testing.assert_allclose(got.samples, samples[:, :2].mean(1), atol=0.01)
