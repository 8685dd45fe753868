"""Sound is where the clock of its file puts it: late sound comes after silence, and nothing else is moved."""

import io
from fractions import Fraction

import av
import numpy as np
import pytest

from loquent.speech.audio import decoders
from loquent.speech.audio.files import AudioReader, read_audio, to_pcm16

RATE = 16000


def beeps(seconds: float) -> np.ndarray:
    """0.1 s of tone at the beginning of each second."""
    n = np.arange(round(seconds * RATE))
    return (0.4 * np.sin(2 * np.pi * 600 * n / RATE) * (n % RATE < RATE // 10)).astype(np.float32)


def onsets(samples: np.ndarray, rate: int) -> list[float]:
    """Seconds at which the beeps begin."""
    hop = rate // 100
    loud = np.abs(samples[: len(samples) // hop * hop]).reshape(-1, hop).max(1) > 0.1
    quiet_before = np.convolve(loud, np.ones(30), "full")[: len(loud)] - loud == 0
    return (np.flatnonzero(loud & quiet_before) / 100).tolist()


def film(samples: np.ndarray, container: str, codec: str, late_s: float = 0.0, video_s: float = 12.0, lost=()) -> bytes:
    """A picture from 0 s on, and sound from ``late_s`` on, without the packets that begin in ``lost``."""
    file = io.BytesIO()
    with av.open(file, "w", format=container) as output:
        if video_s:
            picture = output.add_stream("mpeg4" if container != "webm" else "libvpx", rate=5)
            picture.width, picture.height, picture.pix_fmt = 32, 32, "yuv420p"
        sound = output.add_stream(codec, rate=48000 if codec == "libopus" else RATE, layout="mono")
        if video_s:
            for number in range(round(5 * video_s)):
                image = av.VideoFrame.from_ndarray(np.zeros((32, 32, 3), np.uint8))
                image.pts, image.time_base = number, Fraction(1, 5)
                output.mux(picture.encode(image))
            output.mux(picture.encode())
        frame = av.AudioFrame.from_ndarray(to_pcm16(samples).reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate, frame.time_base, frame.pts = RATE, Fraction(1, RATE), round(late_s * RATE)
        for packet in [*sound.encode(frame), *sound.encode()]:
            begin = float(packet.pts * packet.time_base)
            if not any(first <= begin < last for first, last in lost):
                output.mux(packet)
    return file.getvalue()


FILMS = (
    ("mp4", "aac"),
    ("matroska", "aac"),
    ("webm", "libopus"),
    ("mpegts", "aac"),
    ("mov", "pcm_s16le"),
    ("nut", "aac"),
)


@pytest.mark.parametrize(("container", "codec"), FILMS)
@pytest.mark.parametrize("late_s", [0.2, 3.0])
def test_sound_that_starts_late(container, codec, late_s):
    data = film(beeps(5), container, codec, late_s)
    with AudioReader(io.BytesIO(data)) as reader:
        assert reader.duration_s is None or reader.duration_s == pytest.approx(5 + late_s, abs=0.15)
    got = read_audio(io.BytesIO(data))
    assert got.warnings == ()
    assert onsets(got.samples, got.sample_rate) == pytest.approx([late_s + n for n in range(5)], abs=0.11)
    assert got.duration_s == pytest.approx(5 + late_s, abs=0.2)


def test_late_sound_without_a_picture():
    got = read_audio(io.BytesIO(film(beeps(3), "mp4", "aac", 2.0, video_s=0)))
    assert onsets(got.samples, RATE) == pytest.approx([2, 3, 4], abs=0.11)


@pytest.mark.parametrize(("container", "codec"), FILMS)
def test_lost_packets_leave_silence(container, codec):
    got = read_audio(io.BytesIO(film(beeps(8), container, codec, 0.2, lost=[(2.5, 4.5)])))
    if container in ("mp4", "mov"):  # a packet lasts there until the next begins
        assert onsets(got.samples, got.sample_rate)[-1] == pytest.approx(7.2, abs=0.15)
        return
    assert onsets(got.samples, got.sample_rate) == pytest.approx([0.2, 1.2, 2.2, 5.2, 6.2, 7.2], abs=0.15)


def test_silence_comes_in_blocks_of_the_size_asked_for():
    with AudioReader(io.BytesIO(film(beeps(2), "matroska", "aac", 7.0))) as reader:
        blocks = list(reader.blocks(0.25))
    assert {len(block) for block in blocks[:-1]} == {4000}
    assert sum(map(len, blocks)) == pytest.approx(9 * RATE, abs=0.2 * RATE)


@pytest.mark.parametrize("years", [0.001, 3])
def test_a_forged_time_stamp_makes_no_silence_for_years(years, monkeypatch):
    monkeypatch.setattr(decoders, "MOST_SILENCE_S", 60.0)
    file, clock = io.BytesIO(), Fraction(1, RATE)
    with av.open(file, "w", format="nut") as output:
        sound = output.add_stream("pcm_s16le", rate=RATE, layout="mono")
        for number in range(20):
            packet = av.Packet(to_pcm16(beeps(0.2)).tobytes())
            packet.stream, packet.time_base = sound, clock
            packet.pts = packet.dts = number * RATE // 5 + (number > 9) * round(years * 365 * 86400) * RATE
            output.mux(packet)
    got = read_audio(io.BytesIO(file.getvalue()))
    assert got.duration_s == pytest.approx(4.0, abs=0.01)
    assert "silence, which was left out" in got.warnings[0]


def test_the_delay_of_an_encoder_is_no_late_sound():
    """The time stamps of its first samples are below 0, and these are no sound."""
    for container in ("mp4", "matroska"):
        got = read_audio(io.BytesIO(film(beeps(3), container, "aac", video_s=0)))
        assert onsets(got.samples, RATE) == pytest.approx([0, 1, 2], abs=0.08)
