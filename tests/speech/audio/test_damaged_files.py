"""A recording that is cut short or damaged gives what there is, and says what is missing."""

import io
import logging
import re
import tempfile
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
import soundfile

from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.files import AudioReader, blocks, read_audio, to_pcm16

RATE = 16000
NOISE = np.random.default_rng(0).normal(0, 0.1, 10 * RATE).astype(np.float32)


def written(container: str, subtype: str | None = None) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, NOISE, RATE, format=container, subtype=subtype)
    return file.getvalue()


def encoded(codec: str, container: str, options: dict[str, str] | None = None) -> bytes:
    rate = 48000 if codec == "libopus" else RATE
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "file")  # to put its index first, FFmpeg reads what it wrote
        _encode(path, rate, codec, container, options or {})
        return path.read_bytes()


def _encode(path: Path, rate: int, codec: str, container: str, options: dict[str, str]) -> None:
    with av.open(str(path), "w", format=container, options=options) as output:
        stream = output.add_stream(codec, rate=rate, layout="mono")
        stream.bit_rate = 64000
        frame = av.AudioFrame.from_ndarray(to_pcm16(NOISE).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), 0
        output.mux(stream.encode(frame))
        output.mux(stream.encode())


FILES = {
    "wav": lambda: written("WAV"),
    "ulaw": lambda: written("WAV", "ULAW"),
    "rf64": lambda: written("RF64"),
    "aiff": lambda: written("AIFF"),
    "au": lambda: written("AU"),
    "caf": lambda: written("CAF"),
    "w64": lambda: written("W64"),
    "flac": lambda: written("FLAC"),
    "mp3": lambda: written("MP3"),
    "ogg": lambda: written("OGG", "VORBIS"),
    "opus": lambda: written("OGG", "OPUS"),
    "m4a": lambda: encoded("aac", "mp4", {"movflags": "faststart"}),
    "webm": lambda: encoded("libopus", "webm"),
    "mkv": lambda: encoded("flac", "matroska"),
    "wma": lambda: encoded("wmav2", "asf"),
    "avi": lambda: encoded("pcm_s16le", "avi"),
    "mp3 in wav": lambda: encoded("libmp3lame", "wav"),
}


@pytest.fixture(scope="module")
def files() -> dict[str, bytes]:
    return {name: make() for name, make in FILES.items()}


@pytest.mark.parametrize("kept", [0.31, 0.7])
@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_gives_what_there_is(files, name, kept):
    whole, data = read_audio(io.BytesIO(files[name])), files[name][: int(kept * len(files[name]))]
    assert whole.warnings == ()
    got = read_audio(io.BytesIO(data))
    # Pages of Ogg and blocks of WMA hold a second or so.
    assert got.duration_s == pytest.approx(10 * kept, abs=1.5)
    same = len(got.samples) - RATE // 4
    assert np.corrcoef(got.samples[:same], whole.samples[:same])[0, 1] > 0.99
    assert "cut short" in " ".join(got.warnings) or "damaged" in " ".join(got.warnings)
    with AudioReader(io.BytesIO(data)) as reader:
        assert sum(map(len, reader.blocks(0.3))) == len(got.samples)
        assert len(reader.warnings) == len(got.warnings)


def test_a_warning_says_how_much_was_read_of_how_much(files, caplog):
    data = files["mp3"][: len(files["mp3"]) // 2]
    expected = (
        r"the audio stream is damaged or cut short: 4\.9\d s could be read of the 10\.0\d s that its header states"
    )
    with caplog.at_level(logging.WARNING):
        assert len(list(blocks(io.BytesIO(data), 60))) == 1
    assert len(caplog.messages) == 1
    assert caplog.messages == list(read_audio(io.BytesIO(data)).warnings)
    assert re.fullmatch(expected, caplog.messages[0])


def test_seconds_that_are_missing_in_bytes(files):
    (warning,) = read_audio(io.BytesIO(files["wav"][: 44 + 64000])).warnings
    assert "2.00 s could be read, from 64000 of the 320000 bytes that its header states" in warning


@pytest.mark.parametrize("name", ["flac", "ogg", "opus", "mp3", "m4a", "mkv", "webm", "wma"])
def test_damage_in_the_middle_costs_no_more_than_itself(files, name):
    whole, damaged = read_audio(io.BytesIO(files[name])), bytearray(files[name])
    at = len(damaged) // 2
    damaged[at : at + 400] = bytes(400)
    got = read_audio(io.BytesIO(bytes(damaged)))
    assert got.duration_s == pytest.approx(10, abs=0.35)
    end = RATE * 3
    assert max(np.correlate(got.samples[-end:], whole.samples[-end + 8000 : -8000], "valid")) > 10 or name == "opus"
    if name not in ("webm", "wma", "mkv"):  # codecs that conceal it, and tell nobody
        assert "damaged" in " ".join(got.warnings)


@pytest.mark.parametrize("name", ["flac", "ogg", "opus", "mkv"])
def test_what_follows_lost_bytes_keeps_its_time(files, name):
    data = files[name]
    got = read_audio(io.BytesIO(data[: len(data) * 4 // 10] + data[len(data) * 6 // 10 :]))
    assert got.duration_s == pytest.approx(10, abs=0.1)
    assert got.warnings
    quiet = np.abs(got.samples[: len(got.samples) // 100 * 100]).reshape(100, -1).max(1) < 1e-3
    assert 10 <= quiet.sum() <= (65 if name == "mkv" else 35)  # after damage, Matroska is read from the next cluster on


def test_a_flac_that_was_forged_to_be_long_has_no_length(files):
    data = bytearray(files["flac"])
    data[21], data[22:26] = data[21] | 0x0E, b"\xff" * 4
    with AudioReader(io.BytesIO(bytes(data))) as reader:
        assert reader.duration_s is None
    assert read_audio(io.BytesIO(bytes(data))).duration_s == 10


def test_a_wrong_checksum_of_the_whole_is_no_damage(files):
    data = bytearray(files["flac"])
    data[26:42] = bytes(range(16))
    assert read_audio(io.BytesIO(bytes(data))).warnings == ()


@pytest.mark.parametrize("container", ["mp4", "mov"])
def test_a_film_without_an_index_says_so(container):
    data = encoded("aac", container)
    with pytest.raises(AudioError, match="cut short, or its recording was not finished"):
        read_audio(io.BytesIO(data[: len(data) // 2]))


@pytest.mark.parametrize(
    "data",
    [b"<!DOCTYPE html><html><body>404</body></html>" * 50, b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(3000), bytes(5000)],
    ids=["html", "jpeg", "zeros"],
)
@pytest.mark.parametrize("name", ["a.mp3", "a.aac", "a.flac", "a.bin"])
def test_no_audio(tmp_path, data, name):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(AudioError, match="cannot be read as audio"):
        read_audio(tmp_path / name)


def test_headers_alone_are_no_recording(files):
    for name, size in (("wav", 44), ("flac", 60), ("ogg", 300), ("mp3", 60), ("aiff", 54)):
        with pytest.raises(AudioError, match="cannot be read as audio"):
            read_audio(io.BytesIO(files[name][:size]))


def test_a_rate_that_no_memory_can_hold_a_second_of(files):
    """A block of a second is asked for; the header claims two thousand million samples for it."""
    data = bytearray(files["wav"])
    data[24:28] = (2_000_000_000).to_bytes(4, "little")
    with AudioReader(io.BytesIO(bytes(data))) as reader:
        assert [len(block) for block in reader.blocks(1.0)] == [160_000]
