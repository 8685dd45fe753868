"""One stream: any packets, the same events; a value that can be saved, moved and rolled back; nothing lost."""

import itertools
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.speech.audio.files import Audio
from loquent.speech.audio.resample import resample
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Marker, Word
from loquent.speech.runtime.sample_inbox import SampleInbox
from loquent.speech.runtime.stream import StreamClosed

RATES = (16_000, 8_000, 11_025, 44_100, 48_000)


def noise(samples, channels=1, seed=0):
    shape = (samples, channels) if channels > 1 else samples
    return np.random.default_rng(seed).integers(-20_000, 20_000, shape, np.int16)


def open_session(band_energy, **options):
    return Engine(band_energy.BandEnergy(), 1).open(stream="s", **options)


@settings(max_examples=40, deadline=None)
@given(data=st.data())
def test_any_packets_give_the_same_events(band_energy, data):
    rate, channels = data.draw(st.sampled_from(RATES)), data.draw(st.sampled_from([1, 2]))
    audio = noise(data.draw(st.integers(0, rate)), channels)
    marks = data.draw(st.sets(st.integers(1, len(audio) + 1), max_size=3)) - {len(audio) + 1}

    def events_of(cuts, late_end, floats):
        session = open_session(band_energy, sample_rate=rate, channels=channels, chunk_ms=70)
        events = []
        for a, b in itertools.pairwise(sorted({0, len(audio), *marks, *cuts})):
            packet = (audio[a:b] / np.float32(32768)).astype(np.float32) if floats and a % 2 else audio[a:b]
            if late_end:  # a server that is behind: nothing is stepped until the end has come
                session.feed(packet)
            else:
                events += session.push(packet)
            events += session.marker(f"at {b}") if b in marks else []
        return events + session.finish()

    expected = events_of([], False, False)
    cuts = data.draw(st.lists(st.integers(0, len(audio)), max_size=8))
    assert events_of(cuts, data.draw(st.booleans()), data.draw(st.booleans())) == expected
    assert [event.sequence for event in expected] == list(range(len(expected)))
    assert {event.id for event in expected if isinstance(event, Marker)} == {f"at {mark}" for mark in marks}


@pytest.mark.parametrize("rate", RATES)
@pytest.mark.parametrize("length", [0, 1, 1600, 3199, 3200, 4801])
def test_the_model_hears_every_sample_and_the_resamplers_tail(rate, length):
    audio = noise(length)
    inbox = SampleInbox(rate, 1, 16_000)
    parts = []
    for begin in range(0, length, 97):
        inbox.push(audio[begin : begin + 97])
        while inbox.available(160):
            parts.append(inbox.resolve(inbox.claim(160)))
    inbox.end()
    while not parts or not parts[-1][1]:
        parts.append(inbox.resolve(inbox.claim(160)))
    assert [len(block) for block, _ in parts[:-1]] == [160] * (len(parts) - 1)
    heard = np.concatenate([block for block, _ in parts])
    expected = resample(audio / np.float32(32768), rate, 16_000)
    assert len(heard) == len(expected) == -(-length * 16_000 // rate)
    np.testing.assert_allclose(heard, expected, atol=1e-5)
    assert inbox.pending == 0


def test_a_packet_may_be_reused_by_its_owner(band_energy):
    audio, buffer = (noise(1000) / np.float32(32768)).astype(np.float32), np.zeros(500, np.float32)
    session, reference = open_session(band_energy), open_session(band_energy)
    for half in (audio[:500], audio[500:]):
        buffer[:] = half
        session.feed(buffer)
    buffer[:] = 0
    reference.feed(audio)
    assert session.finish() == reference.finish()


def test_a_marker_comes_after_what_was_said_before_it(band_energy):
    session = open_session(band_energy, chunk_ms=100)
    assert [event.type for event in session.marker("start")] == ["marker"]
    assert session.push(noise(1599)) == []
    assert session.marker("middle") == []
    events = session.push(noise(1))
    assert [event.type for event in events] == ["partial", "word", "marker"]
    session.push(noise(100))
    session.marker("end")
    assert [event.type for event in session.finish()] == ["partial", "word", "final", "marker"]


def test_a_marker_waits_for_the_step_under_way(band_energy):
    engine = Engine(band_energy.BandEnergy(), 1)
    session = engine.open()
    session.feed(noise(1600))
    batch = engine.collect()
    assert session.marker("m") == []
    engine.deliver(batch, engine.compute(batch))
    assert [event.type for event in session.drain()] == ["partial", "word", "marker"]


def test_a_marker_before_the_end_does_not_overtake_audio_that_waits(band_energy):
    session = open_session(band_energy, sample_rate=48_000)
    session.feed(noise(48_000))
    session.marker("m")
    types = [event.type for event in session.finish()]
    assert types[: types.index("marker")].count("word") == 10


@settings(max_examples=15, deadline=None)
@given(rate=st.sampled_from(RATES), cut=st.integers(0, 20_000), extra=st.integers(0, 20_000))
def test_a_snapshot_goes_on_as_if_nothing_had_happened(band_energy, rate, cut, extra):
    audio = noise(cut + extra)
    session = open_session(band_energy, sample_rate=rate)
    session.push(audio[:cut])
    session.marker("later")
    saved = session.snapshot()
    expected = session.push(audio[cut:]) + session.finish()

    engine = Engine(band_energy.BandEnergy(), 3)
    engine.open().push(noise(5000, seed=1))
    moved = engine.restore(saved)
    assert moved.push(audio[cut:]) + moved.finish() == expected
    again = session.engine.restore(saved)  # rolled back: the first continuation left no trace
    assert again.push(audio[cut:]) + again.finish() == expected


def test_a_snapshot_goes_on_in_another_process(band_energy, tmp_path):
    audio = noise(30_000)
    session = open_session(band_energy, sample_rate=44_100)
    session.push(audio[:10_000])
    (tmp_path / "snapshot").write_bytes(session.snapshot())
    expected = session.push(audio[10_000:]) + session.finish()
    np.save(tmp_path / "rest.npy", audio[10_000:])
    program = """
import json, sys, numpy
from band_energy import BandEnergy
from loquent.speech.runtime.engine import Engine
session = Engine(BandEnergy(), 2).restore(open("snapshot", "rb").read())
events = session.push(numpy.load("rest.npy")) + session.finish()
print(json.dumps([event.to_dict() for event in events]))
"""
    environment = {"PYTHONPATH": str(Path(__file__).parents[1]), "PATH": "", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert [Event.from_dict(values) for values in json.loads(run.stdout)] == [
        Event.from_dict(event.to_dict()) for event in expected
    ]


@pytest.mark.parametrize("junk", [b"", b"hello", b"\xff" * 100, b"\x02\0\0\0\0\0\0\0{}"])
def test_junk_is_no_snapshot(band_energy, junk):
    engine = Engine(band_energy.BandEnergy(), 1)
    with pytest.raises(ValueError, match="not a snapshot of a stream"):
        engine.restore(junk)
    assert engine.active == 0


def test_state_is_bounded(band_energy):
    session = open_session(band_energy, sample_rate=44_100)
    sizes = set()
    for _ in range(20):
        session.push(noise(44_100))
        sizes.add(session.nbytes)
    assert max(sizes) < 40_000


def test_a_bad_packet_is_dropped_whole_and_the_stream_goes_on(band_energy):
    session, reference = open_session(band_energy), open_session(band_energy)
    session.push(noise(800))
    for bad in (np.array([0.0, np.nan], np.float32), np.zeros((5, 2), np.int16), np.zeros(5), b"\0\0\0"):
        with pytest.raises(ValueError, match=r"expected|NaN|finite"):
            session.push(bad)
    assert session.push(noise(800)) == reference.push(np.concatenate([noise(800), noise(800)]))


def test_audio_that_knows_its_rate_is_not_taken_for_another(band_energy):
    session, reference = open_session(band_energy, sample_rate=24_000), open_session(band_energy, sample_rate=24_000)
    samples = noise(24_000).astype(np.float32) / 32_768
    with pytest.raises(ValueError, match="open the session with sample_rate=16000"):
        session.push(Audio(samples, 16_000))
    assert session.push(Audio(samples, 24_000)) == reference.push(samples) != []


def test_nothing_after_the_end(band_energy):
    session = open_session(band_energy)
    session.push(noise(100))
    assert any(isinstance(event, Word) for event in session.finish())
    for late in (session.finish, lambda: session.push(noise(10)), lambda: session.marker("m"), session.snapshot):
        with pytest.raises(StreamClosed):
            late()
