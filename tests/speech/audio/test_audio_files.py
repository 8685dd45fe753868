"""Audio files of every kind come back as written, in blocks of any size; bad files and packets say what is wrong."""

import contextlib
import io
import os
import socket
import struct
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

import loquent.speech
from loquent.speech.audio import files as audio
from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.files import AudioReader, read_audio, to_mono_float32, to_pcm16, write_audio

SAMPLE = Path(loquent.speech.__file__).parent / "assets" / "sample.flac"


def tone(seconds: float, rate: int, frequency: float = 440.0) -> np.ndarray:
    return (0.4 * np.sin(2 * np.pi * frequency * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def encode(path: Path, samples: np.ndarray, rate: int, codec: str, channels: int = 1, video: bool = False) -> None:
    """Write float samples (samples, channels) with FFmpeg's encoders, as recorders and browsers do."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="stereo" if channels == 2 else "mono")
        if video:
            picture = container.add_stream("mpeg4", rate=10)
            picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
            container.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
            container.mux(picture.encode())
        stream.bit_rate = 64000 * channels
        pcm = np.ascontiguousarray(to_pcm16(samples).reshape(1, -1))
        frame = av.AudioFrame.from_ndarray(pcm, format="s16", layout="stereo" if channels == 2 else "mono")
        frame.sample_rate, frame.time_base, frame.pts = rate, Fraction(1, rate), 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    n = min(len(a), len(b))
    return float(np.corrcoef(a[:n], b[:n])[0, 1])


@pytest.mark.parametrize("ending", [".wav", ".flac"])
@pytest.mark.parametrize("channels", [1, 2])
def test_lossless_round_trip_is_exact(tmp_path, ending, channels):
    rng = np.random.default_rng(0)
    pcm = rng.integers(-32768, 32768, (5000, channels), dtype=np.int16)
    path = tmp_path / f"a{ending}"
    write_audio(path, pcm, 22050)
    got = read_audio(path)
    assert got.sample_rate == 22050
    assert got.samples.dtype == np.float32
    np.testing.assert_array_equal(got.samples, to_mono_float32(pcm, channels))
    if channels == 1:
        write_audio(path, got.samples, 22050)
        np.testing.assert_array_equal(soundfile.read(path, dtype="int16")[0], pcm[:, 0])


@pytest.mark.parametrize("ending", [".mp3", ".ogg", ".opus"])
def test_lossy_round_trip_keeps_length_rate_and_sound(tmp_path, ending):
    samples = tone(2.0, 24000)
    write_audio(tmp_path / f"a{ending}", samples, 24000)
    got = read_audio(tmp_path / f"a{ending}")
    ratio = got.sample_rate / 24000  # Opus always decodes at a rate of its own choice
    assert len(got.samples) / got.sample_rate == pytest.approx(2.0, abs=0.06), ratio
    if got.sample_rate == 24000:
        assert correlation(got.samples, samples) > 0.99
    assert audio.duration(tmp_path / f"a{ending}") == pytest.approx(got.duration_s, abs=0.06)


@pytest.mark.parametrize(
    ("name", "codec", "rate", "channels", "video"),
    [
        ("a.m4a", "aac", 44100, 1, False),
        ("a.m4a", "aac", 48000, 2, False),
        ("a.webm", "libopus", 48000, 1, False),
        ("a.mkv", "flac", 16000, 1, False),
        ("film.mp4", "aac", 48000, 2, True),
        ("a.wma", "wmav2", 44100, 1, False),
    ],
)
def test_other_containers_are_read_through_ffmpeg(tmp_path, name, codec, rate, channels, video):
    samples = tone(1.5, rate)
    encode(tmp_path / name, np.repeat(samples[:, None], channels, 1), rate, codec, channels, video)
    with AudioReader(tmp_path / name) as reader:
        assert (reader.sample_rate, reader.channels) == (rate, channels)
    got = read_audio(tmp_path / name)
    assert got.samples.ndim == 1
    assert got.duration_s == pytest.approx(1.5, abs=0.08)
    assert audio.duration(tmp_path / name) == pytest.approx(1.5, abs=0.08)
    spectrum = np.abs(np.fft.rfft(got.samples))
    assert np.argmax(spectrum) * rate / len(got.samples) == pytest.approx(440, abs=2)
    assert np.abs(got.samples).max() == pytest.approx(0.4, abs=0.12)


@pytest.mark.parametrize("name", ["a.flac", "a.mp3", "a.ogg", "a.opus", "a.m4a", "a.webm"])
@pytest.mark.parametrize("seconds", [0.01, 0.1, 0.37, 60.0])
def test_blocks_joined_are_the_whole_file(tmp_path, name, seconds):
    samples, path = tone(1.3, 48000), tmp_path / name
    if name.endswith((".m4a", ".webm")):
        encode(path, samples, 48000, "aac" if name.endswith("m4a") else "libopus")
    else:
        write_audio(path, samples, 48000)
    parts = list(audio.blocks(path, seconds))
    assert all(len(part.samples) == round(seconds * 48000) for part in parts[:-1])
    assert len(parts[-1].samples) > 0
    np.testing.assert_array_equal(np.concatenate([part.samples for part in parts]), read_audio(path).samples)


def test_content_counts_not_the_name(tmp_path):
    write_audio(tmp_path / "a.flac", tone(0.2, 8000), 8000)
    os.rename(tmp_path / "a.flac", tmp_path / "a.mp3")
    assert len(read_audio(tmp_path / "a.mp3").samples) == 1600
    encode(tmp_path / "b.m4a", tone(0.5, 44100), 44100, "aac")
    os.rename(tmp_path / "b.m4a", tmp_path / "b.wav")
    assert read_audio(tmp_path / "b.wav").sample_rate == 44100


def test_files_in_one_folder_can_be_written_at_once(tmp_path):
    one, two = tone(0.2, 8000), tone(0.3, 8000)
    with audio.AudioWriter(tmp_path / "1.wav", 8000) as first, audio.AudioWriter(tmp_path / "2.wav", 8000) as second:
        first.write(one)
        second.write(two)
    np.testing.assert_array_equal(to_pcm16(read_audio(tmp_path / "1.wav").samples), to_pcm16(one))
    np.testing.assert_array_equal(to_pcm16(read_audio(tmp_path / "2.wav").samples), to_pcm16(two))


def test_a_format_without_a_signature_is_told_by_its_ending(tmp_path):
    encode(tmp_path / "a.g722", tone(0.5, 16000), 16000, "g722")
    assert read_audio(tmp_path / "a.g722").duration_s == pytest.approx(0.5, abs=0.01)


def test_file_objects_and_pipes(tmp_path):
    for name, codec in (("a.flac", None), ("a.m4a", "aac"), ("a.webm", "libopus")):
        path = tmp_path / name
        encode(path, tone(0.5, 48000), 48000, codec) if codec else write_audio(path, tone(0.5, 48000), 48000)
        expected = read_audio(path).samples
        np.testing.assert_array_equal(read_audio(io.BytesIO(path.read_bytes())).samples, expected)
        receiving, sending = os.pipe()
        with os.fdopen(receiving, "rb") as pipe, os.fdopen(sending, "wb") as end:
            writer = threading.Thread(target=lambda end=end, path=path: (end.write(path.read_bytes()), end.close()))
            writer.start()  # a pipe holds less than the file
            np.testing.assert_array_equal(read_audio(pipe).samples, expected)
            writer.join()


def test_stereo_is_mixed_by_the_mean(tmp_path):
    left, right = tone(0.1, 16000, 300), tone(0.1, 16000, 700)
    soundfile.write(tmp_path / "a.wav", np.stack([left, right], 1), 16000, subtype="FLOAT")
    np.testing.assert_allclose(read_audio(tmp_path / "a.wav").samples, (left + right) / 2, atol=1e-7)


def test_the_sample_that_ships():
    got = read_audio(SAMPLE)
    assert got.sample_rate == 24000
    assert 12 <= got.duration_s <= 15
    assert soundfile.info(SAMPLE).subtype == "PCM_16"
    assert SAMPLE.with_suffix(".txt").read_text(encoding="utf-8").count(".") == 3


def wav(path: Path) -> bytes:
    write_audio(path, tone(1.0, 16000), 16000)
    return path.read_bytes()


def test_missing_empty_and_folder(tmp_path):
    with pytest.raises(AudioError, match=r"no such audio file: '.*nothing.wav'"):
        read_audio(tmp_path / "nothing.wav")
    (tmp_path / "empty.wav").touch()
    with pytest.raises(AudioError, match=r"empty.wav' is empty \(0 bytes\)"):
        read_audio(tmp_path / "empty.wav")
    with pytest.raises(AudioError, match="is empty"):
        read_audio(io.BytesIO())
    with pytest.raises(AudioError, match="got the folder"):
        audio.duration(tmp_path)


@pytest.mark.parametrize("name", ["notes.txt", "a.wav", "a.mp3", "a.raw", "a.m4a"])
def test_not_audio(tmp_path, name):
    (tmp_path / name).write_bytes(b"these are not the samples you are looking for\n" * 200)
    with pytest.raises(AudioError, match=f"{name}' cannot be read as audio"):
        read_audio(tmp_path / name)


@pytest.mark.parametrize(
    "playlist",
    [
        "ffconcat version 1.0\nfile 'secret.wav'\n",
        "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nsecret.wav\n#EXT-X-ENDLIST\n",
    ],
    ids=["concat", "hls"],
)
def test_an_upload_opens_no_other_file(tmp_path, monkeypatch, playlist):
    write_audio(tmp_path / "secret.wav", tone(0.2, 16000), 16000)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(AudioError, match="cannot be read as audio"):
        read_audio(io.BytesIO(playlist.encode()))


def test_a_file_opens_no_address(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        address = f"http://127.0.0.1:{server.getsockname()[1]}/a.wav"
        (tmp_path / "a.m3u8").write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{address}\n#EXT-X-ENDLIST\n")
        with pytest.raises(AudioError, match="cannot be read as audio"):
            read_audio(tmp_path / "a.m3u8")
        with pytest.raises(BlockingIOError):
            server.accept()


def test_video_without_sound(tmp_path):
    with av.open(str(tmp_path / "mute.mp4"), "w") as container:
        picture = container.add_stream("mpeg4", rate=10)
        picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
        container.mux(picture.encode(av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))))
        container.mux(picture.encode())
    with pytest.raises(AudioError, match="no audio stream"):
        read_audio(tmp_path / "mute.mp4")


@pytest.mark.parametrize("ending", [".wav", ".flac", ".ogg", ".mp3"])
def test_no_samples(tmp_path, ending):
    write_audio(tmp_path / f"a{ending}", np.zeros(0, np.float32), 16000)
    with pytest.raises(AudioError, match=r"no samples|is empty"):
        read_audio(tmp_path / f"a{ending}")


@pytest.fixture(scope="module")
def some_files(tmp_path_factory) -> dict[str, bytes]:
    folder, samples = tmp_path_factory.mktemp("files"), tone(0.5, 48000)
    for name in ("a.wav", "a.flac", "a.mp3", "a.ogg", "a.opus"):
        write_audio(folder / name, samples, 48000)
    for name, codec in (("a.m4a", "aac"), ("a.webm", "libopus"), ("a.wma", "wmav2"), ("a.mkv", "flac")):
        encode(folder / name, samples, 48000, codec)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@settings(max_examples=80, deadline=None)
@given(st.data())
def test_damage_is_never_worse_than_an_audio_error(some_files, data):
    damaged = bytearray(some_files[data.draw(st.sampled_from(sorted(some_files)))])
    for at, value in data.draw(st.lists(st.tuples(st.integers(0, len(damaged) - 1), st.integers(0, 255)), max_size=20)):
        damaged[at] = value
    cut = data.draw(st.integers(0, len(damaged)))
    with contextlib.suppress(AudioError):
        assert len(read_audio(io.BytesIO(bytes(damaged[cut // 2 :] if cut % 2 else damaged[:cut]))).samples) > 0


def test_wav_written_to_a_pipe_has_no_length_and_is_read_to_its_end(tmp_path):
    whole = wav(tmp_path / "a.wav")
    at = whole.index(b"data") + 4
    for size in (0xFFFFFFFF, 0x7FFFFFFF, 0x7FFFFFFF - 36):
        (tmp_path / "b.wav").write_bytes(whole[:at] + struct.pack("<I", size) + whole[at + 4 :])
        assert len(read_audio(tmp_path / "b.wav").samples) == 16000


def test_a_list_chunk_after_the_samples_is_no_damage(tmp_path):
    (tmp_path / "b.wav").write_bytes(wav(tmp_path / "a.wav") + b"LIST" + struct.pack("<I", 4) + b"INFO")
    assert len(read_audio(tmp_path / "b.wav").samples) == 16000


def test_not_a_number_in_a_float_file(tmp_path):
    samples = tone(0.1, 16000)
    samples[7] = np.nan
    soundfile.write(tmp_path / "a.wav", samples, 16000, subtype="FLOAT")
    with pytest.raises(AudioError, match="got nan at sample 7"):
        read_audio(tmp_path / "a.wav")


def test_bad_requests(tmp_path):
    wav(tmp_path / "a.wav")
    with pytest.raises(AudioError, match="positive sample_rate in Hz, got 0"):
        read_audio(tmp_path / "a.wav", 0)
    with pytest.raises(AudioError, match=r"a.wav' cannot be resampled: sample rate 300 Hz"):
        read_audio(tmp_path / "a.wav", 300)
    with pytest.raises(AudioError, match="at least one sample"):
        list(audio.blocks(tmp_path / "a.wav", 0))
    with pytest.raises(AudioError, match=r"ending in .wav"):
        write_audio(tmp_path / "a.xyz", tone(0.1, 16000), 16000)
    with pytest.raises(AudioError, match="OPUS, 44100 Hz"):
        write_audio(tmp_path / "a.opus", tone(0.1, 44100), 44100)
    with pytest.raises(AudioError, match="shape"):
        write_audio(tmp_path / "a.wav", np.zeros((2, 2, 2), np.float32), 16000)


floats = npst.arrays(np.float32, st.tuples(st.integers(0, 40), st.integers(1, 6)), elements=st.floats(-1, 1, width=32))
integers = npst.arrays(np.int16, st.tuples(st.integers(0, 40), st.integers(1, 6)))


@settings(max_examples=60, deadline=None)
@given(floats | integers, st.integers(0, 40))
def test_packets_do_not_change_a_sample(frames, cut):
    channels = frames.shape[1]
    whole = to_mono_float32(frames, channels)
    assert whole.dtype == np.float32
    assert whole.shape == (len(frames),)
    parts = [to_mono_float32(part, channels) for part in (frames[:cut], frames[cut:])]
    np.testing.assert_array_equal(np.concatenate(parts), whole)
    np.testing.assert_array_equal(to_mono_float32(np.asfortranarray(frames), channels), whole)
    if frames.dtype == np.int16:
        for raw in (frames.tobytes(), bytearray(frames.tobytes()), memoryview(frames.tobytes())):
            np.testing.assert_array_equal(to_mono_float32(raw, channels), whole)
    if channels == 1:
        np.testing.assert_array_equal(to_mono_float32(frames[:, 0]), whole)


@settings(max_examples=60, deadline=None)
@given(npst.arrays(np.int16, st.integers(0, 60)))
def test_pcm16_survives_the_way_through_float(pcm):
    np.testing.assert_array_equal(to_pcm16(to_mono_float32(pcm)), pcm)


def test_loud_floats_are_clipped_not_wrapped():
    assert to_pcm16(np.float32([-2, -1, 0, 1, 2])).tolist() == [-32768, -32768, 0, 32767, 32767]


@pytest.mark.parametrize(
    ("packet", "channels", "message"),
    [
        (b"\0\0\0", 1, "got 3 bytes"),
        (b"\0\0" * 3, 2, "2 channels, 4 bytes a frame, got 6 bytes"),
        (np.zeros(4, np.float64), 1, "int16 or float32 samples, got float64"),
        (np.zeros(4, np.int32), 1, "got int32"),
        (np.zeros(4, np.float32), 2, r"shape \(samples, 2\), got \(4,\)"),
        (np.zeros((2, 480), np.float32), 2, r"got \(2, 480\); transpose it"),
        (np.zeros((480, 2), np.float32), 1, r"\(samples,\) or \(samples, 1\), got \(480, 2\)"),
        (np.zeros((3, 2, 2), np.float32), 2, "got"),
        (np.zeros((), np.float32), 1, "got"),
        (np.float32([0, np.inf]), 1, "got inf at sample 1"),
        ([0.0, 0.1], 1, "got list"),
        (np.zeros(4, np.int16), 0, "at least 1 channel"),
    ],
)
def test_bad_packets_say_what_was_expected(packet, channels, message):
    with pytest.raises(AudioError, match=message):
        to_mono_float32(packet, channels)
