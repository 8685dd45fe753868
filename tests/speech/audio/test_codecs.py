"""Samples survive the wire in every encoding, however they are cut; what is not audio is refused and harms nothing."""

import io
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

import loquent.speech
from loquent.speech.audio.codecs import ENCODINGS, decoder, encoder
from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.files import read_audio, to_pcm16

SAMPLE = Path(loquent.speech.__file__).parent / "assets" / "sample.flac"
RAW = ["pcm16", "float32", "mulaw"]
RATES = ENCODINGS["opus"].rates
EVERY_INT16 = np.arange(-32768, 32768).astype(np.int16)
NOISE = np.random.default_rng(0).uniform(-0.5, 0.5, 6000).astype(np.float32)


def speech(sample_rate: int, channels: int = 1) -> np.ndarray:
    """Two seconds (N, channels); channels differ, by loudness and delay."""
    mono = read_audio(SAMPLE, sample_rate).samples[: 2 * sample_rate]
    return np.stack(
        [np.roll(mono, sample_rate // 50 * channel) * (1 - 0.5 * channel) for channel in range(channels)], axis=1
    )


def browser_packets(samples: np.ndarray, sample_rate: int, frame_ms: int) -> list[bytes]:
    """Opus as another program sends it: its own frame length, bit rate and settings."""
    channels = samples.shape[1]
    codec = av.CodecContext.create("libopus", "w")
    codec.sample_rate, codec.layout, codec.format = sample_rate, "stereo" if channels == 2 else "mono", "flt"
    codec.bit_rate = 64_000 * channels
    codec.options = {"application": "audio", "frame_duration": str(frame_ms)}
    frame = av.AudioFrame.from_ndarray(
        np.ascontiguousarray(samples).reshape(1, -1), format="flt", layout=codec.layout.name
    )
    frame.sample_rate = sample_rate
    return [bytes(packet) for packet in codec.encode(frame) + codec.encode(None)]


def encoded(encoding: str, samples: np.ndarray, cuts: list[int], sample_rate: int = 8000) -> list[bytes]:
    """All messages of samples that are cut behind these counts."""
    writer = encoder(encoding, sample_rate, 1 if samples.ndim == 1 else samples.shape[1])
    parts = np.split(samples, np.cumsum(cuts, dtype=int))
    return [message for part in parts for message in writer.encode(part)] + writer.finish()


def decoded(encoding: str, messages: list[bytes], sample_rate: int = 8000, channels: int = 1) -> np.ndarray:
    reader = decoder(encoding, sample_rate, channels)
    return np.concatenate([reader.decode(message) for message in messages])


def lag(sound: np.ndarray, reference: np.ndarray) -> int:
    """By how many samples a sound is late."""
    size = 2 * max(len(sound), len(reference))
    spectrum = np.fft.rfft(sound, size) * np.fft.rfft(reference, size).conj()
    return int(np.argmax(np.fft.irfft(spectrum, size)[: size // 2]))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    n = min(len(a), len(b))
    return float(np.corrcoef(a[:n], b[:n])[0, 1])


@pytest.mark.parametrize("channels", [1, 2, 6])
def test_pcm16_and_float32_are_exact(channels):
    pcm = EVERY_INT16[: 60000 // channels * channels].reshape(-1, channels)
    samples = pcm / np.float32(32768)
    (message,) = encoder("pcm16", 44100, channels).encode(samples)
    assert message == pcm.astype("<i2").tobytes()
    np.testing.assert_array_equal(decoder("pcm16", 44100, channels).decode(message), pcm)
    (message,) = encoder("float32", 44100, channels).encode(2 * samples)
    assert message == (2 * samples).astype("<f4").tobytes()
    np.testing.assert_array_equal(decoder("float32", 44100, channels).decode(message), 2 * samples)


def test_pcm16_rounds_and_clips_as_files_do():
    samples = np.array([0.3, -0.3, 1.0, -1.5, 7.3, 1.5 / 32768, 0.5 / 32768], np.float32)
    assert decoded("pcm16", encoder("pcm16", 8000).encode(samples))[:, 0].tolist() == to_pcm16(samples).tolist()


def test_mulaw_has_the_values_of_the_standard():
    pcm = np.array([0, -1, 3, 4, -4, 123, 124, 32767, -32768], np.int16)
    (message,) = encoder("mulaw", 8000).encode(pcm / np.float32(32768))
    assert message.hex(" ") == "ff 7f ff fe 7e f0 ef 80 00"
    assert decoder("mulaw", 8000, 1).decode(message)[:, 0].tolist() == [0, 0, 0, 8, -8, 120, 132, 32124, -32124]


def test_mulaw_is_that_of_libsndfile_for_every_sample_and_every_byte():
    file = io.BytesIO()
    soundfile.write(file, EVERY_INT16, 8000, format="RAW", subtype="ULAW")
    assert encoder("mulaw", 8000).encode(EVERY_INT16 / np.float32(32768)) == [file.getvalue()]
    every_byte = bytes(range(256))
    file = soundfile.SoundFile(io.BytesIO(every_byte), samplerate=8000, channels=2, format="RAW", subtype="ULAW")
    theirs = file.read(dtype="int16")
    np.testing.assert_array_equal(decoder("mulaw", 8000, 2).decode(every_byte), theirs)


@pytest.mark.parametrize("sample_rate", [16000, 48000])
@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("frame_ms", [20, 60])
def test_opus_of_a_browser_is_decoded(sample_rate, channels, frame_ms):
    packets = browser_packets(speech(sample_rate, channels), sample_rate, frame_ms)
    reader = decoder("opus", sample_rate, channels)
    parts = [reader.decode(packet) for packet in packets]
    assert {part.shape for part in parts} == {(48 * frame_ms, channels)}
    assert reader.sample_rate == 48000
    sound, expected = np.concatenate(parts), speech(48000, channels)
    for channel in range(channels):
        assert correlation(sound[312:, channel], expected[:, channel]) > 0.95


@pytest.mark.parametrize("sample_rate", RATES)
@pytest.mark.parametrize("channels", [1, 2])
def test_opus_is_late_by_its_delay_and_loses_nothing(sample_rate, channels):
    samples = speech(sample_rate, channels)
    delay = encoder("opus", sample_rate, channels).delay
    assert delay == round(0.0065 * sample_rate)
    per_frame = sample_rate // 50
    for length in (1, per_frame - delay, per_frame - delay + 1, per_frame, len(samples)):
        packets = encoded("opus", samples[:length], [], sample_rate)
        assert len(packets) == -(-(length + delay) // per_frame)
    sound = decoded("opus", packets, sample_rate, channels)
    assert len(sound) == 960 * len(packets)
    for channel in range(channels):
        late = lag(sound[:, channel].astype(float), speech(48000, channels)[:, channel])
        assert late == pytest.approx(312, abs=6)  # an eighth of a millisecond: the filters have some phase
    bits = 8 * sum(map(len, packets)) / 2
    assert 8_000 * channels < bits < 60_000 * channels


def test_opus_keeps_the_last_syllable():
    """A sound in the very last samples comes out."""
    samples = np.zeros(24000 + 300, np.float32)
    samples[-240:] = 0.5 * np.sin(2 * np.pi * 500 * np.arange(240) / 24000)
    sound = decoded("opus", encoded("opus", samples, [], 24000), 24000)[2 * encoder("opus", 24000).delay :, 0] / 32768
    expected, tail = float(np.sum(samples**2)) / 24000, sound[2 * len(samples) - 600 : 2 * len(samples)]
    assert float(np.sum(tail**2)) / 48000 > 0.5 * expected


def test_opus_packets_come_as_soon_as_their_frames_are_full():
    writer = encoder("opus", 24000)
    assert [len(writer.encode(NOISE[:size])) for size in (479, 1, 480, 0, 1439, 2)] == [0, 1, 1, 0, 2, 1]


def test_a_finished_opus_encoder_is_spent():
    writer = encoder("opus", 24000)
    writer.encode(NOISE)
    assert writer.finish()
    assert writer.finish() == []
    with pytest.raises(AudioError, match="make another encoder"):
        writer.encode(NOISE)


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_no_samples_make_no_messages(encoding):
    writer = encoder(encoding, 8000)
    assert writer.encode(NOISE[:0]) == []
    assert writer.finish() == []


@pytest.mark.parametrize("encoding", RAW)
def test_an_empty_raw_message_is_no_samples(encoding):
    assert decoder(encoding, 8000, 2).decode(b"").shape == (0, 2)


@given(st.lists(st.integers(0, 700), max_size=12))
@settings(max_examples=30, deadline=None)
def test_cuts_change_nothing(cuts):
    for encoding in RAW:
        whole, cut = encoded(encoding, NOISE, []), encoded(encoding, NOISE, cuts)
        assert b"".join(cut) == b"".join(whole)
        np.testing.assert_array_equal(decoded(encoding, cut), decoded(encoding, whole))
    assert encoded("opus", NOISE, cuts) == encoded("opus", NOISE, [])


def test_opus_is_decoded_from_any_packet_on():
    packets = encoded("opus", speech(24000), [], 24000)
    whole, rest = decoded("opus", packets, 24000)[960 * 30 :], decoded("opus", packets[30:], 24000)
    settled = 48000 // 5
    difference = (rest.astype(float) - whole)[settled:]
    assert np.mean(difference**2) < 1e-3 * np.mean(whole[settled:].astype(float) ** 2)


def test_opus_of_another_number_of_channels_is_mixed():
    stereo = browser_packets(speech(48000, 2), 48000, 20)
    mono = browser_packets(speech(48000, 1), 48000, 20)
    doubled = decoded("opus", mono, 48000, 2)
    np.testing.assert_array_equal(doubled[:, 0], doubled[:, 1])
    assert correlation(decoded("opus", stereo, 48000, 1)[312:, 0], speech(48000, 2).mean(axis=1)) > 0.95


@pytest.mark.parametrize(
    ("encoding", "message", "text"),
    [
        ("pcm16", bytes(6), "multiple of 4 .pcm16, 2 channels."),
        ("float32", bytes(4), "multiple of 8 .float32, 2 channels."),
        ("mulaw", bytes(3), "multiple of 2 .mulaw, 2 channels."),
        ("float32", np.array([0, np.nan], "<f4").tobytes(), "got nan"),
        ("float32", np.array([-np.inf, 0], "<f4").tobytes(), "got -inf"),
        ("float32", np.array([0, 32767], "<f4").tobytes(), "got 32767.0; divide int16 by 32768"),
        ("opus", b"", "empty message"),
        ("opus", b"\x4b\x07", "at most 120 ms"),  # seven frames of 20 ms
        ("opus", b"\x4b\x00", "not an Opus packet"),  # no frame at all
        ("opus", b"OggS" + bytes(60), "without Ogg"),
    ],
)
def test_what_is_not_audio_is_refused_and_harms_nothing(encoding, message, text):
    reader = decoder(encoding, 48000, 2)
    with pytest.raises(AudioError, match=text):
        reader.decode(message)
    good = encoder(encoding, 48000, 2).encode(speech(48000, 2)[:960])
    np.testing.assert_array_equal(reader.decode(good[0]), decoder(encoding, 48000, 2).decode(good[0]))


def test_the_longest_opus_packet_is_decoded():
    assert decoder("opus", 48000, 1).decode(b"\x4b\x06").shape == (5760, 1)  # six frames of 20 ms, left out by DTX


opus_like = st.builds(lambda toc, rest: bytes([toc]) + rest, st.integers(0, 255), st.binary(max_size=80))


@given(st.lists(st.binary(max_size=40) | opus_like, max_size=20), st.integers(1, 2))
@settings(max_examples=200, deadline=None)
def test_whatever_comes_gives_samples_or_an_audio_error(messages, channels):
    for encoding in ENCODINGS:
        reader = decoder(encoding, 48000, channels)
        for message in messages:
            try:
                samples = reader.decode(message)
            except AudioError:
                continue
            longest = 5760 if encoding == "opus" else len(message)
            assert samples.ndim == 2
            assert samples.shape[1] == channels
            assert len(samples) <= longest
            assert np.abs(samples.astype(np.float64)).max(initial=0) <= 32768


def test_a_long_message_of_noise_is_no_opus():
    noise = np.random.default_rng(0).bytes(1_048_576)
    reader = decoder("opus", 48000, 1)
    for code in range(4):
        with pytest.raises(AudioError, match="1048576 bytes"):
            reader.decode(bytes([0x48 | code]) + noise[1:])


@pytest.mark.parametrize(
    ("encoding", "sample_rate", "channels", "text"),
    [
        ("mp3", 8000, 1, "unknown encoding 'mp3'; expected pcm16, float32, mulaw, opus"),
        ("opus", 44100, 1, "opus cannot have 44100 Hz; expected one of 8000, 12000, 16000, 24000, 48000 Hz"),
        ("opus", 48000, 3, "expected 1 to 2 channels of opus, got 3"),
        ("pcm16", 8000, 0, "expected at least 1 channel of pcm16, got 0"),
        ("mulaw", 0, 1, "expected a positive sample_rate in Hz, got 0"),
    ],
)
@pytest.mark.parametrize("make", [decoder, encoder])
def test_what_an_encoding_cannot_have_is_refused(make, encoding, sample_rate, channels, text):
    with pytest.raises(AudioError, match=text):
        make(encoding, sample_rate, channels)


@pytest.mark.parametrize(
    ("samples", "text"),
    [
        (np.zeros(9, np.int16), "expected float32 samples, got int16"),
        (np.zeros((9, 2), np.float32), r"expected samples of shape \(samples,\) or \(samples, 1\), got \(9, 2\)"),
        (np.full(9, np.nan, np.float32), "got nan"),
        (np.full(9, 2e4, np.float32), "got 20000.0"),
    ],
)
@pytest.mark.parametrize("encoding", ENCODINGS)
def test_samples_that_cannot_be_sent_are_refused(encoding, samples, text):
    with pytest.raises(AudioError, match=text):
        encoder(encoding, 8000).encode(samples)


def test_only_opus_loads_ffmpeg():
    program = (
        "import sys; from loquent.speech.audio.codecs import decoder, encoder; "
        "decoder('mulaw', 8000, 1); encoder('pcm16', 8000); assert 'av' not in sys.modules; "
        "decoder('opus', 8000, 1); assert 'av' in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
