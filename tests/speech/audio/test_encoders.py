"""Files that are written while they are made: what is read from them is what went in, to the last sample."""

import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import loquent.speech
from loquent.speech.audio.encoders import FILE_FORMATS, file_encoder
from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.files import read_audio, to_pcm16

SAMPLE = Path(loquent.speech.__file__).parent / "assets" / "sample.flac"
RATES = {name: format.rates or (8000, 22_050, 24_000, 44_100) for name, format in FILE_FORMATS.items()}
CASES = [(name, rate) for name, rates in RATES.items() for rate in rates]
LOSSLESS = ("flac", "wav", "pcm")
FRAME = 2048  # at most this much silence is added at either end


def speech(rate: int, seconds: float = 2.0) -> np.ndarray:
    return read_audio(SAMPLE, rate).samples[: round(rate * seconds)]


def pieces_of(name: str, rate: int, samples: np.ndarray, cuts: list[int]) -> list[bytes]:
    encoder = file_encoder(name, rate)
    return [*map(encoder.encode, np.split(samples, cuts)), encoder.finish()]


def read_back(name: str, data: bytes, rate: int) -> np.ndarray:
    if name == "pcm":
        return np.frombuffer(data, "<i2") / np.float32(32768)
    audio = read_audio(io.BytesIO(data))
    assert (audio.sample_rate, audio.warnings) == (rate, ())
    return audio.samples


@pytest.mark.parametrize(("name", "rate"), CASES)
def test_a_file_has_all_that_was_said(name: str, rate: int) -> None:
    said = speech(rate)
    tone = 0.4 * np.sin(np.arange(rate // 4) * 2 * np.pi * 440 / rate)
    said[-len(tone) :] = tone  # loud to the last sample
    heard = read_back(name, b"".join(pieces_of(name, rate, said, [*range(0, len(said), rate // 25)])), rate)
    if name in LOSSLESS:
        assert np.array_equal(to_pcm16(heard), to_pcm16(said))
        return
    if name == "opus":  # its header and its last page tell what to leave out
        assert abs(len(heard) - len(said)) <= 1
    assert len(said) - 1 <= len(heard) <= len(said) + 3 * FRAME
    scores = [
        np.dot(heard[lag : lag + len(said)], said[: len(heard) - lag]) for lag in range(len(heard) - len(said) + 1)
    ]
    lag = int(np.argmax(scores)) if scores else 0
    aligned = heard[lag : lag + len(said)]
    assert lag <= FRAME
    assert np.corrcoef(aligned, said[: len(aligned)])[0, 1] > 0.9
    end = aligned[-(rate // 50) :]  # the last 20 ms
    assert np.sqrt(np.mean(end**2)) > 0.2


@pytest.mark.parametrize("name", FILE_FORMATS)
@settings(max_examples=8, deadline=None)
@given(cuts=st.lists(st.integers(0, 24_000), max_size=8).map(sorted))
def test_a_file_is_the_same_however_its_samples_come(name: str, cuts: list[int]) -> None:
    said = speech(24_000, 1.0)
    assert b"".join(pieces_of(name, 24_000, said, cuts)) == b"".join(pieces_of(name, 24_000, said, []))


@pytest.mark.parametrize(("name", "rate"), [(name, rates[0]) for name, rates in RATES.items()])
def test_what_came_so_far_can_be_heard(name: str, rate: int) -> None:
    said = speech(rate)
    pieces = pieces_of(name, rate, said, [*range(rate // 25, len(said), rate // 25)])
    assert len(pieces) == 51
    half = b"".join(pieces[:25])  # a second
    assert len(read_back(name, half, rate)) >= 0.55 * rate
    assert sum(map(bool, pieces)) >= 10


@pytest.mark.parametrize("name", FILE_FORMATS)
def test_nothing_said(name: str) -> None:
    data = file_encoder(name, 24_000).finish()
    assert data == b"".join(pieces_of(name, 24_000, np.zeros(0, np.float32), []))
    assert bool(data) == (name in ("opus", "flac", "wav"))  # those have headers
    assert len(data) < 500


def test_what_cannot_be_encoded_is_refused() -> None:
    with pytest.raises(AudioError, match="unknown format 'doc'; expected mp3, opus"):
        file_encoder("doc", 24_000)
    with pytest.raises(AudioError, match="opus cannot have 22050 Hz; expected one of 8000, 12000"):
        file_encoder("opus", 22_050)
    with pytest.raises(AudioError, match="expected a positive rate"):
        file_encoder("wav", 0)
    for name in FILE_FORMATS:
        encoder = file_encoder(name, 24_000)
        for wrong in (np.zeros(5, np.int16), np.zeros((5, 2), np.float32), np.full(5, np.nan, np.float32)):
            with pytest.raises(AudioError):
                encoder.encode(wrong)
        encoder.finish()
        assert encoder.finish() == b""
        with pytest.raises(AudioError, match="has been finished"):
            encoder.encode(np.zeros(5, np.float32))


def test_ffmpeg_is_loaded_when_it_is_needed() -> None:
    program = (
        "import sys; from loquent.speech.audio.encoders import file_encoder\n"
        "file_encoder('wav', 8000).finish(); assert 'av' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
